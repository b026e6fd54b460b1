"""Progress and the rate it is made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slixmpp_bt.progress import Meter


@pytest.mark.parametrize("seconds", [0.25, 1.0, 3.0, 30.0])
def test_rate_of_a_steady_flow_is_right_from_the_first_moment(seconds: float) -> None:
    meter, now = Meter(), 100.0
    while now <= 100.0 + seconds:
        meter.add(now, int((now - 100.0) * 1_000_000))
        now += 0.25
    assert meter.rate == pytest.approx(1_000_000)
    assert meter.eta(5_000_000) == pytest.approx(5.0)


def test_rate_after_a_standstill_falls_to_nothing_and_so_does_the_eta() -> None:
    meter = Meter()
    for second in range(10):
        meter.add(float(second), second * 1000)
    for second in range(10, 60):
        meter.add(float(second), 9000)
    assert meter.rate < 1.0
    assert meter.eta(1000) is None


def test_rate_follows_a_change_within_seconds() -> None:
    meter = Meter()
    for tick in range(80):
        meter.add(tick / 4, tick * 250 if tick <= 40 else 10_000 + (tick - 40) * 25_000)
    assert meter.rate == pytest.approx(100_000, rel=0.1)


def test_count_that_falls_begins_anew() -> None:
    """What was hashed is not what is sent."""
    meter = Meter()
    for tick in range(10):
        meter.add(float(tick), tick * 10_000_000)
    meter.add(10.0, 0)
    assert meter.rate == 0.0
    meter.add(11.0, 5_000)
    assert meter.rate == pytest.approx(5_000)


def test_moments_that_coincide_make_no_absurd_rate() -> None:
    meter = Meter()
    meter.add(1.0, 0)
    for _ in range(5):
        meter.add(1.0, 1_000_000)
        meter.add(1.000001, 1_000_000)
    assert meter.rate == 0.0
    meter.add(2.0, 1_000_000)
    assert meter.rate == pytest.approx(1_000_000)


@given(st.lists(st.tuples(st.floats(-1.0, 100.0), st.integers(0, 2**40)), max_size=30))
def test_rate_is_never_negative_nor_above_the_fastest_step(steps: list[tuple[float, int]]) -> None:
    meter, now, count, fastest = Meter(), 0.0, 0, 0.0
    meter.add(now, count)
    for elapsed, more in steps:
        now, count = now + elapsed, count + more
        meter.add(now, count)
        fastest = max(fastest, count / 0.02)
        assert 0.0 <= meter.rate <= fastest
        eta = meter.eta(1000)
        assert eta is None or 0.0 <= eta <= 1000.0
