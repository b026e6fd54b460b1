"""One's own offer: its preparation, whom it admits, how it ends."""

from __future__ import annotations

import asyncio
import logging
import mimetypes
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from weakref import WeakSet

from slixmpp import JID

from . import addresses, policy
from .announcement import Announcement
from .constants import Mode, Route, State
from .context import Context
from .errors import BTError, Cancelled, Expired, NoRoute, ProtocolError, TransferError
from .manifest import Made, make
from .messages import Accept, Accepted, Candidate, End, Fetch, Fetching, Meta, MetaChunk, Offer
from .negotiation import Event, Negotiation, Phase, Role
from .routing import INLINE_MAX
from .sealing import Authority
from .seals import Admitting, utc
from .seeding import Seeding
from .sending import Sending
from .transfer import Transfer, heard, tellable

log = logging.getLogger(__name__)

#: How many receivers an offer may have at once, for the devices of one account see policy.MAX_DEVICES; and how many
#: that have ended are remembered.
_MAX_RECEIVERS = 1_000
#: How often a receiver of an offer that may have many is asked to report, in seconds.
_REPORT_PACE = 5


class OutgoingOffer:
    """One's own offer. It may have many receivers.

    :ivar id: its id.
    :ivar to: the account, device or room it was made to.
    :ivar path: the source.
    :ivar mode: how private it is.
    :ivar expires: until when it can be accepted.
    """

    def __init__(
        self, context: Context, *, to: JID, local: JID, path: Path, mode: Mode, expires: datetime,
        mtype: str = "chat", desc: str | None = None, single: bool = False, targets: Sequence[JID] = (),
    ) -> None:  # fmt: skip
        self.id = secrets.token_urlsafe(12)
        self.to = to
        self.local = local
        self.path = path
        self.mode = mode
        self.expires = expires
        self.hashed = 0
        self.error: BTError | None = None
        self._context = context
        self._announcement = Announcement(context.wire, targets or [to], local=local, mtype=mtype)
        self._mtype = mtype
        self._desc = desc
        self._size = 0
        self._state = State.PREPARING
        self._made: Made | None = None
        self._admitting: Admitting | None = None
        self._seeding: Seeding | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._receivers: dict[str, Sending] = {}
        self._over: set[str] = set()
        self._news = asyncio.Event()
        self.single: Transfer | None = self._new_receiver(None, to).transfer if single else None

    # what a user asks

    @property
    def name(self) -> str:
        """The name of the file or directory."""
        return self.path.name

    @property
    def size(self) -> int:
        """Bytes; 0 until the files were counted."""
        return self._made.manifest.size if self._made is not None else self._size

    @property
    def state(self) -> State:
        """PREPARING (hashing), OFFERED, or how it ended."""
        if self.single is not None and self.single.ended:
            return self.single.state
        return self._state

    @property
    def transfers(self) -> tuple[Transfer, ...]:
        """Everybody's who accepted (or declined), ended ones too."""
        return tuple(receiver.transfer for receiver in self._receivers.values())

    @property
    def alive(self) -> bool:
        """Whether it can be accepted, or is being fetched."""
        return not self.state.terminal or any(not t.ended for t in self.transfers)

    async def withdraw(self) -> None:
        """It is void from now on; transfers that run are cancelled. Returns once everything is let go of. No effect
        once the offer has ended."""
        if self._state.terminal:
            return
        if self.single is not None:
            await self.single.cancel("the offer was withdrawn")
            return
        self.tell_withdrawn()
        self._end(State.CANCELLED, Cancelled("the offer was withdrawn"))
        for transfer in self.transfers:
            await transfer.cancel("the offer was withdrawn")

    async def __aiter__(self) -> AsyncIterator[Transfer]:
        """Each transfer as it begins; ends when the offer has ended."""
        seen: WeakSet[Transfer] = WeakSet()
        while True:
            new = [transfer for transfer in self.transfers if transfer.id is not None and transfer not in seen]
            for transfer in new:
                seen.add(transfer)
                yield transfer
            if new:
                continue
            if self.state.terminal:
                return
            await self._news.wait()

    def __repr__(self) -> str:
        return f"<OutgoingOffer {self.name!r} to {self.to} {self.state}>"

    # preparing

    def start(self) -> None:
        """Begin to hash."""
        self._preparing = self._context.tasks.spawn(self._prepare(), f"prepare {self.id}")

    async def _prepare(self) -> None:
        try:
            if self.mode is Mode.SEALED:
                self._admitting = Admitting(Authority.make(utc(self._context.now())))
            extra = {b"ssl-cert": self._admitting.authority.certificate} if self._admitting is not None else {}
            made = await make(self.path, salt=secrets.token_bytes(16), extra=extra, progress=self._hashing)
        except BTError as error:
            self.fail(error)
            return
        except asyncio.CancelledError:
            self.fail(Cancelled("stopped while hashing"))
            raise
        except Exception as error:
            log.exception("%r: hashing failed", self)
            self.fail(TransferError(f"internal error: {error!r}"))
            return
        if self._state.terminal:
            return
        self._made = made
        self._seeding = Seeding(self._context, made, self._admitting, self._serving, self.fail)
        self._state = State.OFFERED
        if self.single is not None:
            self.single.feed(Event.START)
        else:
            await self.send()
        self._changed()

    def _hashing(self, done: int, total: int) -> None:
        self.hashed, self._size = done, total
        if self.single is not None:
            self.single.touch()

    async def send(self) -> None:
        """Send the offer, as soon as there is a session."""
        try:
            await self._announcement.make(self._message())
        except BTError as error:
            self.fail(error)

    def _message(self) -> Offer:
        assert self._made is not None
        manifest = self._made.manifest
        return Offer(
            id=self.id,
            mode=self.mode,
            expires=self.expires,
            name=self.name,
            size=manifest.size,
            info_hash=manifest.info_hash,
            info_length=len(manifest.info),
            info=manifest.info,
            desc=self._desc,
            media_type="inode/directory" if manifest.is_directory else mimetypes.guess_type(self.name)[0],
        )

    def wants(self, device: JID) -> bool:
        """Whether a device that is online belongs to the account that this is offered to, and was not told."""
        if self._state is not State.OFFERED or self.single is not None or self.to.full != device.bare:
            return False
        return not self._announcement.reached(device)

    async def send_to(self, device: JID) -> None:
        """Offer it to a device that has come online, unless it has the offer."""
        if self.wants(device):
            await self._announcement.extend(self._message(), device)

    # receivers

    def invites(self, peer: JID) -> bool:
        """Whether `peer` may fetch it (protocol section 2)."""
        admitted = {t.peer for t in self.transfers if t.id and not t.ended}
        return policy.invited(self.to, self._mtype, peer, admitted=admitted)

    async def accept(self, message: Accept, source: policy.Peer) -> Accepted:
        """An Accept came from somebody invited.

        :raises ProtocolError: ``gone`` if the offer or the transfer has ended, ``resource-constraint`` while paused.
        """
        receiver = self._admit(message, source.jid)
        if not message.routes:  # the manifest is all that is wanted for now
            receiver.transfer.feed(Event.ACCEPT)
            return Accepted(self.id, message.transfer)
        excluded = self.excluded(source)
        able = frozenset(set(Route) - excluded.keys())
        if self.has_bytes and not able:
            words = "; ".join(sorted(set(excluded.values())))
            receiver.transfer.feed(Event.FAIL, NoRoute(f"the sender cannot serve by any route: {words}", excluded))
            raise _gone(receiver.transfer.error)
        routes = able & message.routes
        certificate = receiver.admit(message.request, self._admitting) if self.has_bytes else None
        content = await self._content(message, routes)
        receiver.swarms = content is None and Route.SWARM in routes and self.has_bytes
        own = await self._ready(receiver, message)
        peers = self.seeding.known_peers(receiver)
        receiver.introduced |= frozenset(peers)
        self.seeding.changed()
        report = None if self.single is not None else _REPORT_PACE
        return Accepted(
            self.id, message.transfer, own, peers, content=content, report=report, routes=able, certificate=certificate
        )

    def excluded(self, source: policy.Peer | None = None) -> dict[Route, str]:
        """The routes by which this side does not serve (`source`), and why."""
        config = self._context.config
        excluded = dict.fromkeys(set(Route) - config.routes, "it is switched off in this side's configuration (routes)")
        if self.mode not in self._context.backend.modes:
            excluded[Route.SWARM] = "this side has no BitTorrent engine"
        elif source is not None and not policy.reveals_address(source, config):
            excluded[Route.SWARM] = "this side does not reveal its address (reveal_address)"
        return excluded

    async def _content(self, message: Accept, routes: frozenset[Route]) -> bytes | None:
        """Everything that is wanted, if the answer has room for it."""
        size = self.size_of(message.select)
        if Route.INLINE not in routes or not 0 < size <= min(message.inline, INLINE_MAX):
            return None
        try:
            await self.seeding.check_source()
            return await self._receivers[message.transfer].serving.content(message.select)
        except BTError as error:
            self.fail(error)
            return None

    async def _ready(self, receiver: Sending, message: Accept) -> tuple[Candidate, ...]:
        """Be ready to serve `receiver`, and return where. Whatever happens meanwhile is told instead."""
        transfer = receiver.transfer
        try:
            own = await self.seeding.own() if receiver.swarms else ()
            receiver.candidates = addresses.acceptable(message.candidates, own)
            transfer.feed(Event.ACCEPT)
            if receiver.active and receiver.swarms:
                await self.seeding.open()
        except BTError as error:
            self.fail(error)
        if not receiver.active:
            await self.seeding.close_if_idle()
        if transfer.ended:
            raise _gone(transfer.error, "the transfer has ended")
        if transfer.state is State.PAUSED:
            receiver.held = True
            raise ProtocolError("the sender has paused", "resource-constraint")
        return own

    async def fetch(self, message: Fetch, peer: JID) -> Fetching:
        """A receiver wants blocks over a stream.

        :raises ProtocolError: the transfer is not the peer's, has ended or is paused, the route is not to be used, or
            there are no such blocks.
        """
        receiver = self.receiver(message.transfer, peer)
        if message.kind in self.excluded():
            raise ProtocolError("the sender cannot or may not use this route", "not-allowed")
        try:
            await self.seeding.check_source()
        except BTError as error:
            self.fail(error)
        if receiver.transfer.ended:
            raise _gone(receiver.transfer.error, "the transfer has ended")
        if not receiver.active:
            raise ProtocolError("the sender has paused", "resource-constraint")
        return receiver.serving.begin(message, peer, self.local)

    def meta(self, message: Meta, peer: JID) -> MetaChunk:
        """A part of the info dict.

        :raises ProtocolError: the transfer is not the peer's, or the range is none of the dict.
        """
        self.receiver(message.transfer, peer)
        assert self._made is not None
        info = self._made.manifest.info
        if message.offset >= len(info):
            raise ProtocolError("beyond the end of the info dict", "bad-request")
        return MetaChunk(self.id, message.offset, info[message.offset : message.offset + message.length])

    def transfer_of(self, id: str) -> Transfer | None:
        """The transfer with this id."""
        receiver = self._receivers.get(id)
        return receiver.transfer if receiver is not None else None

    def receiver(self, transfer: str, peer: JID) -> Sending:
        """Whose transfer it is.

        :raises ProtocolError: ``item-not-found``: there is none, or it is not the peer's.
        """
        receiver = self._receivers.get(transfer)
        if receiver is None or receiver.transfer.peer != peer:
            raise ProtocolError("no such transfer", "item-not-found")
        return receiver

    def end(self, message: End, peer: JID) -> None:
        """A receiver says that it is over."""
        receiver = self._receivers.get(message.transfer or "")
        if receiver is not None:
            if not self._is_same(receiver.transfer.peer, peer):
                raise ProtocolError("no such transfer", "item-not-found")
            receiver.stays_until = self._context.now() + (message.seeding or 0)
            event, error = heard(message.kind, message.reason, message.text)
            if not receiver.transfer.feed(event, error) and event is Event.PEER_DECLINE:
                # Once it was accepted, that is too late for declining.
                receiver.transfer.feed(Event.PEER_CANCEL, Cancelled(str(error)))
        elif message.transfer is not None:
            if len(self._over) < _MAX_RECEIVERS:
                self._over.add(message.transfer)
            if self.single is not None and self.single.id is None:
                self.single.feed(*heard(message.kind, message.reason, message.text))
        elif message.kind == "decline":
            self._declined(message, peer)
        self._changed()

    def bounced(self, stanza_id: str, peer: JID, error: BTError) -> None:
        """A stanza of ours came back; perhaps the offer's."""
        if self._announcement.bounced(stanza_id, peer) and not any(t.id for t in self.transfers):
            self.fail(error)

    def _is_same(self, known: JID, peer: JID) -> bool:
        """Whether `peer`, who knows an id that `known` made up, may be who that was: a device's name changes."""
        return bool(peer == known or (self._mtype != "groupchat" and peer.bare == known.bare))

    def _admit(self, message: Accept, peer: JID) -> Sending:
        select = self._checked(message.select)
        receiver = self._receivers.get(message.transfer)
        if receiver is None:
            if self._context.now() >= self.expires.timestamp():
                self.expire()
            if self.single is not None and self.single.id is not None:
                raise ProtocolError("another device has taken it", "gone", "cancel")
            if self._state is not State.OFFERED or message.transfer in self._over:
                raise _gone(self.error, "the offer has ended")
            if self.single is not None:
                self.single.id, self.single.peer = message.transfer, peer
                receiver = next(iter(self._receivers.values()))
                self._receivers = {message.transfer: receiver}
            else:
                self._check_room()
                receiver = self._new_receiver(message.transfer, peer)
            self._changed()
        if receiver.transfer.ended:
            raise _gone(receiver.transfer.error, "the transfer has ended")
        receiver.choose(select)
        receiver.transfer.peer = peer
        return receiver

    def _checked(self, select: frozenset[int] | None) -> frozenset[int] | None:
        count = len(self._made.manifest.files) if self._made is not None else 0
        if select is not None and not all(index < count for index in select):
            raise ProtocolError("a file is selected that is not in the offer")
        return select

    def _check_room(self) -> None:
        if sum(not t.ended for t in self.transfers) >= _MAX_RECEIVERS:
            raise ProtocolError("too many receivers at once", "resource-constraint")

    def _declined(self, message: End, peer: JID) -> None:
        if self.single is not None:
            if self.single.id is None:
                self.single.peer = peer
                self.single.feed(*heard(message.kind, message.reason, message.text))
        elif not any(t.peer == peer for t in self.transfers):
            self._check_room()
            self._new_receiver(None, peer).transfer.feed(*heard(message.kind, message.reason, message.text))

    def _new_receiver(self, id: str | None, peer: JID) -> Sending:
        now, limits = self._context.now(), self._context.config.limits
        negotiation = Negotiation(
            Role.SENDER,
            expires=self.expires.timestamp(),
            ttl=now + limits.transfer_ttl,
            rng=self._context.rng,
            timing=self._context.timing,
            phase=Phase.PREPARING if self._made is None else Phase.OFFERED,
        )
        ended = [key for key, other in self._receivers.items() if other.transfer.ended]
        for key in ended[: -_MAX_RECEIVERS + 1]:
            del self._receivers[key]
        receiver = Sending(self._context, self)
        self._receivers[id or secrets.token_urlsafe(12)] = receiver
        Transfer(self._context, negotiation, receiver, offer=self, peer=peer, id=id, incoming=False)
        return receiver

    # serving

    @property
    def seeding(self) -> Seeding:
        """The engine's part; there is one as soon as the offer is out."""
        assert self._seeding is not None
        return self._seeding

    @property
    def made(self) -> Made:
        """What is offered; there is one as soon as the offer is out."""
        assert self._made is not None
        return self._made

    @property
    def prepared(self) -> bool:
        """Whether everything is hashed."""
        return self._made is not None

    @property
    def has_bytes(self) -> bool:
        """Whether there is anything to serve beside names."""
        return self._made is not None and self._made.manifest.piece_count > 0

    def size_of(self, select: frozenset[int] | None) -> int:
        """Bytes of these files; None for all."""
        if select is None or self._made is None:
            return self.size
        return sum(self._made.manifest.files[index].size for index in select)

    def uploaded(self) -> int:
        """Bytes sent by the swarm in all."""
        return self._seeding.uploaded() if self._seeding is not None else 0

    def peers(self) -> int:
        """How many peers are connected."""
        return self._seeding.peers() if self._seeding is not None else 0

    @property
    def why_not(self) -> str | None:
        """Why a receiver does not connect, as far as the engine knows."""
        return self._seeding.why_not if self._seeding is not None else None

    async def leave(self, receiver: Sending) -> None:
        """The transfer of `receiver` has ended."""
        if self._admitting is not None:
            self._admitting.forget(receiver.transfer.id or "")
        if self.single is not None:
            self._end(receiver.transfer.state, receiver.transfer.error)
        if self._seeding is not None:
            self._seeding.changed()
            await self._seeding.close_if_idle()
        self._changed()

    def _serving(self) -> Iterable[Sending]:
        return [r for r in self._receivers.values() if r.active or r.stays]

    # the end

    def expire(self) -> None:
        """Its time has come. Transfers that run go on."""
        if not self._state.terminal and self.single is None:
            self._end(State.EXPIRED, Expired(f"the offer of {self.name!r} has expired"))

    def fail(self, error: BTError) -> None:
        """It cannot be served any more; its transfers end with `error`."""
        for transfer in self.transfers:
            transfer.feed(Event.FAIL, error)
        if self.single is None and not self._state.terminal:
            if isinstance(error, Cancelled) or not any(t.id for t in self.transfers):
                self.tell_withdrawn()
            self._end(State.CANCELLED if isinstance(error, Cancelled) else State.FAILED, error)

    def tell_withdrawn(self) -> None:
        """Send a Withdraw to everybody who got the offer, if anybody did."""
        if self._announcement.made:
            self._context.tasks.spawn(self._announcement.withdraw(self.id), f"withdraw {self.id}")

    def _end(self, state: State, error: BTError | None) -> None:
        if self._state.terminal:
            return
        self._state, self.error = state, error
        if self._preparing is not None:
            self._preparing.cancel()
        self._changed()

    def _changed(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _gone(error: BTError | None, otherwise: str = "the offer has ended") -> ProtocolError:
    return ProtocolError(tellable(error) or otherwise, "gone", getattr(error, "reason", "cancel"))
