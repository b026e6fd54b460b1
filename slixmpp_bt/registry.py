"""The one registry of offers and transfers: what there is, and when it is forgotten."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass

from .context import Context
from .errors import BTError, StateError
from .incoming import GRACE, IncomingOffer
from .messages import Offer
from .outgoing import OutgoingOffer
from .policy import Peer
from .state import SavedOffer, SavedPast
from .transfer import Transfer

log = logging.getLogger(__name__)

#: How often what is too old is forgotten in the state, in seconds.
_PRUNE = 3_600.0
#: How often ended offers are forgotten and expired ones noticed, in seconds.
_SWEEP = 30.0
#: So many offers that are over are remembered, so that a repetition is known for one.
_MAX_REMEMBERED = 10_000
#: So many ended offers are kept: own ones, so that who asks for them learns how they ended, and others' of which
#: another try may succeed.
_MAX_ENDED = 500

#: An offer's key: who made it (sender's bare JID, or room and occupant), and its id.
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Past:
    """What is left of an offer that is over."""

    info_hash: bytes
    until: float


class Registry:
    """All offers and transfers of one plugin.

    :ivar outgoing: own offers, by id.
    :ivar incoming: others', by key.
    :ivar past: what is left of others' that are over.
    :ivar restored_items: of catalogues, of an earlier run, and not answered.
    :ivar left: of an earlier run, and kept, but not to be gone on with now; and why.
    :ivar closed: whether nothing new is taken.
    """

    def __init__(self, context: Context) -> None:
        self.outgoing: dict[str, OutgoingOffer] = {}
        self.incoming: dict[Key, IncomingOffer] = {}
        self.past: dict[Key, Past] = {}
        self.restored_items: list[IncomingOffer] = []
        self.left: dict[IncomingOffer, BTError] = {}
        self.closed = False
        self._context = context
        self._sweeper: asyncio.TimerHandle | None = None
        self._swept = 0.0

    # what there is

    @property
    def offers(self) -> tuple[OutgoingOffer | IncomingOffer, ...]:
        """All that are alive."""
        every: list[OutgoingOffer | IncomingOffer] = [*self.outgoing.values(), *self.incoming.values()]
        return tuple(offer for offer in every if offer.alive)

    @property
    def transfers(self) -> tuple[Transfer, ...]:
        """All that have not ended."""
        return tuple(t for t in self.all_transfers() if not t.ended)

    def running(self) -> int:
        """How many incoming transfers have not ended."""
        return sum(not t.ended for t in self.incoming_transfers())

    def all_transfers(self) -> list[Transfer]:
        """Those that have ended, too, as long as they are known."""
        own = [t for offer in self.outgoing.values() for t in offer.transfers]
        return own + self.incoming_transfers()

    def incoming_transfers(self) -> list[Transfer]:
        """The latest of each of others' offers."""
        return [offer.transfer for offer in self.incoming.values() if offer.transfer is not None]

    def is_own(self, id: str, peer: Peer) -> bool:
        """Whether it is an own offer that came back, since it went to this very account, or to a room."""
        own = self.outgoing.get(id)
        return own is not None and (peer.bare == own.local.bare or (peer.room is not None and peer.room == own.to))

    def is_known(self, key: Key, message: Offer) -> bool:
        """Whether it came before."""
        known = self.incoming.get(key)
        past = self.past.get(key)
        info_hash = known.message.info_hash if known is not None else past.info_hash if past is not None else None
        if info_hash is not None and info_hash != message.info_hash:
            log.warning("%s repeats the offer %s with other content; ignored", *key)
        return info_hash is not None or any(o.is_repeated_by(message, key[0]) for o in self.incoming.values())

    def add(self, offer: IncomingOffer) -> None:
        """There is one more of others."""
        self.incoming[offer.key, offer.id] = offer
        self.schedule()

    # what is published

    def published(self) -> list[OutgoingOffer]:
        """Own offers in catalogues, and ended ones whose item may still be there."""
        return [own for own in self.outgoing.values() if own.node is not None]

    def items_of(self, owner: str | None = None, node: str | None = None) -> list[IncomingOffer]:
        """Others' offers in catalogues: all, or one publisher's, or those in one node."""
        items = (offer for offer in self.incoming.values() if offer.node is not None)
        return [o for o in items if owner in (None, o.key) and node in (None, o.node)]

    def is_new(self, owner: str, id: str) -> bool:
        """Whether nothing is known of such an offer."""
        return (owner, id) not in self.incoming and (owner, id) not in self.past and id not in self.outgoing

    def known_ids(self, owner: str) -> frozenset[str]:
        """The ids of a publisher's offers that are known, own ones included."""
        theirs = (key for keys in (self.incoming, self.past) for key in keys)
        return frozenset(id for who, id in theirs if who == owner) | self.outgoing.keys()

    def vanished(self, offer: IncomingOffer) -> None:
        """An item is gone: nobody can begin to fetch it. Who has begun hears of the end from the publisher itself."""
        if not offer.answered:
            self.void(offer)

    # what is over

    def schedule(self) -> None:
        """There is something: look now and then what of it is over."""
        something = self.outgoing or self.incoming or self.past or self._context.outbox
        if self._sweeper is None and not self.closed and something:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now = self._context.now()
        self._context.outbox.prune(now)
        self._context.tasks.spawn(self._context.outbox.seek(now), "seek")
        for own in list(self.outgoing.values()):
            if own.expires.timestamp() <= now:
                own.expire()
        ended = [own for own in self.outgoing.values() if not own.alive]
        for index, own in enumerate(ended):
            if own.is_published:
                continue
            if own.expires.timestamp() + GRACE <= now or index < len(ended) - _MAX_ENDED:
                del self.outgoing[own.id]
                self._context.state.delete(SavedOffer, own.id)
        over = [offer for offer in self.incoming.values() if not offer.alive]
        for index, offer in enumerate(over):
            if not offer.can_be_accepted_again or index < len(over) - _MAX_ENDED:
                self.forget(offer)
        for offer in list(self.incoming.values()):
            if not offer.answered and offer.expires.timestamp() + GRACE <= now:
                self.void(offer)
        self.past = {key: past for key, past in self.past.items() if past.until > now}
        if now - self._swept > _PRUNE:
            self._swept = now
            self._context.tasks.spawn(self._prune(now), "prune")
        self.schedule()

    async def _prune(self, now: float) -> None:
        with suppress(StateError):
            await self._context.state.prune(now)

    def void(self, offer: IncomingOffer) -> None:
        """It cannot be accepted any more."""
        unanswered, offer.answered, offer.closed = not offer.answered, True, True
        if offer.transfer is None:
            self.forget(offer)
        if unanswered:
            self._context.notify("bt_offer_end", offer)

    def forget(self, offer: IncomingOffer) -> None:
        """Keep no more of it than that it was there, once its transfer has let go of everything."""
        if offer.transfer is not None and not offer.transfer.is_released:
            return
        offer.closed = True
        key = (offer.key, offer.id)
        self.incoming.pop(key, None)
        offer.forget()
        self.remember(key, offer)

    def remember(self, key: Key, offer: IncomingOffer) -> None:
        """Know it again if it is repeated."""
        past = self.past[key] = Past(offer.message.info_hash, offer.expires.timestamp() + GRACE)
        self._context.state.save(SavedPast(*key, past.info_hash, past.until))
        while len(self.past) > _MAX_REMEMBERED:
            oldest = next(iter(self.past))
            del self.past[oldest]
            self._context.state.delete(SavedPast, *oldest)

    def close(self) -> None:
        """Take nothing new, and forget nothing more."""
        self.closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
