"""What an own offer answers to those who want it: Accept, Meta and Fetch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slixmpp import JID

from . import addresses, policy
from .constants import Route, State
from .content import Content
from .context import Context
from .errors import BTError, NoRoute, ProtocolError
from .messages import Accept, Accepted, Candidate, Fetch, Fetching, Meta, MetaChunk
from .negotiation import Event
from .receivers import Receivers, gone
from .routing import INLINE_MAX
from .seeding import Seeding
from .sending import Sending

if TYPE_CHECKING:
    from .outgoing import OutgoingOffer

#: How often a receiver of an offer that may have many is asked to report, in seconds.
_REPORT_PACE = 5


class Answering:
    """Answers for one offer that is out. Every method loads what is offered first."""

    def __init__(
        self, context: Context, offer: OutgoingOffer, content: Content, receivers: Receivers, seeding: Seeding
    ) -> None:
        self._context = context
        self._offer = offer
        self._content = content
        self._receivers = receivers
        self._seeding = seeding

    async def accept(self, message: Accept, source: policy.Peer) -> Accepted:
        """An Accept came from somebody invited.

        :raises ProtocolError: ``gone`` if the offer or the transfer has ended, ``resource-constraint`` while paused.
        """
        await self._load()
        self._check_selection(message.select)
        receiver = self._receivers.admit(message, source)
        self._offer.changed()
        if not message.routes:  # the manifest is all that is wanted for now
            receiver.transfer.feed(Event.ACCEPT)
            return Accepted(self._offer.id, message.transfer)
        able = self._able(receiver, source)
        routes = able & message.routes
        certificate = receiver.admit(message.request, self._content.admitting) if self._has_bytes else None
        content = await self._inline(receiver, message, routes)
        receiver.swarms = content is None and Route.SWARM in routes and self._has_bytes
        own = await self._ready(receiver, message)
        peers, share = self._seeding.introducing.introduce(receiver)
        return Accepted(
            self._offer.id,
            message.transfer,
            own,
            peers,
            share,
            content=content,
            report=None if self._offer.is_single else _REPORT_PACE,
            routes=able,
            certificate=certificate,
        )

    async def meta(self, message: Meta, peer: JID) -> MetaChunk:
        """A part of the info dict.

        :raises ProtocolError: the transfer is not the peer's, or the range is none of the dict.
        """
        self._receivers.of(message.transfer, peer)
        await self._load()
        info = self._content.made.manifest.info
        if message.offset >= len(info):
            raise ProtocolError("beyond the end of the info dict", "bad-request")
        return MetaChunk(self._offer.id, message.offset, info[message.offset : message.offset + message.length])

    async def fetch(self, message: Fetch, peer: JID) -> Fetching:
        """A receiver wants blocks over a stream.

        :raises ProtocolError: the transfer is not the peer's, has ended or is paused, the route is not to be used, or
            there are no such blocks.
        """
        receiver = self._receivers.of(message.transfer, peer)
        if message.kind in self.excluded():
            raise ProtocolError("the sender cannot or may not use this route", "not-allowed")
        if message.kind is Route.RELAY and not message.hosts:
            await self._require_proxy()
        await self._load()
        if receiver.transfer.ended:
            raise gone(receiver.transfer.error, "the transfer has ended")
        if not receiver.active:
            raise ProtocolError("the sender has paused", "resource-constraint")
        return receiver.serving.begin(message, peer, self._offer.local)

    def excluded(self, source: policy.Peer | None = None) -> dict[Route, str]:
        """The routes by which this side does not serve (`source`), and why."""
        config = self._context.config
        excluded = dict.fromkeys(set(Route) - config.routes, "it is switched off in this side's configuration (routes)")
        if self._offer.mode not in self._context.backend.modes:
            excluded[Route.SWARM] = "this side has no BitTorrent engine"
        elif source is not None and not policy.reveals_address(source, config):
            excluded[Route.SWARM] = "this side does not reveal its address (reveal_address)"
        return excluded

    async def _require_proxy(self) -> None:
        """
        :raises ProtocolError: neither side has found one, so that the receiver need not wait for a stream.
        """
        if not await self._context.wire.relays(sender=self._offer.local):
            raise ProtocolError("neither side's server offers a proxy", "not-acceptable")

    @property
    def _has_bytes(self) -> bool:
        return self._content.made.manifest.piece_count > 0

    async def _load(self) -> None:
        """Have the content in memory, and see that the source is what it was.

        :raises ProtocolError: ``gone``: it is not.
        """
        if self._offer.state.terminal:
            return
        try:
            await self._content.load()
            await self._seeding.check_source()
        except BTError as error:
            self._offer.fail(error)
            raise gone(error) from error

    def _check_selection(self, select: frozenset[int] | None) -> None:
        made = self._content.loaded
        count = len(made.manifest.files) if made is not None else 0
        if made is not None and select is not None and not all(index < count for index in select):
            raise ProtocolError("a file is selected that is not in the offer")

    def _able(self, receiver: Sending, source: policy.Peer) -> frozenset[Route]:
        """The routes by which this side serves `source`.

        :raises ProtocolError: there is none; the transfer has failed.
        """
        excluded = self.excluded(source)
        able = frozenset(set(Route) - excluded.keys())
        if self._has_bytes and not able:
            words = "; ".join(sorted(set(excluded.values())))
            receiver.transfer.feed(Event.FAIL, NoRoute(f"the sender cannot serve by any route: {words}", excluded))
            raise gone(receiver.transfer.error)
        return able

    async def _inline(self, receiver: Sending, message: Accept, routes: frozenset[Route]) -> bytes | None:
        """Everything that is wanted, if the answer has room for it."""
        size = self._offer.size_of(message.select)
        if Route.INLINE not in routes or not 0 < size <= min(message.inline, INLINE_MAX):
            return None
        try:
            return await receiver.serving.content(message.select)
        except BTError as error:
            self._offer.fail(error)
            return None

    async def _ready(self, receiver: Sending, message: Accept) -> tuple[Candidate, ...]:
        """Be ready to serve `receiver`, and return where. Whatever happens meanwhile is told instead."""
        transfer = receiver.transfer
        own: tuple[Candidate, ...] = ()
        try:
            own = await self._seeding.own() if receiver.swarms else ()
            receiver.candidates = addresses.acceptable(message.candidates, own)
            transfer.feed(Event.ACCEPT)
            if receiver.active and receiver.swarms:
                await self._seeding.open()
        except BTError as error:
            self._offer.fail(error)
        if not receiver.active:
            await self._seeding.close_if_idle()
        if transfer.ended:
            raise gone(transfer.error, "the transfer has ended")
        if transfer.state is State.PAUSED:
            receiver.held = True
            raise ProtocolError("the sender has paused", "resource-constraint")
        return own
