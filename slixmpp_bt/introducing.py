"""The sender introduces an offer's receivers to each other, and deals them shares (protocol section 1, Peers)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

from .messages import MAX_PEERS, Candidate, Share
from .sending import Sending
from .shares import WHOLE, deal

#: At most one Peers to each receiver in so many seconds.
_PEERS_PACE = 5.0
#: Those who come together are told together: when nobody has come for so many seconds, or after so many at most.
_QUIET, _GATHERED = 0.3, 1.5
#: So many addresses from which connections came are remembered.
_MAX_CONFIRMED = 4_096


class Introducing:
    """Who of an offer's receivers is told of whom, and which share each of them has.

    :param receivers: those whom the offer serves at the moment, or who go on serving after their end, in the order in
        which they came.
    """

    def __init__(self, receivers: Callable[[], Iterable[Sending]]) -> None:
        self._receivers = receivers
        self._confirmed: set[IPv4Address | IPv6Address] = set()
        self._shares: dict[Sending, Share] = {}
        self._wake = asyncio.Event()

    def confirm(self, candidate: Candidate) -> None:
        """A connection came from there, so others may be told of that address (protocol section 4)."""
        if len(self._confirmed) < _MAX_CONFIRMED:
            self._confirmed.add(candidate.address)
            self.changed()

    def changed(self) -> None:
        """A receiver came or went."""
        self._wake.set()

    def introduce(self, receiver: Sending) -> tuple[tuple[Candidate, ...], Share | None]:
        """What the answer to an Accept says of others, and the share, if there is somebody to share with."""
        peers = self._peers_of(receiver)
        receiver.introduced |= frozenset(peers)
        self._deal()
        receiver.share = self._shares.get(receiver, WHOLE)
        self.changed()
        return peers, None if receiver.share == WHOLE else receiver.share

    async def run(self) -> None:
        """Tell the receivers of each other's coming and going, until this is cancelled."""
        while True:
            await self._wake.wait()
            # Who began alone asks for everything, and has to be told at once that this is over.
            await self._tell_all(r for r in self._receivers() if r.share == WHOLE != self._shares.get(r, WHOLE))
            await self._gather()
            if await self._tell_all(self._receivers()):
                await asyncio.sleep(_PEERS_PACE)

    async def _tell_all(self, receivers: Iterable[Sending]) -> bool:
        return any(await asyncio.gather(*(self._tell(r) for r in tuple(receivers) if r.active)))

    async def _gather(self) -> None:
        """Return when nobody has come for a while, or for so long that those who have come must not wait."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_GATHERED):
                while await self._stirs():
                    pass

    async def _stirs(self) -> bool:
        self._wake.clear()
        try:
            async with asyncio.timeout(_QUIET):
                return await self._wake.wait()
        except TimeoutError:
            return False

    def _peers_of(self, receiver: Sending) -> tuple[Candidate, ...]:
        """What `receiver` may learn of the others: addresses from which a connection came."""
        others = [
            c for r in self._receivers() if r is not receiver for c in r.candidates if c.address in self._confirmed
        ]
        return tuple(dict.fromkeys(others))[:MAX_PEERS]

    def _deal(self) -> None:
        """Share out anew: somebody has come. Not where somebody has everything already and stays: then there are two to
        fetch from, and those who have shares need no others. Nor when somebody leaves: what is not had of that share
        is taken by whoever has nothing else to do.
        """
        receivers = tuple(self._receivers())
        if not any(receiver.stays for receiver in receivers):
            self._shares = deal([receiver for receiver in receivers if receiver.shares])

    async def _tell(self, receiver: Sending) -> bool:
        """Tell `receiver` who came and went, and its share if it is another one now; False if it knows all that."""
        known = frozenset(self._peers_of(receiver))
        joined, left = known - receiver.introduced, receiver.introduced - known
        share = self._shares.get(receiver, receiver.share)
        if not joined and not left and share == receiver.share:
            return False
        # One message has room for so many in all; the rest follows with the next.
        gone = tuple(left)[:MAX_PEERS]
        new = tuple(joined)[: MAX_PEERS - len(gone)]
        receiver.introduced = receiver.introduced - set(gone) | set(new)
        before, receiver.share = receiver.share, share
        # Who does not answer now learns of all with the answer to its next Accept.
        told = await receiver.send_peers(new, gone, share if share != before else None)
        if told and receiver.introduced != known:
            self.changed()
        return True
