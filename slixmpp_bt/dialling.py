"""Whom a download dials: the sender, and the other receivers that it introduces."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from . import addresses
from .backends import Download
from .constants import Mode
from .context import Context
from .messages import MAX_CANDIDATES, MAX_PEERS, Accepted, Candidate, Peers
from .shares import WHOLE

#: So many addresses are dialled for one download.
_MAX_KNOWN = 512


class Dialling:
    """The addresses of one download.

    :ivar known: those that were dialled and have not left.
    :param why: is told in words what keeps the swarm.
    """

    def __init__(self, context: Context, mode: Mode, download: Download, why: Callable[[str], None]) -> None:
        self.known: set[Candidate] = set()
        self._context = context
        self._mode = mode
        self._download = download
        self._why = why

    async def own(self) -> tuple[Candidate, ...]:
        """Where this side listens."""
        listening = await self._context.backend.candidates(self._mode)
        return addresses.own(listening, self._context.config.advertise, ())

    async def dial(self, answer: Accepted) -> str | None:
        """Dial whom the sender named. Returns why nobody can be dialled."""
        own = await self.own()
        theirs = addresses.acceptable((*answer.candidates, *answer.peers), own, most=MAX_CANDIDATES + MAX_PEERS)
        # A sender without an address can still dial this side.
        if not theirs and (answer.candidates or not own):
            return addresses.explain(own, answer.candidates) or "the sender offers no address that may be dialled"
        self._why(addresses.explain(own, theirs) or "dialling the sender")
        self._add(theirs)
        self._download.prefer(answer.share or WHOLE)
        await self._download.resume()
        return None

    async def change(self, message: Peers) -> None:
        """Some have joined or left.

        :raises BackendClosed: everything is here already.
        """
        own = await self.own()
        self._download.remove_candidates(message.left)
        self.known.difference_update(message.left)
        self._add(addresses.acceptable(message.joined, own, most=MAX_PEERS))
        if message.share is not None:
            self._download.prefer(message.share)

    def _add(self, candidates: Iterable[Candidate]) -> None:
        """Dial these, as far as there is room: who offers could name addresses without end."""
        candidates = tuple(candidates)
        new = tuple(c for c in candidates if c not in self.known)[: _MAX_KNOWN - len(self.known)]
        self.known.update(new)
        self._download.add_candidates(c for c in candidates if c in self.known)
