"""Which route runs when: the whole decision, without a byte."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slixmpp_bt.constants import Route
from slixmpp_bt.routing import STREAMS, Patience, Situation, choose, hopeless, too_large_for_in_band, too_slow

PATIENCE = Patience(first=3, stall=5, hopeless=120, rest=2, most=60)
SWARM, RELAY, IN_BAND = Route.SWARM, Route.RELAY, Route.IN_BAND


def situation(
    excluded: AbstractSet[Route] = frozenset(), resting: AbstractSet[Route] = frozenset(), *,
    idle: float = 0.0, moved: bool = False,
) -> Situation:  # fmt: skip
    return Situation(dict.fromkeys(excluded, "why"), resting, idle, moved)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(situation(idle=2.9), None, id="the swarm gets its time to begin"),
        pytest.param(situation(idle=3.0), RELAY, id="a swarm that brings nothing is helped out"),
        pytest.param(situation(idle=4.9, moved=True), None, id="one that moved may pause a little longer"),
        pytest.param(situation(idle=5.0, moved=True), RELAY, id="but not for ever"),
        pytest.param(situation({SWARM}), RELAY, id="without a swarm a stream begins at once"),
        pytest.param(situation({SWARM, RELAY}), IN_BAND, id="in-band where there is no relay"),
        pytest.param(situation({SWARM}, {RELAY}), IN_BAND, id="in-band while the relay rests"),
        pytest.param(situation({SWARM, IN_BAND}, {RELAY}), None, id="nothing while the last route rests"),
        pytest.param(situation({SWARM, RELAY, IN_BAND}), None, id="nothing where nothing is left"),
        pytest.param(situation({RELAY, IN_BAND}, idle=1e6), None, id="the swarm alone goes on trying"),
    ],
)
def test_choice_in_a_situation_is_the_best_that_is_left(now: Situation, expected: Route | None) -> None:
    assert choose(now, PATIENCE) is expected


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (situation({SWARM, RELAY, IN_BAND}), True),
        (situation({SWARM, RELAY}), False),
        (situation({SWARM, RELAY}, {IN_BAND}), False),
        (situation({RELAY, IN_BAND}, idle=119), False),
        (situation({RELAY, IN_BAND}, idle=120), True),
        (situation({RELAY, IN_BAND}, idle=1e6, moved=True), False),
        (situation({RELAY}, idle=1e6), False),
    ],
)
def test_hopeless_is_only_what_has_no_way_left(now: Situation, expected: bool) -> None:
    assert hopeless(now, PATIENCE) is expected


situations = st.builds(
    situation, st.frozensets(st.sampled_from(Route)), st.frozensets(st.sampled_from(STREAMS)),
    idle=st.floats(0, 1e9), moved=st.booleans(),
)  # fmt: skip


@given(situations)
def test_choice_never_is_excluded_or_resting_and_never_replaces_a_swarm_that_moves(now: Situation) -> None:
    stream = choose(now, PATIENCE)
    assert stream is None or (stream in STREAMS and stream not in now.excluded and stream not in now.resting)
    if stream is not None and SWARM not in now.excluded:
        assert now.idle >= PATIENCE.first
    if hopeless(now, PATIENCE):
        assert stream is None


@given(st.integers(1, 10_000), st.sampled_from(STREAMS))
def test_rest_grows_with_failures_up_to_its_bound(failures: int, route: Route) -> None:
    assert PATIENCE.rest <= PATIENCE.after(failures, route) <= PATIENCE.after(failures + 1, route) <= PATIENCE.most


def test_in_band_is_refused_where_it_is_too_large_or_too_slow_in_words_with_figures() -> None:
    assert too_large_for_in_band(2_000_000, 2_000_000) is None
    assert "2000001" in str(too_large_for_in_band(2_000_001, 2_000_000))
    assert too_slow(1_000, 0.0, 5) is None
    assert too_slow(50_000, 10_000.0, 5) is None
    assert "2.0 kB/s" in str(too_slow(36_000_000, 2_000.0, 3_600))
