"""libtorrent and nothing else: no XMPP, no manifest of ours; both sides know of each other before the clock starts.

A file is there when it was flushed (libtorrent says finished before) and has its final name, as with slixmpp_bt.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import libtorrent as lt

from slixmpp_bt.backends._libtorrent.settings import one_class_for_all, session_settings
from slixmpp_bt.backends.base import RateLimits
from slixmpp_bt.config import Endpoint

from . import End, until

#: Seconds without a word of the engine's until it counts as stuck.
_PATIENCE = 120


class Side(End):
    """Either side.

    :param settings: libtorrent's, beyond those of slixmpp_bt.
    :param host: the address to listen on.
    :param piece: bytes in each piece.
    """

    def __init__(self, settings: dict[str, Any], piece: int, host: str = "127.0.0.1") -> None:
        self._settings, self._piece, self._host = settings, piece, host

    async def open(self) -> dict[str, Any]:
        ours = session_settings([Endpoint.parse(self._host)], RateLimits(), False)
        mask = lt.alert_category.status | lt.alert_category.storage | lt.alert_category.error
        # A plugin less, as with slixmpp_bt: nothing is exchanged but this torrent.
        settings = cast("lt.settings_pack", {**ours, **self._settings, "alert_mask": mask})
        self._session = lt.session(settings, flags=0)
        self._session.set_peer_class_filter(one_class_for_all())
        await until(lambda: self._session.listen_port() != 0)
        return {"address": [self._host, self._session.listen_port()]}

    async def make(self, path: str, torrent: str) -> None:
        """Hash `path` and write the file `torrent`."""
        await asyncio.to_thread(self._make, Path(path), Path(torrent))

    async def seed(self, path: str, torrent: str) -> None:
        """Serve `path` from now on."""
        params = lt.load_torrent_file(torrent)
        params.save_path, params.renamed_files = str(Path(path).parent), {0: path}
        params.flags = lt.torrent_flags.seed_mode | lt.torrent_flags.upload_mode
        self._handle = self._session.add_torrent(params)

    async def fetch(self, path: str, torrent: str, address: list[Any]) -> dict[str, Any]:
        """Fetch `torrent` from `address`; the clock starts when everything is ready to dial."""
        params = lt.load_torrent_file(torrent)
        part = f"{path}.part"
        params.save_path, params.renamed_files = str(Path(path).parent), {0: part}
        params.flags = lt.torrent_flags.paused
        handle = self._session.add_torrent(params)
        await self._until(lt.torrent_checked_alert)
        # Else it would wait for its beat, up to a second (docs/explanation/decisions).
        self._session.apply_settings({"min_reconnect_time": 0})
        begun = time.monotonic()
        handle.connect_peer((str(address[0]), int(address[1])))
        handle.resume()
        await self._until(lt.torrent_finished_alert)
        handle.flush_cache()
        await self._until(lt.cache_flushed_alert)
        await asyncio.to_thread(_publish, Path(part), Path(path))
        return {"path": path, "times": {"begun": begun, "ended": time.monotonic()}}

    def _make(self, path: Path, torrent: Path) -> None:
        creator = lt.create_torrent(lt.list_files(str(path)), self._piece, lt.create_torrent.v2_only)
        lt.set_piece_hashes(creator, str(path.parent))
        torrent.write_bytes(lt.bencode(creator.generate()))

    async def _until(self, kind: type[lt.alert]) -> None:
        await asyncio.to_thread(_wait, self._session, lambda alert: isinstance(alert, kind))


def _wait(session: lt.session, wanted: Callable[[lt.alert], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        session.wait_for_alert(1000)
        for alert in session.pop_alerts():
            if isinstance(alert, lt.torrent_error_alert | lt.file_error_alert):
                raise RuntimeError(alert.message())
            if wanted(alert):
                return
    raise TimeoutError("libtorrent is stuck")


def _publish(part: Path, path: Path) -> None:
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.rename(path)
