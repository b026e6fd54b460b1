"""The one registry of offers and transfers: each message is handed to the one that it is for."""

from __future__ import annotations

import asyncio
import logging
from collections import ChainMap
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import cast

from slixmpp import JID

from . import policy, staying
from .access import Access
from .constants import Mode
from .context import Context
from .delegation import Delegation
from .errors import BTError, Cancelled, LimitExceeded, ProtocolError, StateError, TransferError
from .incoming import GRACE, IncomingOffer
from .messages import (
    Accept,
    Delegate,
    Done,
    End,
    Fetch,
    Here,
    Meta,
    Offer,
    Peers,
    Reply,
    Report,
    Request,
    Seek,
    Withdraw,
)
from .negotiation import Event
from .occupancy import Occupancy
from .outgoing import OutgoingOffer
from .policy import Agreement, Counts, Peer, Verdict
from .receiving import Resume
from .seals import utc
from .state import SavedCheckpoint, SavedDownload, SavedIncoming, SavedOffer, SavedPast, SavedReceiver
from .transfer import Transfer, heard

log = logging.getLogger(__name__)

#: An info dict of so many bytes at most is parsed at once; a longer one in a thread.
_PARSED_AT_ONCE = 8 * 1024
#: So many offers, and so many bytes of info dicts in them, wait for an answer: of all strangers together, and of all
#: whom the user knows, so that nobody crowds out a contact. A parsed dict costs ten times its bytes.
_MAX_WAITING, _MAX_WAITING_BYTES = 2_000, 8 * 1024 * 1024
#: So many offers of an earlier run are taken up before others on the event loop have their turn: some 10 ms.
_AT_ONCE = 100
#: The log tells of a flood of offers once in so many seconds.
_COMPLAINT_PACE = 60.0
#: How often what is too old is forgotten in the state, in seconds.
_PRUNE = 3_600.0
#: How often ended offers are forgotten and expired ones noticed, in seconds.
_SWEEP = 30.0
#: At most one answer to those who seek the same in so many seconds.
_HERE_PACE = 3.0
#: So many offers that are over are remembered, so that a repetition is known for one.
_MAX_REMEMBERED = 10_000
#: So many ended offers are kept: own ones, so that who asks for them learns how they ended, and others' of which
#: another try may succeed.
_MAX_ENDED = 500

#: So many unanswered items of one publisher are taken.
_MAX_ITEMS = 1_000

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
        #: Of an earlier run, and not answered.
        self.restored_items: list[IncomingOffer] = []
        self._context = context
        self._authorize = authorize
        self._outgoing: dict[str, OutgoingOffer] = {}
        self._incoming: dict[Key, IncomingOffer] = {}
        self._past: dict[Key, _Past] = {}
        self._said_here: dict[tuple[str, str], float] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._swept = self._complained = 0.0
        self._closed = False
        self.delegation = Delegation(context, self._incoming)
        #: Own offers, and others' that this side serves in their senders' places.
        self._served = ChainMap(self._outgoing, self.delegation.offers)
        self.occupancy = Occupancy(context, self._served, self._incoming, self._end)

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
        in_room: bool = False, node: str | None = None, access: Access | None = None, delegate: bool = False,
    ) -> OutgoingOffer:  # fmt: skip
        """Begin an own offer: it is hashed, then sent."""
        if self._closed:
            raise Cancelled("the plugin is closed: the client has left, and has not connected again")
        offer = OutgoingOffer(
            self._context, to=to, local=local, path=path, mode=mode, expires=expires,
            mtype=mtype, desc=desc, single=single, targets=targets, in_room=in_room, node=node, access=access,
            delegate=delegate,
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
        key = (peer.owner, message.id)
        if self._closed or self._is_known(key, message) or self._is_own(message.id, peer):
            return None
        if not self._has_room(message, peer):
            self._complain(peer)
            return None
        if message.expires.timestamp() + GRACE < self._context.now():
            log.info("an offer of %s has expired already", peer.jid)
            return None
        offer = IncomingOffer(self._context, self._within_reason(message), peer, local)
        verdict = self._judge(offer, peer, self._counts(peer))
        if verdict.kind == "decline":
            self._refuse(key, offer, verdict.error)
            return None
        self._incoming[key] = offer
        self._schedule()
        self._context.tasks.spawn(self._announce(offer), f"announce {offer.id}")
        return offer

    def _has_room(self, message: Offer, peer: Peer) -> bool:
        """Whether one more may wait for an answer."""
        known = policy.knows(peer, self._context.config)
        waiting = [o.message for o in self._incoming.values() if not o.answered and o.from_known == known]
        size = sum(len(each.info or b"") for each in (*waiting, message))
        return len(waiting) < _MAX_WAITING and size <= _MAX_WAITING_BYTES

    def _complain(self, peer: Peer) -> None:
        """Log it, but not as often as somebody else likes."""
        now = self._context.now()
        level = logging.WARNING if now - self._complained > _COMPLAINT_PACE else logging.DEBUG
        if level == logging.WARNING:
            self._complained = now
        log.log(level, "an offer of %s is ignored: too many others wait for an answer", peer.jid)

    def _within_reason(self, message: Offer) -> Offer:
        """No offer is kept longer than a transfer may live, whatever date it names."""
        latest = utc(self._context.now() + self._context.config.limits.transfer_ttl)
        return replace(message, expires=min(message.expires, latest))

    def withdrawn(self, message: Withdraw, peer: Peer) -> None:
        """Somebody takes an offer back."""
        self.delegation.withdrawn(message.id, peer.owner)
        offer = self._incoming.get((peer.owner, message.id))
        if offer is not None:
            self._end(offer, Event.PEER_CANCEL, Cancelled("the sender has withdrawn the offer"))

    def _end(self, offer: IncomingOffer, event: Event, error: TransferError) -> None:
        self._close(offer)
        if offer.transfer is not None:
            offer.transfer.feed(event, error)

    def _is_own(self, id: str, peer: Peer) -> bool:
        """Whether it is an own offer that came back, since it went to this very account, or to a room."""
        own = self._outgoing.get(id)
        return own is not None and (peer.bare == own.local.bare or (peer.room is not None and peer.room == own.to))

    def _is_known(self, key: Key, message: Offer) -> bool:
        known = self._incoming.get(key)
        past = self._past.get(key)
        info_hash = known.message.info_hash if known is not None else past.info_hash if past is not None else None
        if info_hash is not None and info_hash != message.info_hash:
            log.warning("%s repeats the offer %s with other content; ignored", *key)
        return info_hash is not None or any(o.is_repeated_by(message, key[0]) for o in self._incoming.values())

    def _judge(self, offer: IncomingOffer, peer: Peer, counts: Counts) -> Verdict:
        verdict = policy.decide(offer.message, peer, self._context.config, counts)
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
        sent = (offer for offer in self._incoming.values() if offer.node is None)
        theirs = [offer for offer in sent if not offer.answered and offer.key == peer.owner]
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
            until = offer.expires.timestamp()
            self._context.outbox.post(end, offer.peer, sender=offer.local, until=until, owner=offer.key)

    # what is published

    def published(self) -> list[OutgoingOffer]:
        """Own offers in catalogues, and ended ones whose item may still be there."""
        return [own for own in self._outgoing.values() if own.node is not None]

    def items_of(self, owner: str | None = None, node: str | None = None) -> list[IncomingOffer]:
        """Others' offers in catalogues: all, or one publisher's, or those in one node."""
        items = (offer for offer in self._incoming.values() if offer.node is not None)
        return [o for o in items if owner in (None, o.key) and node in (None, o.node)]

    def is_new(self, owner: str, id: str) -> bool:
        """Whether nothing is known of such an offer."""
        return (owner, id) not in self._incoming and (owner, id) not in self._past and id not in self._outgoing

    def known_ids(self, owner: str) -> frozenset[str]:
        """The ids of a publisher's offers that are known, own ones included."""
        theirs = (key for keys in (self._incoming, self._past) for key in keys)
        return frozenset(id for who, id in theirs if who == owner) | self._outgoing.keys()

    def take_item(self, message: Offer, peer: Peer, local: JID, node: str) -> IncomingOffer | None:
        """An offer in a catalogue, known or new; nobody is told. None for an own one, and beyond the limits."""
        key = (peer.owner, message.id)
        known = self._incoming.get(key)
        if known is not None and not known.is_void:
            return known if known.message.info_hash == message.info_hash else None
        expired = message.expires.timestamp() + GRACE < self._context.now()
        if self._closed or expired or self._is_own(message.id, peer) or not self._has_room(message, peer):
            return None
        if sum(not item.answered for item in self.items_of(peer.owner)) >= _MAX_ITEMS:
            log.warning("an item of %s is left out: so many are taken of one publisher only", peer.jid)
            return None
        offer = IncomingOffer(self._context, self._within_reason(message), peer, local, node)
        if self._judge(offer, peer, Counts()).kind == "decline":
            return None
        self._incoming[key] = offer
        self._schedule()
        return offer

    def vanished(self, offer: IncomingOffer) -> None:
        """An item is gone: nobody can begin to fetch it. Who has begun hears of the end from the publisher itself."""
        if not offer.answered:
            self._close(offer)

    async def authorize(self, offer: IncomingOffer) -> bool:
        """Whether it is to be accepted without asking the application."""
        return await self._authorize(offer)

    async def allows(self, offer: IncomingOffer) -> bool:
        """What the configured ``auto_accept`` says."""
        verdict = policy.decide(offer.message, offer.source, self._context.config, Counts(), offer.manifest)
        if verdict.kind == "consult":
            rule = cast(Callable[[IncomingOffer], Awaitable[bool]], self._context.config.auto_accept)
            return bool(await rule(offer))
        return verdict.kind == "accept"

    async def _announce(self, offer: IncomingOffer) -> None:
        key = (offer.key, offer.id)
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
        offer.save()
        self._context.notify("bt_offer", offer)

    # requests

    async def receive(self, request: Request, peer: Peer, local: JID) -> Reply:
        """Somebody asks something.

        :raises ProtocolError: no; ``item-not-found`` for an unknown id as for somebody who is not invited.
        """
        if peer.room is not None and peer.occupant is None:
            raise ProtocolError("no such offer", "item-not-found")
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
            return await self._invited(request, peer, local).answering.accept(request, peer)
        if isinstance(request, Meta):
            return await self._agreed(request, peer, local).answering.meta(request, peer.jid)
        if isinstance(request, Fetch):
            return await self._agreed(request, peer, local).answering.fetch(request, peer.jid)
        if isinstance(request, Here):
            self._here(request, peer, local)
        elif isinstance(request, Report):
            self._agreed(request, peer, local).receivers.of(request.transfer, peer.jid).report(request)
        elif isinstance(request, Peers):
            await self._fetching(request, peer, local).peers(request)
        elif isinstance(request, Delegate):
            await self.delegation.grant(request, peer, local)
            return Done()
        else:
            await self._ended(request, peer, local)
        self._context.outbox.retry(self._context.now(), peer.jid, peer.owner)
        return Done()

    def _invited(self, request: Accept | End, peer: Peer, local: JID) -> OutgoingOffer:
        offer = self._own(request.id, peer, local)
        if offer is None or not offer.receivers.invites(peer, request.transfer):
            raise ProtocolError("no such offer", "item-not-found")
        return offer

    def _own(self, id: str, peer: Peer, local: JID) -> OutgoingOffer | None:
        """The own offer with this id, as far as `peer` may speak of it at all."""
        offer = self._served.get(id)
        return offer if offer is not None and offer.local.bare == local.bare and offer.lets_in(peer) else None

    def _agreed(self, request: Meta | Fetch | Report, peer: Peer, local: JID) -> OutgoingOffer:
        offer = self._served.get(request.id)
        transfer = _transfer_of(offer, request.transfer)
        if offer is None or transfer is None or not _may(request, peer, local, transfer):
            raise ProtocolError("no such offer", "item-not-found")
        return offer

    def _fetching(self, request: Peers | End, peer: Peer, local: JID) -> IncomingOffer:
        offer = self._incoming.get((peer.owner, request.id))
        if offer is None and isinstance(request, Peers):
            offer = next((o for o in self._named(request.id, local) if o.deputy == peer.jid), None)
        transfer = offer.transfer if offer is not None else None
        if offer is None or transfer is None or not _may(request, peer, local, transfer):
            raise ProtocolError("no such offer", "item-not-found")
        return offer

    def sought(self, message: Seek, peer: Peer, local: JID) -> None:
        """A receiver has lost sight of the sender: say that it is here, if it is."""
        now = self._context.now()
        # Who seeks is back, and may have to be told how something ended.
        self._context.outbox.retry(now, peer.jid, peer.owner)
        offer = self._own(message.id, peer, local)
        if offer is None or not offer.receivers.knows(peer):
            return
        if now - self._said_here.get((peer.jid.full, message.id), 0.0) < _HERE_PACE:
            return
        if len(self._said_here) >= _MAX_ENDED:
            self._said_here.clear()
        self._said_here[peer.jid.full, message.id] = now
        self._context.tasks.spawn(self._say_here(message.id, peer.jid, local), f"here {message.id}")

    async def _say_here(self, id: str, to: JID, local: JID) -> None:
        try:
            await self._context.wire.request(Here(id), to, sender=local)
        except BTError as error:
            log.debug("%s was not told that the offer is here: %s", to, error)

    def _here(self, request: Here, peer: Peer, local: JID) -> None:
        offer = self._incoming.get((peer.owner, request.id))
        if offer is not None and offer.local.bare == local.bare:
            offer.moved(peer.jid)
            return
        deputed = [other.stand_in(peer) for other in self._named(request.id, local)]
        if not any(deputed) and not any(end.id == request.id for end in self._context.outbox.waiting):
            raise ProtocolError("no such offer", "item-not-found")

    def _named(self, id: str, local: JID) -> list[IncomingOffer]:
        """The offers with this id, whoever made them."""
        return [o for o in self._incoming.values() if o.id == id and o.local.bare == local.bare]

    async def _ended(self, request: End, peer: Peer, local: JID) -> None:
        own = self._served.get(request.id)
        transfer = _transfer_of(own, request.transfer)
        if own is not None and transfer is not None and _may(request, peer, local, transfer):
            own.end(request, peer)
            await own.delegating.grant(request, peer, local)
        elif own is not None:
            self._invited(request, peer, local).end(request, peer)
            await own.delegating.grant(request, peer, local)
        elif (peer.owner, request.id) not in self._past:
            self._fetching(request, peer, local).ended(*heard(request.kind, request.reason, request.text))

    # time

    def session_started(self) -> None:
        """There is a session again: whoever waits for the other side tries at once."""
        self._context.outbox.retry(self._context.now())
        for own in self._outgoing.values():
            own.announce_again()
        for transfer in self._incoming_transfers():
            transfer.feed(Event.RETRY)

    def addresses_changed(self) -> None:
        """This side listens elsewhere now: whoever it transfers with has to know."""
        for own in self._served.values():
            own.seeding.addresses_changed()
        for transfer in self._incoming_transfers():
            transfer.feed(Event.FOUND)

    def offers_for(self, device: JID) -> list[OutgoingOffer]:
        """Own offers that a device which has come online may have missed."""
        return [offer for offer in self._outgoing.values() if offer.wants(device)]

    def contact(self, peer: JID) -> None:
        """`peer` has come online."""
        self._context.outbox.retry(self._context.now(), peer)
        for offer in self._incoming.values():
            offer.contact(peer)

    def _schedule(self) -> None:
        something = self._outgoing or self._incoming or self._past or self._context.outbox
        if self._sweeper is None and not self._closed and something:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now = self._context.now()
        self._context.outbox.prune(now)
        self._context.tasks.spawn(self._context.outbox.seek(now), "seek")
        for own in list(self._outgoing.values()):
            if own.expires.timestamp() <= now:
                own.expire()
        ended = [own for own in self._outgoing.values() if not own.alive]
        for index, own in enumerate(ended):
            if own.is_published:
                continue
            if own.expires.timestamp() + GRACE <= now or index < len(ended) - _MAX_ENDED:
                del self._outgoing[own.id]
                self._context.state.delete(SavedOffer, own.id)
        over = [offer for offer in self._incoming.values() if not offer.alive]
        for index, offer in enumerate(over):
            if not offer.can_be_accepted_again or index < len(over) - _MAX_ENDED:
                self._forget(offer)
        for offer in list(self._incoming.values()):
            if not offer.answered and offer.expires.timestamp() + GRACE <= now:
                self._close(offer)
        self._past = {key: past for key, past in self._past.items() if past.until > now}
        if now - self._swept > _PRUNE:
            self._swept = now
            self._context.tasks.spawn(self._prune(now), "prune")
        self._schedule()

    async def _prune(self, now: float) -> None:
        with suppress(StateError):
            await self._context.state.prune(now)

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
        key = (offer.key, offer.id)
        self._incoming.pop(key, None)
        offer.forget()
        self._remember(key, offer)

    def _remember(self, key: Key, offer: IncomingOffer) -> None:
        past = self._past[key] = _Past(offer.message.info_hash, offer.expires.timestamp() + GRACE)
        self._context.state.save(SavedPast(*key, past.info_hash, past.until))
        while len(self._past) > _MAX_REMEMBERED:
            oldest = next(iter(self._past))
            del self._past[oldest]
            self._context.state.delete(SavedPast, *oldest)

    async def restore(self, peer_of: Callable[[SavedIncoming], Peer]) -> None:
        """Take up what an earlier run has kept, and keep what there is in this one.

        :param peer_of: what is known now of who made an offer.
        :raises StateError: it cannot be read.
        """
        state, now = self._context.state, self._context.now()
        of_this_run: list[OutgoingOffer | IncomingOffer] = [*self._outgoing.values(), *self._incoming.values()]
        offers, receivers = await state.load(SavedOffer), await state.load(SavedReceiver)
        incoming, downloads = await state.load(SavedIncoming), await state.load(SavedDownload)
        checkpoints = {saved.transfer: saved for saved in await state.load(SavedCheckpoint)}
        self._past.update({(p.sender, p.offer): _Past(p.info_hash, p.until) for p in await state.load(SavedPast)})
        await self._context.outbox.restore()
        by_offer: dict[str, list[SavedReceiver]] = {}
        for receiver in receivers:
            by_offer.setdefault(receiver.offer, []).append(receiver)
        for number, saved in enumerate(offers):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            if saved.id not in self._outgoing:
                own = OutgoingOffer.restore(self._context, saved, by_offer.get(saved.id, ()))
                self._outgoing[own.id] = own
        resumed = {(download.sender, download.offer): download for download in downloads}
        for found in incoming:
            download = resumed.pop((found.sender, found.offer.id), None)
            if download is not None or found.offer.expires.timestamp() + GRACE > now:
                await self._restore_incoming(found, peer_of(found), download, checkpoints)
            else:
                state.delete(SavedIncoming, *found.key)
        for orphan in resumed.values():
            state.delete(SavedDownload, orphan.transfer)
        await staying.resume(self._context, self.delegation.took_up)
        self._context.outbox.save_all()
        for unsaved in of_this_run:
            unsaved.save_all()
        self._schedule()

    async def _restore_incoming(
        self, saved: SavedIncoming, peer: Peer, download: SavedDownload | None,
        checkpoints: Mapping[str, SavedCheckpoint],
    ) -> None:  # fmt: skip
        if (saved.sender, saved.offer.id) in self._incoming:
            return
        offer = IncomingOffer.restore(self._context, saved, peer)
        if download is None and not policy.lasts(offer.key) and not saved.offer.delegate:
            offer.forget()  # of a room that does not tell whether its sender is still there
            return
        info = saved.offer.info or (download.info if download is not None else None)
        if info is not None:
            try:
                await offer.learn(info)
            except BTError as error:
                log.warning("%r cannot be taken up again: %s", offer, error)
                return
        self._incoming[offer.key, offer.id] = offer
        if download is not None:
            checkpoint = checkpoints.get(download.transfer)
            data, routes = (checkpoint.data, checkpoint.routes) if checkpoint is not None else (None, ())
            resume = Resume(download, data, routes)
            if resume.ended:
                self._context.tasks.spawn(offer.clean_up(download), f"clean up {download.transfer}")
            else:
                offer.resume(resume)
                self.occupancy.check(offer)
        elif not offer.answered and offer.node is not None:
            self.restored_items.append(offer)
        elif not offer.answered:
            self._context.tasks.spawn(self._announce(offer), f"announce {offer.id}")

    async def aclose(self) -> None:
        """End everything and let go of it all; takes some seconds at most. Idempotent.

        What is kept goes on with the next run, and nobody is told; without a state the other sides are told that it is
        over.
        """
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        error = Cancelled("this side was shut down")
        await self.delegation.aclose()
        if self._context.state.path is not None:
            for own in self._outgoing.values():
                own.suspend()
            await asyncio.gather(*(transfer.suspend(error) for transfer in self._all_transfers()))
            return
        for offer in self._incoming.values():
            offer.closed = True
        for transfer in self.transfers:
            transfer.feed(Event.CANCEL, error)
        for own in self._outgoing.values():
            own.fail(error)
        await asyncio.sleep(0)  # what was just said leaves
        await asyncio.gather(*(transfer.aclose(error) for transfer in self._all_transfers()))


def _transfer_of(offer: OutgoingOffer | None, id: str | None) -> Transfer | None:
    sending = offer.receivers.find(id) if offer is not None else None
    return sending.transfer if sending is not None else None


def _may(request: Meta | Fetch | Report | Peers | End, peer: Peer, local: JID, transfer: Transfer) -> bool:
    """Whether `request` is from the other side of `transfer`.

    Who knows the id of a transfer, which nobody can guess, may end it from another device of the same account too: the
    name of a device often changes when it connects again.
    """
    there = transfer.peer
    if isinstance(request, End) and isinstance(transfer.offer, IncomingOffer):
        there = transfer.offer.peer  # whoever stands in for the sender
    if isinstance(request, End) and peer.bare is not None and peer.bare == there.bare:
        there = peer.jid
    if transfer.offer.local.bare != local.bare:
        return False
    sender, receiver = (there, local) if transfer.incoming else (local, there)
    return policy.may(request, peer.jid, local, Agreement(transfer.offer.id, transfer.id or "", sender, receiver))
