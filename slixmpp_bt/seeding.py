"""The seed that an offer's transfers share: opened when somebody asks, watched while open, closed with the last."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

from . import addresses
from .backends import Admission, PeerConnected, PeerRefused, Seed, StorageFailed
from .constants import Mode
from .content import Content
from .context import Context
from .errors import BackendClosed, BTError, SourceChanged
from .introducing import Introducing
from .messages import Candidate
from .seals import utc
from .sending import Sending
from .sources import changed

log = logging.getLogger(__name__)

#: How often the source is looked at while it is served, in seconds.
_SOURCE_TICK = 5.0
#: After so many seconds the seed shows a new certificate of its own: one is valid for seven days.
_RENEWAL = 6 * 86_400.0
#: A receiver dials as soon as it has the answer. After so many seconds it is dialled, too, should it not have come
#: through: of two who dial each other at the same moment libtorrent drops both, and tries again a second later.
TURN = 1.0


class Seeding:
    """The engine's part of an outgoing offer.

    :param receivers: those whom the offer serves at the moment, or who go on serving after their end.
    :param fail: called once with the error that ends the offer.
    :ivar introducing: what the receivers are told of each other.
    """

    def __init__(
        self,
        context: Context,
        content: Content,
        mode: Mode,
        receivers: Callable[[], Iterable[Sending]],
        fail: Callable[[BTError], None],
    ) -> None:
        self.why_not: str | None = None
        self.introducing = Introducing(receivers)
        self._context = context
        self._content = content
        self._mode = mode
        self._renew_at = 0.0
        self._receivers = receivers
        self._fail = fail
        self._seed: Seed | None = None
        self._lock = asyncio.Lock()
        self._uploaded_before = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> Seed | None:
        """The open seed; None if there are no bytes to serve.

        :raises SourceChanged: the source is not what it was when it was offered.
        :raises BTError: the backend cannot open it.
        """
        async with self._lock:
            await self.check_source()
            made = self._content.made
            if not made.manifest.piece_count:
                return None
            if self._seed is None:
                self._seed = await self._content.open_seed(self._admission())
                spawn = self._context.tasks.spawn
                self._tasks = [
                    spawn(self._watch(self._seed), "watch seed"),
                    spawn(self._watch_source(), "watch source"),
                    spawn(self.introducing.run(), "introduce receivers"),
                ]
            return self._seed

    def _admission(self) -> Admission:
        if self._content.admitting is None:
            return Admission(self._mode)
        self._renew_at = self._context.now() + _RENEWAL
        return self._content.admitting.own(utc(self._context.now()))

    async def close_if_idle(self) -> bool:
        """Close the seed if it is open and nobody is served, and return whether it is closed now. It can be opened
        again. Cancelling it does not stop that."""
        # A task of its own: half closed, it could be neither used nor opened again.
        closing = self._context.tasks.spawn(self._close_if_idle(), "close seed")
        await asyncio.wait([closing])
        return self._seed is None

    async def _close_if_idle(self) -> None:
        async with self._lock:
            if self._seed is None or any(receiver.active for receiver in self._receivers()):
                return
            self._uploaded_before = self.uploaded()
            (seed, self._seed), (tasks, self._tasks) = (self._seed, None), (self._tasks, [])
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await seed.aclose()

    async def serve(self, receiver: Sending) -> None:
        """Let `receiver` have the pieces."""
        own: tuple[Candidate, ...] = ()
        try:
            if receiver.swarms and (seed := await self.open()) is not None:
                own = await self.own()
                asyncio.get_running_loop().call_later(TURN, self._dial, receiver)
                await seed.resume()
        except BTError as error:
            self._fail(error)
            return
        if receiver.held:
            receiver.held = False
            self._context.tasks.spawn(receiver.send_peers(joined=own), f"resume {receiver.transfer.id}")

    def _dial(self, receiver: Sending) -> None:
        """Nothing happens if it is connected."""
        if self._seed is not None and receiver.active and not receiver.held:
            with suppress(BackendClosed):
                self._seed.add_candidates(receiver.candidates)

    async def hold(self, receiver: Sending) -> None:
        """Let `receiver` have no more pieces for now. Others go on."""
        receiver.held = True
        closed = await self.close_if_idle()
        try:
            own = await self.own() if receiver.swarms else ()
        except BTError as error:
            self._fail(error)
            return
        self._context.tasks.spawn(self._send_away(receiver, own, hang_up=not closed), f"hold {receiver.transfer.id}")

    async def _send_away(self, receiver: Sending, own: tuple[Candidate, ...], hang_up: bool) -> None:
        """Ask a receiver not to dial any more, and only then hang up: it would dial again at once."""
        await receiver.send_peers(left=own)
        async with self._lock:
            if hang_up and receiver.held and self._seed is not None:
                self._seed.remove_candidates(receiver.candidates)

    async def check_source(self) -> None:
        """
        :raises SourceChanged: a file was changed, moved or deleted since it was hashed.
        """
        made = self._content.made
        path = await asyncio.to_thread(changed, made.stamps, made.paths)
        if path is not None:
            raise SourceChanged(f"{path.name}: changed after it was offered")

    async def own(self) -> tuple[Candidate, ...]:
        """Where this side listens for the offer."""
        return addresses.own(await self._context.backend.candidates(self._mode), self._context.config.advertise, ())

    def addresses_changed(self) -> None:
        """This side listens elsewhere now: tell the receivers."""
        if self._seed is not None:
            self._context.tasks.spawn(self._tell_addresses(), "tell addresses")

    async def _tell_addresses(self) -> None:
        try:
            own = await self.own()
        except BTError as error:
            log.warning("the new addresses are not known: %s", error)
            return
        told = (r for r in tuple(self._receivers()) if r.active and r.swarms)
        await asyncio.gather(*(receiver.send_peers(joined=own) for receiver in told))

    def uploaded(self) -> int:
        """Bytes sent by the swarm in all."""
        return self._uploaded_before + (self._seed.status().uploaded if self._seed is not None else 0)

    def peers(self) -> int:
        """How many peers are connected."""
        return self._seed.status().peers if self._seed is not None else 0

    async def _watch(self, seed: Seed) -> None:
        async for event in seed.events:
            if isinstance(event, PeerConnected):
                self.introducing.confirm(event.candidate)
            elif isinstance(event, PeerRefused):
                self.why_not = f"the receiver's address does not answer: {event.reason}"
            elif isinstance(event, StorageFailed):
                self._fail(await self._cause(event.error))

    async def _cause(self, error: BTError) -> BTError:
        """A source that was changed fails in many ways; this is the one that explains them."""
        try:
            await self.check_source()
        except SourceChanged as changed:
            return changed
        return error

    async def _watch_source(self) -> None:
        while True:
            await asyncio.sleep(_SOURCE_TICK)
            try:
                await self.check_source()
                if self._mode is Mode.SEALED and self._seed is not None and self._context.now() > self._renew_at:
                    await self._seed.admit(self._admission())
            except BTError as error:
                self._fail(error)
                return
