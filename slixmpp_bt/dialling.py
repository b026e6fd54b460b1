"""Whom a download dials: the sender, and the other receivers that it introduces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

from . import addresses
from .backends import Download
from .constants import Mode
from .context import Context
from .errors import BackendClosed
from .messages import MAX_CANDIDATES, MAX_PEERS, Accepted, Candidate, Peers
from .shares import WHOLE

#: So many addresses are dialled for one download.
_MAX_KNOWN = 512
#: Receivers hear of each other at about the same moment. One of two dials after so many seconds, the other one later
#: and only if that did not help: libtorrent drops both connections of two who dial each other at once.
FIRST_TURN, SECOND_TURN = 0.3, 0.9


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
        self._know(theirs)
        self._dial(theirs)
        self._download.prefer(answer.share or WHOLE)
        await self._download.resume()
        return None

    async def change(self, message: Peers, senders: Collection[Candidate]) -> None:
        """Some have joined or left.

        :param senders: the sender's own addresses, which may be among them.
        :raises BackendClosed: everything is here already.
        """
        own = await self.own()
        self._download.remove_candidates(message.left)
        self.known.difference_update(message.left)
        joined = addresses.acceptable(message.joined, own, most=MAX_PEERS)
        self._know(joined)
        self._dial(candidate for candidate in joined if candidate in senders)
        for candidate in joined:
            if candidate not in senders:
                turn = FIRST_TURN if not own or _rank(candidate) < min(map(_rank, own)) else SECOND_TURN
                asyncio.get_running_loop().call_later(turn, self._dial, (candidate,))
        if message.share is not None:
            self._download.prefer(message.share)

    def _know(self, candidates: Iterable[Candidate]) -> None:
        """As far as there is room: who offers could name addresses without end."""
        new = [candidate for candidate in candidates if candidate not in self.known]
        self.known.update(new[: _MAX_KNOWN - len(self.known)])

    def _dial(self, candidates: Iterable[Candidate]) -> None:
        with suppress(BackendClosed):  # everything is here already
            self._download.add_candidates(candidate for candidate in candidates if candidate in self.known)


def _rank(candidate: Candidate) -> tuple[int, str]:
    """An order that both sides know."""
    return candidate.port, str(candidate.address)
