"""The sender's end of a transfer: it answers. The offer holds the seed that its transfers share."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from slixmpp import JID

from .constants import Route, State
from .context import Context
from .endings import saved_ending, tellable
from .errors import BTError, ProtocolError
from .messages import Candidate, End, Here, Peers, Report, Share
from .negotiation import Action
from .progress import Progress
from .seals import Admitting, Sealer, utc
from .serving import Serving
from .shares import WHOLE
from .state import SavedReceiver
from .transfer import Side

if TYPE_CHECKING:
    from .outgoing import OutgoingOffer

log = logging.getLogger(__name__)


class Sending(Side):
    """Serves one receiver of `offer`.

    :ivar key: the transfer's id, or what it is kept under while it has none.
    :ivar owner: who the receiver is: its bare JID or, in a room, what tells it from all others.
    :ivar candidates: where the receiver listens.
    :ivar introduced: the other receivers' candidates that this one was told.
    :ivar share: what it was told to fetch first.
    :ivar held: whether this side has paused it.
    :ivar swarms: whether the receiver is served by the swarm, too.
    :ivar stays_until: until when the receiver goes on serving others after its end (seconds since the epoch).
    """

    def __init__(self, context: Context, offer: OutgoingOffer, key: str, owner: str) -> None:
        self.key = key
        self.owner = owner
        self.candidates: tuple[Candidate, ...] = ()
        self.introduced: frozenset[Candidate] = frozenset()
        self.share = WHOLE
        self.held = False
        self.stays_until = 0.0
        self.swarms = False
        self._serving: Serving | None = None
        self._context = context
        self._offer = offer
        self._suspended = False
        self._away = False
        self._earlier: dict[Route, int] = {}
        self._certified: tuple[bytes, bytes] | None = None
        self._sent_before: int | None = None
        self._select: frozenset[int] | None = None
        self._size: int | None = None
        self._reported: Report | None = None
        self._last = Progress()

    @property
    def active(self) -> bool:
        """Whether the receiver may have pieces now."""
        return self.transfer.state in (State.CONNECTING, State.RUNNING, State.WAITING)

    @property
    def stays(self) -> bool:
        """Whether the receiver has everything and goes on serving others."""
        return self.transfer.complete and self._context.now() < self.stays_until

    @property
    def shares(self) -> bool:
        """Whether the receiver may have a share: it fetches everything, and by the swarm."""
        return self.active and self.swarms and self._select is None

    def choose(self, select: frozenset[int] | None) -> None:
        """The receiver wants these files; None for all."""
        self._select = select
        self._size = None if select is None else self._offer.size_of(select)
        self._away = False

    @property
    def serving(self) -> Serving:
        """What goes to the receiver by other routes than the swarm."""
        if self._serving is None:
            self._serving = Serving(self._context, self._offer.made, self.transfer.touch)
        return self._serving

    def admit(self, request: bytes | None, admitting: Admitting | None) -> bytes | None:
        """The receiver's certificate for a sealed offer; what it is sent by streams is sealed from now on.

        :raises ProtocolError: it asked for none, for one in a wrong way, or for too many.
        """
        if admitting is None:
            return None
        assert self.transfer.id is not None
        if request is None:
            raise ProtocolError("a sealed offer needs a certificate request", "not-acceptable")
        if self.serving.sealer is None or self.serving.sealer.request != request:
            self.serving.sealer = Sealer(self._offer.id, self.transfer.id, request)
        certificate = admitting.admit(
            self.transfer.id, request, utc(self._context.now()), receiver=self.transfer.peer.full
        )
        self._certified = request, certificate
        return certificate

    async def do(self, action: Action) -> None:
        """Do what the table asks for."""
        if action is Action.OFFER:
            await self._offer.send()
        elif action is Action.SERVE and self._away:
            await self._say_here()
        elif action is Action.SERVE:
            await self._offer.seeding.serve(self)
        elif action is Action.HOLD:
            await self.serving.stop()
            await self._offer.seeding.hold(self)

    async def _say_here(self) -> None:
        """What the receiver knows of this side is of an earlier run: let it accept again."""
        try:
            await self._context.wire.request(Here(self._offer.id), self.transfer.peer, sender=self._offer.local)
        except BTError as error:
            log.debug("%s was not told that the offer is here: %s", self.transfer.peer, error)

    def measure(self) -> Progress:
        """While preparing, the bytes hashed; then what the receiver reported, or what was sent while it is alone."""
        total = self._offer.size if self._size is None else self._size
        if not self._offer.prepared:
            return Progress(self._offer.hashed, total)
        streamed: dict[Route, int] = dict(self._earlier)
        streamed.pop(Route.SWARM, None)
        for route, count in self._serving.sent.items() if self._serving is not None else ():
            streamed[route] = streamed.get(route, 0) + count
        if self.transfer.complete:
            had = total
        elif self._reported is not None:
            had = self._reported.had
        else:
            had = self._by_swarm() + sum(streamed.values())
        had = max(min(had, total), self._last.transferred)
        peers = 0 if self.transfer.ended else self._offer.seeding.peers()
        self._last = Progress(had, total, routes=self._routes(had, streamed), peers=peers)
        return self._last

    def _by_swarm(self) -> int:
        """Bytes sent by the swarm since this receiver came; not to be told while it is not alone."""
        uploaded, earlier = self._offer.seeding.uploaded(), self._earlier.get(Route.SWARM, 0)
        if self._sent_before is None:
            self._sent_before = uploaded
        alone = not any(other.active for other in self._offer.receivers.all() if other is not self)
        return uploaded - self._sent_before + earlier if alone else earlier

    def _routes(self, had: int, streamed: Mapping[Route, int]) -> dict[Route, int]:
        """By the other routes came what the receiver says, or what was sent, within reason; by the swarm the rest."""
        reported = self._reported.routes if self._reported is not None else ()
        others = dict(streamed)
        others.update((route, count) for route, count in reported if route is not Route.SWARM)
        routes: dict[Route, int] = {}
        left = had
        for route, count in others.items():
            routes[route] = min(count, left)
            left -= routes[route]
        routes[Route.SWARM] = left
        return {route: count for route, count in routes.items() if count}

    def report(self, report: Report) -> None:
        """The receiver says how far it is."""
        self._reported = report
        self.transfer.touch()

    async def send_peers(
        self, joined: tuple[Candidate, ...] = (), left: tuple[Candidate, ...] = (), share: Share | None = None
    ) -> bool:
        """Tell the receiver of addresses that came and went, and of a new share. Returns whether it knows now."""
        assert self.transfer.id is not None
        message = Peers(self._offer.id, self.transfer.id, joined, left, share)
        try:
            await self._context.wire.request(message, self.transfer.peer, sender=self._offer.local)
        except BTError as error:
            log.debug("%s was not told of peers: %s", self.transfer.peer, error)
            return False
        return True

    def tell(self, state: State, error: BTError | None) -> None:
        """End the transfer or, if nobody has accepted, withdraw the offer."""
        if self._suspended or not self._offer.is_own:
            return
        if self.transfer.id is None:
            self._offer.tell_withdrawn()
            return
        end = End(
            self._offer.id,
            "cancel",
            getattr(error, "reason", "general-error"),
            transfer=self.transfer.id,
            text=tellable(error),
        )
        until = self._context.now() + self._context.config.limits.transfer_ttl
        self._context.outbox.post(end, self.transfer.peer, sender=self._offer.local, until=until, owner=self.owner)

    async def release(self) -> None:
        """Nobody is served by this transfer any more."""
        if self._serving is not None:
            await self._serving.stop()
        await self._offer.leave(self)

    def path(self) -> Path | None:
        """The source."""
        return self._offer.path

    def diagnosis(self) -> dict[Route, str]:
        """Why nothing goes by a route, as far as this side can tell: the receiver chooses."""
        state = self.transfer.state
        if state is State.PREPARING:
            return dict.fromkeys(Route, "the file is still being hashed")
        if state is State.OFFERED:
            return dict.fromkeys(Route, "the receiver has not accepted yet")
        if state is State.PAUSED:
            return dict.fromkeys(Route, "paused on this side")
        reasons = self._offer.excluded() | (self._serving.why_not if self._serving is not None else {})
        if state is not State.RUNNING and Route.SWARM not in reasons:
            reasons[Route.SWARM] = self._offer.seeding.why_not or "waiting for the receiver to connect"
        return reasons

    # what outlasts the process

    def changed(self) -> None:
        """Keep it as it is now."""
        self.save()

    def save(self) -> None:
        """Keep it as it is now."""
        if not self._suspended:
            self._context.state.save(self.record)

    @property
    def record(self) -> SavedReceiver:
        """It as it is kept."""
        reason, text = saved_ending(self.transfer.error)
        request, certificate = self._certified or (None, None)
        return SavedReceiver(
            self._offer.id, self.key, self.transfer.peer, self.transfer.phase.value, select=self._select,
            request=request, certificate=certificate, stays_until=self.stays_until, held=self.held,
            sent=tuple(self.measure().routes.items()) if self._offer.prepared else (), reason=reason, text=text,
            owner=self.owner if self.owner != self.transfer.peer.bare else None,
        )  # fmt: skip

    def relocate(self, peer: JID) -> None:
        """The receiver is there now; at a room's own JID while it is not in the room."""
        self.transfer.peer = peer
        self.save()

    def restore(self, saved: SavedReceiver) -> None:
        """Take up what was saved."""
        self._select, self.stays_until, self.held = saved.select, saved.stays_until, saved.held
        self._earlier, self._away = dict(saved.sent), True
        if saved.request is not None and saved.certificate is not None:
            self._certified = saved.request, saved.certificate

    def forget(self) -> None:
        """It need not be known any more."""
        self._context.state.delete(SavedReceiver, self._offer.id, self.key)

    def suspend(self) -> None:
        """The plugin ends: say nothing to the receiver, and change nothing of what is kept."""
        self.save()
        self._suspended = True
