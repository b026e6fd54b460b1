"""The one registry of offers and transfers: each message is handed to the one that it is for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import cast

from slixmpp import JID

from . import policy
from .constants import Mode
from .context import Context
from .errors import BTError, Cancelled, LimitExceeded, ProtocolError, TransferError
from .incoming import GRACE, IncomingOffer
from .messages import Accept, Done, End, Fetch, Meta, Offer, Peers, Reply, Report, Request, Withdraw
from .negotiation import Event
from .outgoing import OutgoingOffer
from .policy import Agreement, Counts, Peer, Verdict
from .transfer import Transfer, heard

log = logging.getLogger(__name__)

#: An info dict of so many bytes at most is parsed at once; a longer one in a thread.
_PARSED_AT_ONCE = 8 * 1024
#: So many offers of all others together wait for an answer; more are not taken.
_MAX_WAITING = 2_000
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
class _Past:
    """What is left of an offer that is over."""

    info_hash: bytes
    until: float


class Exchange:
    """All offers and transfers of one plugin.

    :param authorize: asked whether an offer within the limits is to be accepted without asking the application.
    """

    def __init__(self, context: Context, authorize: Callable[[IncomingOffer], Awaitable[bool]]) -> None:
        self._context = context
        self._authorize = authorize
        self._outgoing: dict[str, OutgoingOffer] = {}
        self._incoming: dict[Key, IncomingOffer] = {}
        self._past: dict[Key, _Past] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def offers(self) -> tuple[OutgoingOffer | IncomingOffer, ...]:
        """All that are alive."""
        every: list[OutgoingOffer | IncomingOffer] = [*self._outgoing.values(), *self._incoming.values()]
        return tuple(offer for offer in every if offer.alive)

    @property
    def transfers(self) -> tuple[Transfer, ...]:
        """All that have not ended."""
        return tuple(t for t in self._all_transfers() if not t.ended)

    def running(self) -> int:
        """How many incoming transfers have not ended."""
        return sum(not t.ended for t in self._incoming_transfers())

    def _all_transfers(self) -> list[Transfer]:
        own = [t for offer in self._outgoing.values() for t in offer.transfers]
        return own + self._incoming_transfers()

    def _incoming_transfers(self) -> list[Transfer]:
        return [offer.transfer for offer in self._incoming.values() if offer.transfer is not None]

    # own offers

    def offer(
        self, *, to: JID, local: JID, path: Path, mode: Mode, expires: datetime,
        mtype: str = "chat", desc: str | None = None, single: bool = False, targets: Sequence[JID] = (),
    ) -> OutgoingOffer:  # fmt: skip
        """Begin an own offer: it is hashed, then sent."""
        if self._closed:
            raise Cancelled("the plugin is closed: the client has left, and has not connected again")
        offer = OutgoingOffer(
            self._context, to=to, local=local, path=path, mode=mode, expires=expires,
            mtype=mtype, desc=desc, single=single, targets=targets,
        )  # fmt: skip
        self._outgoing[offer.id] = offer
        offer.start()
        self._schedule()
        return offer

    def bounced(self, stanza_id: str, peer: JID, error: BTError) -> None:
        """A message of ours came back as an error."""
        for offer in list(self._outgoing.values()):
            offer.bounced(stanza_id, peer, error)

    # others' offers

    def receive_offer(self, message: Offer, peer: Peer, local: JID) -> IncomingOffer | None:
        """Somebody offers something. Returns the offer if it is new and within the limits."""
        key = _key(peer, message.id)
        if self._closed or self._is_known(key, message) or self._is_own(message.id, peer):
            return None
        if sum(not offer.answered for offer in self._incoming.values()) >= _MAX_WAITING:
            log.warning("an offer of %s is ignored: %d others wait for an answer", peer.jid, _MAX_WAITING)
            return None
        if message.expires.timestamp() + GRACE < self._context.now():
            log.info("an offer of %s has expired already", peer.jid)
            return None
        offer = IncomingOffer(self._context, message, peer, local)
        verdict = self._judge(offer, peer)
        if verdict.kind == "decline":
            self._refuse(key, offer, verdict.error)
            return None
        self._incoming[key] = offer
        self._schedule()
        self._context.tasks.spawn(self._announce(offer), f"announce {offer.id}")
        return offer

    def withdrawn(self, message: Withdraw, peer: Peer) -> None:
        """Somebody takes an offer back."""
        offer = self._incoming.get(_key(peer, message.id))
        if offer is None:
            return
        self._close(offer)
        if offer.transfer is not None:
            offer.transfer.feed(Event.PEER_CANCEL, Cancelled("the sender has withdrawn the offer"))

    def _is_own(self, id: str, peer: Peer) -> bool:
        """Whether it is an own offer that came back, since it went to this very account."""
        own = self._outgoing.get(id)
        return own is not None and peer.bare == own.local.bare

    def _is_known(self, key: Key, message: Offer) -> bool:
        known = self._incoming.get(key)
        past = self._past.get(key)
        info_hash = known.message.info_hash if known is not None else past.info_hash if past is not None else None
        if info_hash is not None and info_hash != message.info_hash:
            log.warning("%s repeats the offer %s with other content; ignored", *key)
        return info_hash is not None

    def _judge(self, offer: IncomingOffer, peer: Peer) -> Verdict:
        verdict = policy.decide(offer.message, peer, self._context.config, self._counts(peer))
        info = offer.message.info
        if verdict.kind == "decline" or info is None or len(info) > _PARSED_AT_ONCE:
            return verdict
        try:
            offer.learn_now(info)
        except LimitExceeded as error:
            return Verdict("decline", error)
        except BTError:
            return Verdict("decline", None)
        return verdict

    def _counts(self, peer: Peer) -> Counts:
        """How many offers of `peer` wait. Those still being decided upon do not count, up to as many as may run."""
        who = _key(peer, "")
        theirs = [offer for offer in self._incoming.values() if not offer.answered and _key(offer.source, "") == who]
        waiting = sum(offer.announced for offer in theirs)
        undecided = len(theirs) - waiting
        return Counts(offers=waiting + max(0, undecided - self._context.config.limits.max_transfers))

    def _refuse(self, key: Key, offer: IncomingOffer, error: TransferError | None) -> None:
        self._incoming.pop(key, None)
        self._remember(key, offer)
        offer.answered = offer.closed = True
        log.info("%r was declined: %s", offer, error or "it is malformed")
        # A stranger learns nothing, not even that somebody is there.
        if isinstance(error, LimitExceeded) and policy.may_be_told(offer.source, self._context.config):
            end = End(offer.id, "decline", "decline", text=str(error))
            self._context.outbox.post(end, offer.peer, sender=offer.local, until=offer.expires.timestamp())

    async def allows(self, offer: IncomingOffer) -> bool:
        """What the configured ``auto_accept`` says."""
        verdict = policy.decide(offer.message, offer.source, self._context.config, Counts(), offer.manifest)
        if verdict.kind == "consult":
            rule = cast(Callable[[IncomingOffer], Awaitable[bool]], self._context.config.auto_accept)
            return bool(await rule(offer))
        return verdict.kind == "accept"

    async def _announce(self, offer: IncomingOffer) -> None:
        key = _key(offer.source, offer.id)
        if offer.message.info is not None and offer.manifest is None:
            try:
                await offer.learn(offer.message.info)
            except BTError as error:
                self._refuse(key, offer, error if isinstance(error, LimitExceeded) else None)
        try:
            if not offer.answered and await self._authorize(offer) and not offer.answered:
                await offer.accept()
        except LimitExceeded as error:
            self._refuse(key, offer, error)
        except BTError as error:
            log.warning("%r was not accepted by itself: %s", offer, error)
        except Exception:
            log.exception("%r: the function that decides about offers failed", offer)
        if offer.answered or self._closed:
            return
        limits = self._context.config.limits
        exceeded = policy.limits_exceeded(offer.message, offer.manifest, limits, self._counts(offer.source))
        if exceeded is not None:
            self._refuse(key, offer, exceeded)
            return
        offer.announced = True
        self._context.notify("bt_offer", offer)

    # requests

    async def receive(self, request: Request, peer: Peer, local: JID) -> Reply:
        """Somebody asks something.

        :raises ProtocolError: no; ``item-not-found`` for an unknown id as for somebody who is not invited.
        """
        try:
            return await self._answer(request, peer, local)
        except ProtocolError:
            raise
        except BTError as error:
            # Its words may speak of this side's disk.
            log.warning("a request of %s failed: %s", peer.jid, error)
            raise ProtocolError("it failed on this side", "internal-server-error") from error

    async def _answer(self, request: Request, peer: Peer, local: JID) -> Reply:
        if isinstance(request, Accept):
            return await self._invited(request.id, peer, local).accept(request, peer)
        if isinstance(request, Meta):
            return self._agreed(request, peer, local).meta(request, peer.jid)
        if isinstance(request, Fetch):
            return await self._agreed(request, peer, local).fetch(request, peer.jid)
        if isinstance(request, Report):
            self._agreed(request, peer, local).receiver(request.transfer, peer.jid).report(request)
        elif isinstance(request, Peers):
            await self._fetching(request, peer, local).peers(request)
        else:
            self._ended(request, peer, local)
        self._context.outbox.retry(self._context.now(), peer.jid)
        return Done()

    def _invited(self, id: str, peer: Peer, local: JID) -> OutgoingOffer:
        offer = self._outgoing.get(id)
        if offer is None or offer.local.bare != local.bare or peer.blocked or not offer.invites(peer.jid):
            raise ProtocolError("no such offer", "item-not-found")
        return offer

    def _agreed(self, request: Meta | Fetch | Report, peer: Peer, local: JID) -> OutgoingOffer:
        offer = self._outgoing.get(request.id)
        transfer = offer.transfer_of(request.transfer) if offer is not None else None
        if offer is None or transfer is None or not _may(request, peer, local, transfer):
            raise ProtocolError("no such offer", "item-not-found")
        return offer

    def _fetching(self, request: Peers | End, peer: Peer, local: JID) -> IncomingOffer:
        offer = self._incoming.get(_key(peer, request.id))
        transfer = offer.transfer if offer is not None else None
        if offer is None or transfer is None or not _may(request, peer, local, transfer):
            raise ProtocolError("no such transfer", "item-not-found")
        return offer

    def _ended(self, request: End, peer: Peer, local: JID) -> None:
        own = self._outgoing.get(request.id)
        transfer = own.transfer_of(request.transfer or "") if own is not None else None
        if own is not None and transfer is not None and _may(request, peer, local, transfer):
            own.end(request, peer.jid)
        elif own is not None:
            self._invited(request.id, peer, local).end(request, peer.jid)
        elif _key(peer, request.id) not in self._past:
            self._fetching(request, peer, local).ended(*heard(request.kind, request.reason, request.text))

    # time

    def session_started(self) -> None:
        """There is a session again: whoever waits for the other side tries at once."""
        self._context.outbox.retry(self._context.now())
        for transfer in self._incoming_transfers():
            transfer.feed(Event.RETRY)

    def offers_for(self, device: JID) -> list[OutgoingOffer]:
        """Own offers that a device which has come online may have missed."""
        return [offer for offer in self._outgoing.values() if offer.wants(device)]

    def contact(self, peer: JID) -> None:
        """`peer` has come online."""
        self._context.outbox.retry(self._context.now(), peer)
        for transfer in self._incoming_transfers():
            if transfer.peer.bare == peer.bare:
                transfer.feed(Event.RETRY)

    def _schedule(self) -> None:
        if self._sweeper is None and not self._closed and (self._outgoing or self._incoming or self._past):
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now = self._context.now()
        self._context.outbox.prune(now)
        for own in list(self._outgoing.values()):
            if own.expires.timestamp() <= now:
                own.expire()
        ended = [own for own in self._outgoing.values() if not own.alive]
        for index, own in enumerate(ended):
            if own.expires.timestamp() + GRACE <= now or index < len(ended) - _MAX_ENDED:
                del self._outgoing[own.id]
        over = [offer for offer in self._incoming.values() if not offer.alive]
        for index, offer in enumerate(over):
            if not offer.can_be_accepted_again or index < len(over) - _MAX_ENDED:
                self._forget(offer)
        for offer in list(self._incoming.values()):
            if not offer.answered and offer.expires.timestamp() + GRACE <= now:
                self._close(offer)
        self._past = {key: past for key, past in self._past.items() if past.until > now}
        self._schedule()

    def _close(self, offer: IncomingOffer) -> None:
        """It cannot be accepted any more."""
        unanswered, offer.answered, offer.closed = not offer.answered, True, True
        if offer.transfer is None:
            self._forget(offer)
        if unanswered:
            self._context.notify("bt_offer_end", offer)

    def _forget(self, offer: IncomingOffer) -> None:
        if offer.transfer is not None and not offer.transfer.is_released:
            return
        offer.closed = True
        key = _key(offer.source, offer.id)
        self._incoming.pop(key, None)
        self._remember(key, offer)

    def _remember(self, key: Key, offer: IncomingOffer) -> None:
        self._past[key] = _Past(offer.message.info_hash, offer.expires.timestamp() + GRACE)
        while len(self._past) > _MAX_REMEMBERED:
            del self._past[next(iter(self._past))]

    async def aclose(self) -> None:
        """End everything, tell the other sides, and let go of it all; takes some seconds at most. Idempotent."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        reason = "this side was shut down"
        for offer in self._incoming.values():
            offer.closed = True
        for transfer in self.transfers:
            transfer.feed(Event.CANCEL, Cancelled(reason))
        for own in self._outgoing.values():
            own.fail(Cancelled(reason))
        await asyncio.sleep(0)  # what was just said leaves
        await asyncio.gather(*(transfer.aclose(Cancelled(reason)) for transfer in self._all_transfers()))


def _key(peer: Peer, id: str) -> Key:
    return (peer.bare.bare if peer.bare is not None and peer.room is None else peer.jid.full, id)


def _may(request: Meta | Fetch | Report | Peers | End, peer: Peer, local: JID, transfer: Transfer) -> bool:
    """Whether `request` is from the other side of `transfer`.

    Who knows the id of a transfer, which nobody can guess, may end it from another device of the same account too: the
    name of a device often changes when it connects again.
    """
    there = transfer.peer
    if isinstance(request, End) and peer.bare is not None and peer.bare == there.bare:
        there = peer.jid
    if transfer.offer.local.bare != local.bare:
        return False
    sender, receiver = (there, local) if transfer.incoming else (local, there)
    return policy.may(request, peer.jid, local, Agreement(transfer.offer.id, transfer.id or "", sender, receiver))
