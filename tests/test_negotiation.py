"""The table and its machine: by enumeration, and two sides talking over a network that loses, repeats and reorders."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slixmpp_bt.constants import State
from slixmpp_bt.negotiation import TABLE, Action, Event, Negotiation, Phase, Role, Timing

TERMINAL = [phase for phase in Phase if phase.state.terminal]
ALIVE = [(role, phase) for role in Role for phase in TABLE[role]]
OWN_ENDS = {Event.CANCEL, Event.FAIL, Event.EXPIRY, Event.PUBLISHED}


def machine(role: Role, phase: Phase = Phase.PREPARING) -> Negotiation:
    return Negotiation(role, expires=100.0, ttl=1000.0, rng=random.Random(1), phase=phase)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("phase", TERMINAL)
def test_terminal_phase_knows_no_event(role: Role, phase: Phase) -> None:
    assert phase not in TABLE[role]
    negotiation = machine(role, phase)
    for event in Event:
        assert negotiation.feed(event, 1.0) == ()
    assert negotiation.phase is phase
    assert negotiation.next_deadline() is None


@pytest.mark.parametrize(("role", "phase"), ALIVE)
def test_unknown_event_changes_nothing(role: Role, phase: Phase) -> None:
    negotiation = machine(role, phase)
    before = vars(negotiation).copy()
    for event in set(Event) - set(TABLE[role][phase]):
        assert negotiation.feed(event, 5.0) == ()
    assert vars(negotiation) == before


@pytest.mark.parametrize(("role", "phase"), ALIVE)
def test_every_phase_can_end_and_every_end_releases(role: Role, phase: Phase) -> None:
    for step in TABLE[role][phase].values():
        assert step.phase in TERMINAL or step.phase in TABLE[role]
        assert (Action.RELEASE in step.actions) == (step.phase in TERMINAL)
    assert any(step.phase in TERMINAL for step in TABLE[role][phase].values())


@pytest.mark.parametrize(("role", "phase"), ALIVE)
def test_deadline_leads_somewhere(role: Role, phase: Phase) -> None:
    """Following deadlines alone ends a transfer; publishing alone has none: it is this side's own work."""
    if phase is Phase.PUBLISHING:
        assert machine(role, phase).next_deadline() is None
        return
    negotiation, now, steps = machine(role, phase), 0.0, 0
    while (deadline := negotiation.next_deadline()) is not None:
        assert deadline >= now
        now, steps = deadline, steps + 1
        before = (negotiation.phase, deadline)
        negotiation.tick(now)
        assert (negotiation.phase, negotiation.next_deadline()) != before
        assert steps < 1000
    assert negotiation.phase is Phase.EXPIRED


def test_every_phase_is_reachable() -> None:
    for role in Role:
        seen, todo = set(), [Phase.PREPARING]
        while todo:
            phase = todo.pop()
            if phase not in seen:
                seen.add(phase)
                todo += [step.phase for step in TABLE[role].get(phase, {}).values()]
        assert set(TABLE[role]) <= seen


def test_back_off_grows_to_its_bound_and_movement_resets_it() -> None:
    negotiation = Negotiation(
        Role.RECEIVER, expires=1e9, ttl=1e9, rng=random.Random(3), timing=Timing(10.0, 5.0, 60.0), phase=Phase.WAITING
    )
    now, waits = 0.0, []
    for _ in range(8):
        negotiation.feed(Event.RETRY, now)
        deadline = negotiation.next_deadline()
        assert deadline is not None
        waits.append(deadline - now)
        now = deadline
    assert 4.0 <= waits[0] <= 5.0
    assert 48.0 <= waits[-1] <= 60.0
    negotiation.feed(Event.MOVED, now)
    negotiation.feed(Event.STALL, now)
    deadline = negotiation.next_deadline()
    assert deadline is not None
    assert deadline - now <= 5.0


def test_offer_expires_unless_accepted_and_then_lives_until_ttl() -> None:
    sender = machine(Role.SENDER)
    sender.feed(Event.START, 0.0)
    assert sender.next_deadline() == 100.0
    sender.feed(Event.ACCEPT, 50.0)
    sender.feed(Event.MOVED, 50.0)
    assert sender.tick(101.0) == ()  # only a stall
    assert sender.phase is Phase.WAITING
    sender.tick(1000.0)
    assert sender.state is State.EXPIRED


@dataclass
class End:
    """One side as the shell around the machine would run it, reduced to what it says and hears."""

    negotiation: Negotiation
    network: list[tuple[str, Role]]
    kept: list[str] = field(default_factory=list)
    ended_by: Event | None = None
    pieces: int = 0

    @property
    def role(self) -> Role:
        return self.negotiation.role

    @property
    def state(self) -> State:
        return self.negotiation.state

    def feed(self, event: Event, now: float) -> None:
        before = self.state
        self._follow(self.negotiation.feed(event, now), before, event, now)

    def tick(self, now: float) -> None:
        before = self.state
        actions = self.negotiation.tick(now)
        self._follow(actions, before, Event.EXPIRY, now)

    def _follow(self, actions: tuple[Action, ...], before: State, event: Event, now: float) -> None:
        if self.state.terminal and not before.terminal:
            self.ended_by = event
        for action in actions:
            if action is Action.CONTACT:
                self.say("accept")
            elif action is Action.TELL:
                self.kept.append(f"end {self.state}")
                self.say(self.kept[0])
            elif action is Action.PUBLISH:
                self.feed(Event.PUBLISHED, now)

    def say(self, text: str) -> None:
        self.network.append((text, Role.SENDER if self.role is Role.RECEIVER else Role.RECEIVER))

    def hear(self, text: str, now: float) -> None:
        match text.split():
            case ["accept"]:
                if self.state.terminal:
                    self.say(f"gone {self.state}")
                    return
                self.feed(Event.ACCEPT, now)
                self.say("not now" if self.state is State.PAUSED else "accepted")
            case ["accepted"]:
                self.feed(Event.ACCEPTED, now)
            case ["not", "now"]:
                self.feed(Event.NOT_HERE, now)
            case ["end", how]:
                self.say("done")
                self.feed(HEARD[State(how)], now)
            case ["gone", how]:
                self.feed(HEARD[State(how)], now)
            case ["done"]:
                self.kept.clear()


HEARD = {
    State.COMPLETE: Event.PEER_COMPLETE,
    State.CANCELLED: Event.PEER_CANCEL,
    State.EXPIRED: Event.PEER_EXPIRED,
    State.FAILED: Event.PEER_FAIL,
    State.DECLINED: Event.PEER_DECLINE,
}


class TwoSides:
    """A sender, a receiver and what is under way between them."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now = 0.0
        self.network: list[tuple[str, Role]] = []
        self.sides = {role: End(machine(role), self.network) for role in Role}
        self.sender, self.receiver = self.sides[Role.SENDER], self.sides[Role.RECEIVER]
        for side in self.sides.values():
            side.feed(Event.START, self.now)

    def step(self, step: Step) -> None:
        kind, role = step
        if isinstance(kind, Event):
            self.sides[role].feed(kind, self.now)
        elif isinstance(kind, float):
            self.now += kind
            for side in self.sides.values():
                side.tick(self.now)
        elif kind == "move":
            for side in self.sides.values():
                side.feed(Event.MOVED, self.now)
        elif kind == "last piece" and self.receiver.negotiation.phase is Phase.RUNNING:
            self.receiver.feed(Event.HAVE_ALL, self.now)
        elif self.network:
            self.carry(kind)

    def carry(self, fate: str) -> None:
        index = self.rng.randrange(len(self.network))
        text, to = self.network[index] if fate == "repeat" else self.network.pop(index)
        if fate != "lose":
            self.sides[to].hear(text, self.now)

    def heal(self) -> None:
        """From here on nothing is lost, what is kept is repeated, and time goes on."""
        for _ in range(200):
            while self.network:
                self.carry("deliver")
            for side in self.sides.values():
                for text in side.kept:
                    side.say(text)
            deadlines = [d for s in self.sides.values() if (d := s.negotiation.next_deadline()) is not None]
            if not self.network and not deadlines:
                return
            if not self.network:
                self.now = max(self.now, min(deadlines))
                for side in self.sides.values():
                    side.tick(self.now)


Step = tuple[Event | str | float, Role]
STEPS: st.SearchStrategy[Step] = st.tuples(
    st.sampled_from(
        [Event.PAUSE, Event.RESUME, Event.CANCEL, Event.FAIL, "move", "last piece"]
        + ["deliver"] * 6 + ["lose", "repeat", 1.0, 12.0, 120.0]
    ),
    st.sampled_from(Role),
)  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(st.lists(STEPS, max_size=30), st.integers(0, 2**32))
def test_both_sides_end_in_agreement_whatever_the_network_does(steps: list[Step], seed: int) -> None:
    """They end alike, unless both decided by themselves before either heard of it."""
    world = TwoSides(random.Random(seed))
    for step in steps:
        world.step(step)
        assert world.sender.state is not State.COMPLETE or world.receiver.state is State.COMPLETE
    world.heal()
    assert world.sender.state.terminal
    assert world.receiver.state.terminal
    if not {world.sender.ended_by, world.receiver.ended_by} <= OWN_ENDS:
        assert world.sender.state is world.receiver.state
