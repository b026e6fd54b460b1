"""The life of one transfer, seen from one side: a table, and a small machine that walks it.

Rules of this file: everything that decides about a transfer's state is in :data:`TABLE`; nothing here does I/O, reads
a clock or throws dice (time and a random generator are passed in); an event that the table does not know for a phase
changes nothing; nothing leads out of a terminal phase. The shell around it (:mod:`slixmpp_bt.transfer`) turns what
happens into events, feeds them, and does the actions that come back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from .constants import State

if TYPE_CHECKING:
    import random


class Role(StrEnum):
    """Which side of the transfer this is."""

    SENDER = "sender"
    RECEIVER = "receiver"


class Phase(StrEnum):
    """What the machine distinguishes; finer than the public :class:`~slixmpp_bt.constants.State`."""

    PREPARING = "preparing"
    PREPARING_HELD = "preparing, paused"
    OFFERED = "offered"
    OFFERED_HELD = "offered, paused"
    CONNECTING = "connecting"
    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    PUBLISHING = "publishing"
    COMPLETE = "complete"
    DECLINED = "declined"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    FAILED = "failed"

    @property
    def state(self) -> State:
        """The public state."""
        return _STATES[self]


_STATES: Mapping[Phase, State] = {
    **{Phase(state.value): state for state in State},
    Phase.PREPARING_HELD: State.PAUSED,
    Phase.OFFERED_HELD: State.PAUSED,
    Phase.PUBLISHING: State.RUNNING,
}


class Event(StrEnum):
    """What can happen."""

    # by this side
    START = "start"  # sender: the manifest is made; receiver: the offer was accepted
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    FAIL = "fail"
    # by the other side
    ACCEPT = "accept"  # to the sender: an Accept came, perhaps again
    ACCEPTED = "accepted"  # to the receiver: the Accept was answered
    FOUND = "found"  # to the receiver: the sender is there, or has to be asked again
    NOT_HERE = "not here"  # to the receiver: the sender cannot be reached at the address known
    PEER_COMPLETE = "peer complete"
    PEER_DECLINE = "peer decline"
    PEER_CANCEL = "peer cancel"
    PEER_EXPIRED = "peer expired"
    PEER_FAIL = "peer fail"
    # with the pieces
    MOVED = "moved"
    HAVE_ALL = "have all"
    PUBLISHED = "published"
    BLOCKED = "blocked"  # the disk does not take them now
    DAMAGED = "damaged"  # what an earlier run had stored is not all right
    # by the clock
    EXPIRY = "expiry"
    STALL = "stall"
    RETRY = "retry"


class Action(StrEnum):
    """What the shell has to do."""

    OFFER = "offer"  # send the offer
    CONTACT = "contact"  # (get the manifest, open the download and) send an Accept
    DIAL = "dial"  # connect to the candidates of the answer
    SERVE = "serve"  # let the receiver have the pieces
    HOLD = "hold"  # stop moving pieces
    PUBLISH = "publish"  # flush, check, give the final name
    TELL = "tell"  # tell the other side how it ended
    RELEASE = "release"  # let go of everything


@dataclass(frozen=True, slots=True)
class Step:
    """Where an event leads, and what is to be done."""

    phase: Phase
    actions: tuple[Action, ...] = ()


Rows = dict[Event, Step]


def _endings(*, tell: bool = True) -> Rows:
    end = (Action.TELL, Action.RELEASE) if tell else (Action.RELEASE,)
    return {
        Event.CANCEL: Step(Phase.CANCELLED, end),
        Event.FAIL: Step(Phase.FAILED, end),
        Event.EXPIRY: Step(Phase.EXPIRED, end),
        Event.PEER_CANCEL: Step(Phase.CANCELLED, (Action.RELEASE,)),
        Event.PEER_EXPIRED: Step(Phase.EXPIRED, (Action.RELEASE,)),
        Event.PEER_FAIL: Step(Phase.FAILED, (Action.RELEASE,)),
    }


_CONTACT = Step(Phase.CONNECTING, (Action.CONTACT,))
_SERVE = Step(Phase.CONNECTING, (Action.SERVE,))
_PUBLISH = Step(Phase.PUBLISHING, (Action.PUBLISH,))
_PAUSE = Step(Phase.PAUSED, (Action.HOLD,))
_RUNNING = Step(Phase.RUNNING)
_WAITING = Step(Phase.WAITING)
_BLOCKED = Step(Phase.WAITING, (Action.HOLD,))

_RECEIVER: Mapping[Phase, Rows] = {
    Phase.PREPARING: _endings() | {Event.START: _CONTACT},
    Phase.CONNECTING: _endings()
    | {
        Event.ACCEPTED: Step(Phase.CONNECTING, (Action.DIAL,)),
        Event.FOUND: _CONTACT,
        Event.NOT_HERE: _WAITING,
        Event.STALL: _WAITING,
        Event.BLOCKED: _BLOCKED,
        Event.MOVED: _RUNNING,
        Event.HAVE_ALL: _PUBLISH,
        Event.PAUSE: _PAUSE,
    },
    Phase.RUNNING: _endings()
    | {
        Event.ACCEPTED: Step(Phase.RUNNING, (Action.DIAL,)),
        Event.FOUND: Step(Phase.RUNNING, (Action.CONTACT,)),
        Event.MOVED: _RUNNING,
        Event.STALL: _WAITING,
        Event.BLOCKED: _BLOCKED,
        Event.HAVE_ALL: _PUBLISH,
        Event.PAUSE: _PAUSE,
    },
    Phase.WAITING: _endings()
    | {
        Event.RETRY: Step(Phase.WAITING, (Action.CONTACT,)),
        Event.FOUND: Step(Phase.WAITING, (Action.CONTACT,)),
        Event.ACCEPTED: Step(Phase.CONNECTING, (Action.DIAL,)),
        Event.MOVED: _RUNNING,
        Event.HAVE_ALL: _PUBLISH,
        Event.PAUSE: _PAUSE,
    },
    Phase.PAUSED: _endings() | {Event.RESUME: _CONTACT, Event.HAVE_ALL: _PUBLISH},
    # Too late to turn back: every byte is here and the file is about to appear. Unless the disk does not take it, or
    # the last look at it finds damage.
    Phase.PUBLISHING: {
        Event.BLOCKED: _BLOCKED,
        Event.DAMAGED: _CONTACT,
        Event.PUBLISHED: Step(Phase.COMPLETE, (Action.TELL, Action.RELEASE)),
        Event.FAIL: Step(Phase.FAILED, (Action.TELL, Action.RELEASE)),
    },
}

_SERVING: Rows = _endings() | {
    Event.ACCEPT: _SERVE,
    Event.MOVED: _RUNNING,
    Event.PAUSE: _PAUSE,
    Event.PEER_COMPLETE: Step(Phase.COMPLETE, (Action.RELEASE,)),
}

_SENDER: Mapping[Phase, Rows] = {
    Phase.PREPARING: _endings(tell=False)
    | {Event.START: Step(Phase.OFFERED, (Action.OFFER,)), Event.PAUSE: Step(Phase.PREPARING_HELD)},
    Phase.PREPARING_HELD: _endings(tell=False)
    | {Event.START: Step(Phase.OFFERED_HELD, (Action.OFFER,)), Event.RESUME: Step(Phase.PREPARING)},
    Phase.OFFERED: _endings()
    | {
        Event.ACCEPT: _SERVE,
        Event.PEER_DECLINE: Step(Phase.DECLINED, (Action.RELEASE,)),
        Event.PAUSE: Step(Phase.OFFERED_HELD),
    },
    Phase.OFFERED_HELD: _endings()
    | {
        Event.ACCEPT: Step(Phase.PAUSED),
        Event.PEER_DECLINE: Step(Phase.DECLINED, (Action.RELEASE,)),
        Event.RESUME: Step(Phase.OFFERED),
    },
    Phase.CONNECTING: _SERVING | {Event.STALL: _WAITING},
    Phase.RUNNING: _SERVING | {Event.ACCEPT: Step(Phase.RUNNING, (Action.SERVE,)), Event.STALL: _WAITING},
    Phase.WAITING: _SERVING,
    Phase.PAUSED: _endings()
    | {
        Event.ACCEPT: Step(Phase.PAUSED),
        Event.RESUME: _SERVE,
        Event.PEER_COMPLETE: Step(Phase.COMPLETE, (Action.RELEASE,)),
    },
}

#: By role and phase, what each event leads to. What is not in it changes nothing.
TABLE: Mapping[Role, Mapping[Phase, Rows]] = {Role.SENDER: _SENDER, Role.RECEIVER: _RECEIVER}


@dataclass(frozen=True, slots=True)
class Timing:
    """The machine's times, in seconds.

    :ivar stall: without a new byte for so long, a transfer that was connecting or running is waiting.
    :ivar retry_first: the first wait before the sender is asked again; it doubles, with a random part.
    :ivar retry_most: the longest such wait.
    """

    stall: float = 10.0
    retry_first: float = 5.0
    retry_most: float = 900.0


class Negotiation:
    """One side's view of one transfer.

    :param expires: when it is over if no Accept was answered until then (seconds since the epoch).
    :param ttl: when it is over in any case.
    """

    def __init__(
        self, role: Role, *, expires: float, ttl: float, rng: random.Random, timing: Timing = Timing(),
        phase: Phase = Phase.PREPARING,
    ) -> None:  # fmt: skip
        self.role = role
        self.phase = phase
        self._expires = expires
        self._ttl = ttl
        self._rng = rng
        self._timing = timing
        self._answered = False
        self._retries = 0
        self._stall_at: float | None = None
        self._retry_at: float | None = None

    @classmethod
    def begun(cls, *, ttl: float, rng: random.Random, timing: Timing = Timing()) -> Self:
        """The sender's side of a transfer that begins with an Accept of an offer that is out already."""
        return cls(Role.SENDER, expires=ttl, ttl=ttl, rng=rng, timing=timing, phase=Phase.OFFERED)

    @property
    def state(self) -> State:
        """The public state."""
        return self.phase.state

    @property
    def ends(self) -> float:
        """When it is over in any case (seconds since the epoch)."""
        return self._ttl

    def feed(self, event: Event, now: float) -> tuple[Action, ...]:
        """Take `event` at `now` and return what is to be done, in order."""
        step = TABLE[self.role].get(self.phase, {}).get(event)
        if step is None:
            return ()
        came_from, self.phase = self.phase, step.phase
        if event is Event.MOVED:
            self._retries = 0
        if event in (Event.ACCEPT, Event.ACCEPTED):
            self._answered = True
        self._set_timers(event, came_from, now)
        return step.actions

    def next_deadline(self) -> float | None:
        """When :meth:`tick` is to be called; None once nothing is left to wait for."""
        return min((at for at, _ in self._deadlines()), default=None)

    def tick(self, now: float) -> tuple[Action, ...]:
        """Feed every event whose time has come."""
        actions: list[Action] = []
        for at, event in sorted(self._deadlines()):
            if at <= now:
                actions += self.feed(event, now)
        return tuple(actions)

    def _deadlines(self) -> list[tuple[float, Event]]:
        rows = TABLE[self.role].get(self.phase, {})
        timers = {
            Event.EXPIRY: self._ttl if self._answered else self._expires,
            Event.STALL: self._stall_at,
            Event.RETRY: self._retry_at,
        }
        return [(at, event) for event, at in timers.items() if at is not None and event in rows]

    def _set_timers(self, event: Event, came_from: Phase, now: float) -> None:
        if self.phase is not came_from or event in (Event.MOVED, Event.ACCEPT, Event.ACCEPTED):
            self._stall_at = now + self._timing.stall
        if self.phase is Phase.WAITING and (came_from is not Phase.WAITING or event is Event.RETRY):
            self._retry_at = now + self._back_off()

    def _back_off(self) -> float:
        wait: float = min(self._timing.retry_first * 2**self._retries, self._timing.retry_most)
        self._retries = min(self._retries + 1, 32)
        return wait * self._rng.uniform(0.8, 1.0)
