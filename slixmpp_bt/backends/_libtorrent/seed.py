"""Seeds: complete files, served."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import libtorrent as lt

from ...manifest import Manifest
from ...messages import Candidate
from .. import _store
from ..admission import Admission
from ..base import Seed
from .params import seed_params
from .swarm import TorrentSwarm

if TYPE_CHECKING:
    from .session import Session


class TorrentSeed(TorrentSwarm, Seed):
    """Complete files: all of the manifest's, or those of `select`."""

    def __init__(
        self,
        session: Session,
        manifest: Manifest,
        files: Mapping[int, Path],
        admission: Admission,
        layers: Mapping[bytes, bytes],
        select: frozenset[int] | None = None,
    ) -> None:
        super().__init__(session, manifest, files, admission)
        self._layers = layers
        self._select = select

    def take_over(self, candidates: Iterable[Candidate], paused: bool) -> None:
        """Go on, when opened, where a download was."""
        self._candidates.update(dict.fromkeys(candidates))
        self._paused = paused

    def _params(self) -> lt.add_torrent_params:
        _store.check_complete(self._manifest, self._files, self._select)
        return seed_params(self._manifest, self._files, self._layers, self._select)
