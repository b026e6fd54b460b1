"""Downloads that the engine has forgotten to ask the hashes of."""

from __future__ import annotations

from itertools import pairwise

from slixmpp_bt.backends._libtorrent.nudging import _FIRST, _MOST, Nudge

TICK = 0.25


def moments(nudge: Nudge, seconds: float, downloaded: int = 1, *, moving: bool = False) -> list[float]:
    """When it is due, of looks at every tick."""
    looks = [number * TICK for number in range(int(seconds / TICK))]
    return [now for number, now in enumerate(looks) if nudge.due(downloaded + number * moving, 0, now)]


def test_nudge_while_bytes_come_is_never_due() -> None:
    assert moments(Nudge(), 100, moving=True) == []


def test_nudge_before_the_first_byte_is_never_due() -> None:
    assert moments(Nudge(), 100, 0) == []


def test_nudge_when_nothing_moves_is_due_ever_more_rarely() -> None:
    due = moments(Nudge(), 20_000)
    waits = [after - before for before, after in pairwise([0.0, *due])]
    assert waits[0] == _FIRST
    assert all(after in (2 * before, _MOST) for before, after in pairwise(waits))
    assert waits[-1] == _MOST


def test_nudge_after_a_piece_waits_again() -> None:
    nudge = Nudge()
    assert not nudge.due(5, 0, 0.0)
    assert not nudge.due(5, 1, _FIRST)
    assert not nudge.due(5, 1, 2 * _FIRST - TICK)
    assert nudge.due(5, 1, 2 * _FIRST)
