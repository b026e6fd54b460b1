"""How many blocks may be on their way: against paths that throttle as servers do, without a clock."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slixmpp_bt.streams.window import BLOCK, LARGEST, SMALLEST_BLOCK, Window

#: Bytes of a block as a stanza: base64, and what is around it.
STANZA = BLOCK * 4 / 3 + 240


@dataclass
class Path:
    """A path with a delay, on which `rate` bytes per second get through once a burst is used up."""

    delay: float
    rate: float = float("inf")
    burst: float = 0.0
    now: float = 0.0
    free_at: float = 0.0
    worst: float = 0.0
    flight: list[tuple[float, float, int]] = field(default_factory=list)

    def send(self, block: int) -> None:
        stanza = block * 4 / 3 + 240
        spare, self.burst = min(self.burst, stanza), max(0.0, self.burst - stanza)
        self.free_at = max(self.free_at, self.now) + (stanza - spare) / self.rate
        self.worst = max(self.worst, self.free_at - self.now)
        self.flight.append((self.free_at + self.delay, self.now, len(self.flight) + 1))

    def answer(self) -> tuple[float, int]:
        self.now, sent, flight = self.flight.pop(0)
        return self.now - sent, flight


def _run(path: Path, blocks: int, window: Window | None = None) -> Window:
    window = window or Window()
    for _ in range(blocks):
        while len(path.flight) < window.size:
            path.send(window.block)
        window.answered(*path.answer())
    return window


def test_window_new_is_one_block() -> None:
    assert Window().size == 1


@pytest.mark.parametrize("delay", [0.001, 0.05, 0.2, 0.7])
def test_answered_round_trips_stay_short_grows_to_largest(delay: float) -> None:
    assert _run(Path(delay), 200).size == LARGEST


@pytest.mark.parametrize("burst", [0, 20_000], ids=["used-up", "full"])
@pytest.mark.parametrize("rate", [1_000, 3_000, 10_000, 30_000])
def test_answered_throttled_path_queues_two_seconds_or_one_block(rate: float, burst: float) -> None:
    path = Path(0.002, rate, burst)
    window = _run(path, 100)
    assert path.worst <= max(2.0, 1.001 * STANZA / rate)
    assert window.size <= max(1, 2 * rate / BLOCK)


def test_answered_wide_throttled_path_uses_most_of_it() -> None:
    path = Path(0.05, 500_000)
    _run(path, 2_000)
    assert 2_000 * STANZA / path.now > 0.9 * 500_000
    assert path.worst < 1.0


def test_answered_path_becomes_slow_shrinks_with_the_next_answers() -> None:
    path = Path(0.002)
    _run(path, 200)
    window = _run(path, 200)
    window.answered(4.0, LARGEST)
    assert window.size == LARGEST // 8
    window.answered(4.0, LARGEST // 8)
    assert window.size == 1


def test_answered_few_on_their_way_does_not_grow() -> None:
    window = _run(Path(0.01), 40)
    size = window.size
    assert size > 4
    for _ in range(100):
        window.answered(0.01, 1)
    assert window.size == size


@pytest.mark.parametrize(("rate", "block"), [(10_000, 4_096), (3_000, 2_048), (1_000, 1_024), (100, 1_024)])
def test_answered_one_block_keeps_others_waiting_block_shrinks(rate: float, block: int) -> None:
    assert _run(Path(0.002, rate, 20_000), 100).block == block


def test_answered_after_an_earlier_stream_knows_that_the_path_is_throttled() -> None:
    path = Path(0.002, 3_000, 20_000)
    shortest = _run(path, 100).shortest
    window = _run(path, 100, Window(shortest))
    assert (window.size, window.block) == (1, 2_048)


def test_answered_long_way_keeps_whole_blocks() -> None:
    assert _run(Path(1.5), 100).block == BLOCK


def test_answered_path_becomes_fast_grows_again() -> None:
    window = _run(Path(0.002, 1_000, 20_000), 100)
    _run(Path(0.002), 200, window)
    assert (window.size, window.block) == (LARGEST, BLOCK)


def test_failed_shrinks_to_one_block() -> None:
    window = _run(Path(0.01), 100)
    window.failed()
    assert window.size == 1


def test_patience_slow_path_grows_within_bounds() -> None:
    assert Window().patience == 120
    assert _run(Path(0.01), 20).patience == 60
    assert _run(Path(0.0, 500), 20).patience == pytest.approx(114, rel=0.01)
    assert _run(Path(1_000.0), 20).patience == 300


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(1, LARGEST)), max_size=200))
def test_answered_anything_keeps_the_bounds(answers: list[tuple[float, int]]) -> None:
    window = Window()
    for round_trip, flight in answers:
        window.answered(round_trip, flight)
        assert 1 <= window.size <= LARGEST
        assert SMALLEST_BLOCK <= window.block <= BLOCK
        assert 60 <= window.patience <= 300
