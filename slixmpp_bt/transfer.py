"""Transfer: what a user holds of one transfer, and the shell that walks its negotiation.

The shell feeds what happens to a :class:`~slixmpp_bt.negotiation.Negotiation` and has a :class:`Side` (sending or
receiving) do the actions that come back, one after another.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from slixmpp import JID

from .constants import Route, State
from .context import Context
from .endings import DEFAULT_ERRORS
from .errors import BTError, Cancelled, TransferError
from .negotiation import Action, Event, Negotiation, Phase
from .progress import PER_SECOND, Progress
from .sampling import Sampling

if TYPE_CHECKING:
    from .incoming import IncomingOffer
    from .outgoing import OutgoingOffer

log = logging.getLogger(__name__)

#: The clock may jump (a laptop sleeps), so deadlines are looked at this often at least, in seconds.
_LONGEST_NAP = 60.0
#: So long a file that is just appearing may take when everything is closed, in seconds.
_PUBLISH_PATIENCE = 10.0


class Side(ABC):
    """What a transfer does at its own end. Made by an offer, owned by the transfer."""

    transfer: Transfer

    @abstractmethod
    async def do(self, action: Action) -> None:
        """Do `action`; what follows from it is fed to :attr:`transfer`. Errors end the transfer."""

    @abstractmethod
    def measure(self) -> Progress:
        """The latest counts; rate and eta are filled in by the transfer."""

    @abstractmethod
    def tell(self, state: State, error: BTError | None) -> None:
        """See to it that the other side learns of the end."""

    @abstractmethod
    def changed(self) -> None:
        """The transfer's state is another one: keep it."""

    @abstractmethod
    def suspend(self) -> None:
        """The plugin ends: what follows is not told to anybody, and what is kept stays as it is."""

    @abstractmethod
    async def release(self) -> None:
        """Close what is open and remove what is not needed any more."""

    @abstractmethod
    def path(self) -> Path | None:
        """The published path or the source."""

    @abstractmethod
    def diagnosis(self) -> dict[Route, str]:
        """In words, why a route is not, or not yet, in use."""


class Transfer:
    """One receiver fetching one offer, seen from either side.

    :ivar id: chosen by the receiver; None until there is one.
    :ivar offer: what is fetched.
    :ivar peer: the other side; in a room the occupant's JID, or the room's own while the occupant is not there.
    :ivar incoming: whether this side receives.
    :ivar name: the file's or directory's name; for an incoming one, made safe.
    """

    def __init__(
        self,
        context: Context,
        negotiation: Negotiation,
        side: Side,
        *,
        offer: IncomingOffer | OutgoingOffer,
        peer: JID,
        id: str | None,
        incoming: bool,
    ) -> None:
        self.id = id
        self.offer = offer
        self.peer = peer
        self.incoming = incoming
        self._context = context
        self._negotiation = negotiation
        self._side = side
        self._error: BTError | None = None
        self._queue: deque[Action] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._doing: Action | None = None
        self._over = asyncio.Event()
        self._releasing: asyncio.Task[None] | None = None
        self._released = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._samples = Sampling(side.measure, lambda: self.state, self._moved)
        self._started = False
        side.transfer = self
        self._schedule()

    # what a user asks

    @property
    def name(self) -> str:
        """The name of the file or directory."""
        return self.offer.name

    @property
    def size(self) -> int:
        """Bytes wanted; before the manifest is known, bytes offered."""
        return self._side.measure().total

    @property
    def state(self) -> State:
        """Where it stands."""
        return self._negotiation.state

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.state.terminal

    @property
    def complete(self) -> bool:
        """Whether it ended with the file."""
        return self.state is State.COMPLETE

    @property
    def path(self) -> Path | None:
        """Receiver: the published path, once there is one. Sender: the source."""
        return self._side.path()

    @property
    def progress(self) -> Progress:
        """The latest moment."""
        return self._samples.latest

    @property
    def routes(self) -> dict[Route, int]:
        """Bytes by the route that brought them."""
        return dict(self._side.measure().routes)

    @property
    def diagnosis(self) -> dict[Route, str]:
        """In words and as of now: why a route is not, or not yet, in use. A route that is in use is not in it."""
        return {} if self.ended else self._side.diagnosis()

    @property
    def error(self) -> BTError | None:
        """Why it ended, if it did not end with the file."""
        return self._error

    async def wait(self) -> Path:
        """Wait for the end and return the published path (receiver) or, once the receiver has confirmed, the source
        (sender). May be called again. Cancelling it cancels nothing but the waiting.

        :raises BTError: the transfer's error, most often a :class:`~slixmpp_bt.errors.TransferError`.
        """
        await self._over.wait()
        if self._error is not None:
            raise self._error.with_traceback(None)
        path = self.path
        assert path is not None
        return path

    async def cancel(self, reason: str | None = None) -> None:
        """End it. The other side is told, at its next contact if it is away. A transfer that has ended, or whose file
        is about to appear, is left as it is. Returns once everything is let go of; cancelling the call does not
        stop that.
        """
        self.feed(Event.CANCEL, Cancelled(reason or "cancelled on this side"))
        if self.ended:
            await self._released.wait()

    async def pause(self) -> None:
        """Move no more bytes until :meth:`resume`; what is there is kept. No effect once it has ended."""
        self.feed(Event.PAUSE)

    async def resume(self) -> None:
        """Go on after :meth:`pause`. No effect if it was not paused."""
        self.feed(Event.RESUME)

    async def __aiter__(self) -> AsyncIterator[Progress]:
        """Each new :class:`Progress`, at most four a second; ends with the transfer, the last item being final."""
        seen = -1
        while True:
            if seen == self._samples.version:
                await self._samples.changed()
            seen = self._samples.version
            yield self._samples.latest
            if self._over.is_set():
                if seen == self._samples.version:
                    return
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), 1 / PER_SECOND)

    def __repr__(self) -> str:
        direction = "from" if self.incoming else "to"
        return f"<Transfer {self.name!r} {direction} {self.peer} {self.state}>"

    # what the other parts say

    def feed(self, event: Event, error: BTError | None = None) -> bool:
        """Something happened. Returns whether it meant something in the present phase.

        :param error: if it ends the transfer, why.
        """
        before = self._negotiation.phase
        actions = self._negotiation.feed(event, self._context.now())
        self._follow(actions, before.state, error)
        return bool(actions) or self._negotiation.phase is not before

    async def released(self) -> None:
        """Return once an ended transfer has let go of everything."""
        await self._released.wait()

    @property
    def is_released(self) -> bool:
        """Whether it has let go of everything."""
        return self._released.is_set()

    @property
    def phase(self) -> Phase:
        """Where it stands, in the finer words of the negotiation."""
        return self._negotiation.phase

    async def suspend(self, error: TransferError) -> None:
        """End it here, with `error`, so that the next run goes on with it. Otherwise as :meth:`aclose`."""
        self._side.suspend()
        await self.aclose(error)

    async def aclose(self, error: TransferError) -> None:
        """End it with `error`, if it has not ended, and return once it has let go of everything. A file that is just
        appearing gets some seconds to do so. For the end of the plugin only: cancelling it may leave part files.
        """
        if not self.feed(Event.CANCEL, error) and not self.ended:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), _PUBLISH_PATIENCE)
            self.feed(Event.FAIL, error)
        await self._released.wait()
        if self._releasing is not None and self._releasing.cancelled():
            await self._side.release()

    @property
    def time_left(self) -> float:
        """Seconds until it has to be over."""
        return self._negotiation.ends - self._context.now()

    def touch(self) -> None:
        """There are new counts: take a sample as soon as it is due."""
        self._samples.touch()

    # the shell

    def _tick(self) -> None:
        before = self.state
        self._timer = None
        self._follow(self._negotiation.tick(self._context.now()), before, None)

    def _follow(self, actions: tuple[Action, ...], before: State, error: BTError | None) -> None:
        state = self.state
        if state.terminal and not before.terminal:
            self._end(state, error)
        for action in actions:
            self._take(action, error)
        self._schedule()
        if state is not before:
            self._side.changed()
            self._samples.take()
            if before in (State.PREPARING, State.PAUSED):
                self._samples.forget()
            self._samples.watch()
            if state is State.CONNECTING and not self._started:
                self._started = True
                self._context.notify("bt_transfer_start", self)
            if state.terminal:
                self._context.notify("bt_transfer_end", self)

    def _end(self, state: State, error: BTError | None) -> None:
        if state is not State.COMPLETE:
            self._error = error or DEFAULT_ERRORS[state](f"{self.name}: {state}")
        self._over.set()
        log.info("%s: %s%s", self, state, f": {self._error}" if self._error else "")

    def _take(self, action: Action, error: BTError | None) -> None:
        if action is Action.TELL:
            self._side.tell(self.state, self._error)
        elif action is Action.RELEASE:
            self._queue.clear()
            self._releasing = self._context.tasks.spawn(self._release(), f"release {self.id}")
            self._releasing.add_done_callback(lambda _: self._released.set())
        else:
            if action is Action.HOLD:
                self._queue.clear()
                if self._doing is Action.CONTACT and self._worker is not None:
                    self._worker.cancel()
            if action not in self._queue:
                self._queue.append(action)
            if self._worker is None or self._worker.done() or self._worker.cancelling():
                self._worker = self._context.tasks.spawn(self._work(self._worker), f"work {self.id}")

    async def _work(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        while self._queue:
            self._doing = self._queue.popleft()
            try:
                await self._side.do(self._doing)
            except BTError as error:
                self.feed(Event.FAIL, error)
            except Exception as error:
                log.exception("%s: %s failed", self, self._doing)
                self.feed(Event.FAIL, TransferError(f"internal error: {error!r}"))
            except asyncio.CancelledError:
                if self._doing is Action.PUBLISH:
                    self.feed(Event.FAIL, Cancelled("stopped while the file was about to appear"))
                raise
            finally:
                self._doing = None

    async def _release(self) -> None:
        try:
            if self._worker is not None:
                self._worker.cancel()
                await asyncio.wait([self._worker])
            await self._side.release()
        except BTError as error:
            log.warning("%s: something is left behind: %s", self, error)
        except Exception:
            log.exception("%s: could not let go of everything", self)

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._negotiation.next_deadline()
        if deadline is not None:
            nap = min(max(0.0, deadline - self._context.now()), _LONGEST_NAP)
            self._timer = asyncio.get_running_loop().call_later(nap, self._tick)

    def _moved(self) -> None:
        self.feed(Event.MOVED)
        if not self.ended:
            self._context.notify("bt_progress", self)
