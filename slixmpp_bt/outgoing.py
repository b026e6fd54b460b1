"""One's own offer: how it is made known, and how it ends. Whom it admits is in :mod:`slixmpp_bt.receivers`, what it
answers in :mod:`slixmpp_bt.answering`."""

from __future__ import annotations

import asyncio
import logging
import mimetypes
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Literal, Self, cast
from weakref import WeakSet

from slixmpp import JID

from . import policy
from .access import Access
from .announcement import Announcement
from .answering import Answering
from .constants import Mode, Route, State
from .content import Content
from .context import Context
from .delegating import Delegating
from .endings import ending, saved_ending
from .errors import BTError, Cancelled, Expired, PeerGone, SourceChanged, TransferError
from .manifest import Made
from .messages import End, Offer
from .negotiation import Event, Phase
from .policy import Peer
from .publication import Publication
from .receivers import Receivers
from .seals import utc
from .seeding import Seeding
from .sending import Sending
from .state import SavedOffer, SavedReceiver
from .transfer import Transfer

log = logging.getLogger(__name__)

#: Seconds that a disk has for keeping an offer before others are told of it.
_SAVED_WITHIN = 3.0


class OutgoingOffer:
    """One's own offer. It may have many receivers.

    :ivar id: its id.
    :ivar to: the account, device or room it was made to.
    :ivar path: the source.
    :ivar mode: how private it is.
    :ivar expires: until when it can be accepted.
    :ivar error: why it ended, if something went wrong.
    :ivar node: the PubSub node it is published in; None if it is sent.
    :ivar delegate: whether receivers that have everything may admit others.
    """

    #: Whether this side made it; who only admits others in a sender's place does not speak of its end.
    is_own = True

    def __init__(
        self, context: Context, *, to: JID, local: JID, path: Path, mode: Mode, expires: datetime,
        mtype: str = "chat", desc: str | None = None, single: bool = False, targets: Sequence[JID] = (),
        id: str | None = None, in_room: bool = False, node: str | None = None, access: Access | None = None,
        delegate: bool = False, content: Content | None = None,
    ) -> None:  # fmt: skip
        self.id = id or secrets.token_urlsafe(12)
        self.to = to
        self.local = local
        self.path = path
        self.mode = mode
        self.expires = expires
        self.hashed = 0
        self.error: BTError | None = None
        self.is_single = single
        self.delegate = delegate
        #: Whether it was made to a room, or to an occupant of one.
        self.in_room = in_room
        self.node = node
        self._access = access
        self._context = context
        self._created = context.now()
        self._announcement: Announcement | Publication
        if node is not None and access is not None:
            self._announcement = Publication(context.wire, context.shelf, local, node, access)
        else:
            self._announcement = Announcement(context.wire, targets or [to], local=local, mtype=mtype)
        self._mtype = mtype
        self._desc = desc
        self._size = 0
        self._state = State.PREPARING
        self._suspended = False
        self._announcing = False
        self._preparing: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._content = content or Content(context, self.id, path, mode)
        self.receivers = Receivers(context, self, to, mtype)
        self.seeding = Seeding(context, self._content, mode, self.receivers.served, self.fail)
        self.answering = Answering(context, self, self._content, self.receivers, self.seeding)
        self.delegating = Delegating(context, self, self._content, self.receivers)

    @classmethod
    def restore(cls, context: Context, saved: SavedOffer, receivers: Iterable[SavedReceiver]) -> Self:
        """An offer of an earlier run. One that was still being hashed begins anew."""
        self = cls(
            context, to=saved.to, local=saved.local, path=saved.path, mode=saved.mode, expires=utc(saved.expires),
            mtype=saved.mtype, desc=saved.desc, single=saved.single, id=saved.id, in_room=saved.kind == "room",
            node=saved.node, access=Access.restore(saved.access) if saved.kind == "catalogue" else None,
            delegate=saved.delegate,
        )  # fmt: skip
        self._created, self._size, self._state = saved.created, saved.size, saved.state
        if saved.state.terminal:
            self.error = ending(saved.state, saved.reason, saved.text)
        self._announcement.restore(saved.stanzas)
        end = self.receivers.restore(receivers)
        if end is not None and not self._state.terminal:
            # The last run ended between the two.
            state = Phase(end.phase).state
            self._end(state, ending(state, end.reason, end.text))
        if saved.single and self.single is None and not self._state.terminal:
            self.receivers.add_single()
        if self.in_room and self.to.resource:
            self.lose()
        elif self._state is State.PREPARING:
            self.start()
        return self

    # what a user asks

    @property
    def name(self) -> str:
        """The name of the file or directory."""
        return self.path.name

    @property
    def size(self) -> int:
        """Bytes; 0 until the files were counted."""
        return self._size

    @property
    def state(self) -> State:
        """PREPARING (hashing), OFFERED, or how it ended."""
        if self.single is not None and self.single.ended:
            return self.single.state
        return self._state

    @property
    def transfers(self) -> tuple[Transfer, ...]:
        """Everybody's who accepted (or declined), ended ones too."""
        return self.receivers.transfers

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

    async def remind(self) -> None:
        """Offer it again to whom it was offered, while nobody has accepted: who was away may have missed it. No effect
        before it was offered for the first time, and after its end. Cancelling it may leave it unsaid.

        :raises SourceChanged: the source is not what was offered; the offer has ended with that.
        """
        if self._state is State.OFFERED:
            await self._check_source()
        if self._state is State.OFFERED and not any(transfer.id for transfer in self.transfers):
            await self.send()

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

    @property
    def single(self) -> Transfer | None:
        """The transfer of an offer that is for one receiver only."""
        return self.receivers.single

    def start(self) -> None:
        """Begin to hash."""
        if self.is_single and self.single is None:
            self.receivers.add_single()
        self.save()
        self._preparing = self._context.tasks.spawn(self._prepare(), f"prepare {self.id}")

    async def _prepare(self) -> None:
        try:
            made = await self._content.make(self._hashing)
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
        self._size = made.manifest.size
        self._state = State.OFFERED
        # Before anybody hears of it: a kill would take along the key by which receivers know it. But a disk that takes
        # nothing stops nobody.
        await asyncio.wait([self.save(with_details=True)], timeout=_SAVED_WITHIN)
        if self._state.terminal:
            return
        if self.single is not None:
            self.single.feed(Event.START)
        else:
            await self.send()
        self.changed()

    def _hashing(self, done: int, total: int) -> None:
        self.hashed, self._size = done, total
        if self.single is not None:
            self.single.touch()

    async def send(self) -> None:
        """Send the offer, as soon as there is a session."""
        if self._announcing:
            return
        self._announcing = True
        try:
            await self._announcement.make(self._message(await self._content.load()))
        except BTError as error:
            self.fail(error)
        finally:
            self._announcing = False
        if self.node is not None and self._state.terminal:  # meanwhile
            self.tell_withdrawn()
        self.save()
        if not self.receivers.served():
            self._content.unload()

    def _message(self, made: Made) -> Offer:
        manifest = made.manifest
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
            delegate=self.delegate,
        )

    def announce_again(self) -> None:
        """It was hashed, but nobody was told before the last run ended."""
        if self._state is not State.OFFERED or self._announcement.made or any(t.id for t in self.transfers):
            return
        if self.single is None or not self.single.feed(Event.START):
            self._context.tasks.spawn(self.send(), f"announce {self.id}")

    @property
    def is_published(self) -> bool:
        """Whether its item may be in the node."""
        return self.node is not None and self._announcement.made

    def lets_in(self, peer: Peer) -> bool:
        """Whether `peer` may speak of it at all: is not blocked and, of a catalogue, let in now."""
        return not peer.blocked and (self._access is None or policy.lets_in(self._access, peer, self.local))

    async def review(self, *, is_there: bool) -> None:
        """Compare a published offer with the node, where its item is or is not, and with its source."""
        self.look_at_the_clock()
        if self._state is State.OFFERED:
            with suppress(SourceChanged):
                await self._check_source()
        if isinstance(self._announcement, Publication) and not is_there and not self._announcing:
            self._announcement.lost()
            self.save()
            if self._state is State.OFFERED:
                self._context.tasks.spawn(self.send(), f"publish {self.id} again")
        if self._state.terminal:
            self.tell_withdrawn()

    async def look(self) -> None:
        """Notice that the source was changed. While somebody fetches it, the seed sees to that."""
        if self._state is State.OFFERED and not self.receivers.served():
            try:
                await self._content.look()
            except BTError as error:
                self.fail(error)

    async def _check_source(self) -> None:
        """
        :raises SourceChanged: it is not what was offered; the offer has ended with that.
        """
        try:
            await self._content.load()
            await self.seeding.check_source()
        except SourceChanged as error:
            self.fail(error)
            raise
        finally:
            if not self.receivers.served():
                self._content.unload()

    def wants(self, device: JID) -> bool:
        """Whether a device that is online belongs to the account that this is offered to, or an occupant to the room,
        and was not told by itself."""
        if self._state is not State.OFFERED or self.is_single or self.to.full != device.bare:
            return False
        return not self._announcement.reached(device)

    async def send_to(self, device: JID) -> None:
        """Offer it to a device that has come online, unless it has the offer."""
        if not self.wants(device):
            return
        try:
            await self._announcement.extend(self._message(await self._content.load()), device)
        except BTError as error:
            self.fail(error)
        self.save()

    def bounced(self, stanza_id: str, peer: JID, error: BTError) -> None:
        """A stanza of ours came back; perhaps the offer's."""
        if self._announcement.bounced(stanza_id, peer) and not any(t.id for t in self.transfers):
            self.fail(error)

    # for its parts

    def lose(self) -> None:
        """The occupant of a room that it was made to has left, and the nick may become somebody else's."""
        self.receivers.desert()
        self.forget(self.to)
        if not any(t.id and not t.ended for t in self.transfers):
            self.fail(PeerGone(f"{self.to.resource} has left the room"))

    def forget(self, occupant: JID) -> None:
        """An occupant of the room has left: whoever comes under that name was not told."""
        self._announcement.forget(occupant)

    def follow(self, to: JID) -> None:
        """The occupant of a room that it was made to has another nick."""
        self.to = to
        self.receivers.follow(to)
        self.save()

    def end(self, message: End, peer: Peer) -> None:
        """A receiver says that it is over."""
        self.receivers.end(message, peer)
        self.changed()

    @property
    def made(self) -> Made:
        """What is offered, while it is in memory."""
        return self._content.made

    @property
    def prepared(self) -> bool:
        """Whether everything is hashed."""
        return self._state is not State.PREPARING

    def size_of(self, select: frozenset[int] | None) -> int:
        """Bytes of these files; None for all."""
        made = self._content.loaded
        return self.size if made is None else made.manifest.size_of(select)

    def excluded(self) -> dict[Route, str]:
        """The routes by which nobody is served, and why."""
        return self.answering.excluded()

    async def leave(self, receiver: Sending) -> None:
        """The transfer of `receiver` has ended."""
        if self._content.admitting is not None:
            self._content.admitting.forget(receiver.transfer.id or "")
        if self.single is not None and not self._suspended:
            self._end(receiver.transfer.state, receiver.transfer.error)
        self.seeding.introducing.changed()
        await self.seeding.close_if_idle()
        if not self.receivers.served() and self._state is State.OFFERED:
            self._content.unload()
        self.changed()

    # the end

    def look_at_the_clock(self) -> None:
        """Expire, if it is time."""
        if self._context.now() >= self.expires.timestamp():
            self.expire()

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

    def suspend(self) -> None:
        """The plugin ends, and what is saved goes on with the next run: say nothing to anybody."""
        self._suspended = True
        if self._preparing is not None:
            self._preparing.cancel()
        for sending in self.receivers.all():
            sending.suspend()

    def tell_withdrawn(self) -> None:
        """Send a Withdraw to everybody who got the offer, if anybody did."""
        if self._announcement.made and not self._suspended:
            self._context.tasks.spawn(self._withdraw(), f"withdraw {self.id}")

    async def _withdraw(self) -> None:
        await self._announcement.withdraw(self.id)
        if self.node is not None:
            self.save()

    def _end(self, state: State, error: BTError | None) -> None:
        if self._state.terminal:
            return
        self._state, self.error = state, error
        if self._preparing is not None:
            self._preparing.cancel()
        self.save()
        if self.node is not None:
            self.tell_withdrawn()
        self.changed()

    def changed(self) -> None:
        """Wake whoever iterates."""
        self._news.set()
        self._news = asyncio.Event()

    # what outlasts the process

    def save(self, *, with_details: bool = False) -> asyncio.Future[None]:
        """Keep it as it is now. Done when it is on the disk."""
        if self._suspended:
            return self._context.state.save()
        reason, text = saved_ending(self.error)
        record = SavedOffer(
            self.id, self.to, self.local, self.path, self.mode, self.expires.timestamp(), self._created,
            state=self._state, size=self._size,
            mtype=cast(Literal["chat", "normal", "headline", "groupchat"], self._mtype),
            single=self.is_single, desc=self._desc, stanzas=self._announcement.told, reason=reason, text=text,
            kind="catalogue" if self.node is not None else "room" if self.in_room else "chat", node=self.node,
            access=None if self._access is None else str(self._access), delegate=self.delegate,
        )  # fmt: skip
        return self._content.keep(record) if with_details else self._context.state.save(record)

    def save_all(self) -> None:
        """Keep everything of it: the state has just been opened."""
        self.save(with_details=self._content.loaded is not None)
        for sending in self.receivers.all():
            sending.save()
