"""Shares: dealt evenly, and never in anybody's way."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from slixmpp_bt import shares
from slixmpp_bt.messages import Share
from slixmpp_bt.shares import WHOLE, Turns, deal, own

SENDER = 1
#: Seconds between two looks.
TICK = 0.1


@given(st.integers(1, 40), st.integers(0, 300))
def test_deal_gives_each_piece_to_one_receiver_and_evenly(receivers: int, pieces: int) -> None:
    dealt = deal(range(receivers))
    parts = [own(share, range(pieces)) for share in dealt.values()]
    assert sorted(piece for part in parts for piece in part) == list(range(pieces))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_deal_to_one_gives_everything_and_to_nobody_nothing() -> None:
    assert deal(["one"]) == {"one": WHOLE}
    assert deal([]) == {}


def turns(share: Share, pieces: int) -> Turns:
    return Turns(share, range(pieces), random.Random(1))


def test_turns_begin_with_the_own_share() -> None:
    one = turns(Share(1, 4), 12)
    assert one.closed == set(range(12)) - {1, 5, 9}
    assert one.look(range(12), [SENDER] * 12, 0, 0.0) == frozenset()


def test_turns_open_what_another_receiver_has() -> None:
    one = turns(Share(0, 2), 6)
    assert one.look(range(6), [1, 2, 1, 1, 1, 2], 0, 0.0) == {1, 5}
    assert one.look(range(6), [1, 2, 1, 1, 1, 2], 0, 0.1) == frozenset()


def test_turns_when_the_sender_is_connected_twice_open_nothing_for_that() -> None:
    one = turns(Share(0, 2), 6)
    assert one.look(range(6), [2] * 6, 0, 0.0) == frozenset()
    assert one.look(range(6), [2, 3, 2, 2, 2, 2], 0, 0.1) == {1}


def test_turns_when_the_sender_connects_again_open_nothing_for_that() -> None:
    one = turns(Share(0, 2), 6)
    assert one.look(range(6), [1, 1, 2, 1, 1, 1], 0, 0.0) == frozenset()
    assert one.look(range(6), [2, 2, 3, 2, 2, 2], 0, 0.1) == frozenset()
    assert one.look(range(6), [1, 1, 2, 1, 1, 1], 0, 0.2) == frozenset()
    assert one.look(range(6), [1, 2, 2, 1, 1, 1], 0, 0.3) == {1}


def test_turns_when_another_receiver_gets_its_last_piece_open_the_rest() -> None:
    one = turns(Share(0, 2), 6)
    assert one.look(range(6), [1, 1, 2, 1, 2, 2], 0, 0.0) == {5}
    assert one.look(range(6), [2, 2, 2, 2, 2, 2], 0, 0.1) == {1, 3}


def test_turns_when_the_sender_is_gone_open_what_anybody_has() -> None:
    assert turns(Share(0, 2), 4).look(range(4), [0, 1, 0, 0], 0, 0.0) == {1}


def test_turns_open_everything_when_no_byte_has_come_for_some_seconds() -> None:
    one = turns(Share(0, 2), 100)
    moments = [number * TICK for number in range(60)]
    opened = [one.look(range(100), [SENDER] * 100, 0, now) for now in moments]
    assert sum(map(len, opened)) == 50
    first = next(now for now, found in zip(moments, opened, strict=True) if found)
    assert shares._STILL <= first < shares._STILL + 2 * TICK


def test_turns_do_not_count_the_time_in_which_nobody_looked() -> None:
    one = turns(Share(0, 2), 100)
    assert one.look(range(100), [SENDER] * 100, 0, 0.0) == frozenset()
    assert one.look(range(100), [SENDER] * 100, 0, 1000.0) == frozenset()


def test_turns_with_nothing_left_take_some_of_the_rest_and_each_time_more() -> None:
    one, missing = turns(Share(0, 10), 1000), set(range(1000)) - own(Share(0, 10), range(1000))
    sizes, downloaded, now = [], 0, 0.0
    while one.closed:
        found = one.look(frozenset(missing), [SENDER] * 1000, downloaded, now)
        missing -= found
        downloaded, now = downloaded + 1, now + TICK
        if found:
            sizes.append(len(found))
    assert sizes == [8, 24, 72, 216, 580]


@given(
    share=st.integers(1, 9).flatmap(lambda count: st.builds(Share, st.integers(0, count - 1), st.just(count))),
    pieces=st.integers(1, 60),
    seen=st.lists(st.lists(st.integers(0, 4), max_size=70), max_size=30),
)
def test_turns_whatever_peers_claim_open_each_piece_once_and_only_missing_ones(
    share: Share, pieces: int, seen: list[list[int]]
) -> None:
    one, missing = turns(share, pieces), set(range(pieces))
    opened = own(share, missing)
    for number, peers in enumerate(seen):
        found = one.look(frozenset(missing), peers, number, number * TICK)
        assert found <= missing
        assert not found & opened
        opened |= found
        missing -= set(sorted(opened & missing)[:2])
    assert one.closed <= missing - opened


# A swarm in which each receiver fetches a piece from the sender, and one from others, at a time


@dataclass
class Receiver:
    turns: Turns
    missing: set[int]
    had: set[int] = field(default_factory=set)
    downloaded: int = 0
    alive: bool = True
    slowness: int = 1


class Swarm:
    """Time in steps; the sender gives `rate` pieces a step, each receiver as many to others as are asked for."""

    def __init__(self, count: int, pieces: int, seed: int, rate: int = 4) -> None:
        self.rng = random.Random(seed)
        self.pieces, self.rate, self.sent, self.steps = pieces, rate, 0, 0
        self.receivers = [
            Receiver(Turns(share, range(pieces), random.Random(seed + n)), set(range(pieces)))
            for n, share in deal(range(count)).items()
        ]

    def run(self) -> None:
        """Until all that are alive have everything."""
        while any(r.missing for r in self.receivers if r.alive):
            self.step()
            assert self.steps < 40 * self.pieces, "somebody waits for ever"

    def step(self) -> None:
        self.steps += 1
        alive = [r for r in self.receivers if r.alive]
        had = [set(r.had) for r in alive]
        for one in alive:
            peers = [SENDER + sum(piece in others for r, others in zip(alive, had, strict=True) if r is not one)
                     for piece in range(self.pieces)]  # fmt: skip
            one.turns.look(frozenset(one.missing), peers, one.downloaded, self.steps * TICK)
            self._fetch(one, [p for p in one.missing - one.turns.closed if peers[p] > SENDER][:3])
        asking = [r for r in alive if r.missing - r.turns.closed and self.steps % r.slowness == 0]
        for one in self.rng.sample(asking, min(self.rate, len(asking))):
            found = self.rng.choice(sorted(one.missing - one.turns.closed))
            self.sent += 1
            self._fetch(one, [found])

    @staticmethod
    def _fetch(one: Receiver, pieces: list[int]) -> None:
        one.missing -= set(pieces)
        one.had |= set(pieces)
        one.downloaded += len(pieces)


@settings(max_examples=15, deadline=None)
@given(count=st.integers(2, 8), pieces=st.integers(40, 200), seed=st.integers(0, 1000))
def test_swarm_of_equals_has_the_sender_upload_little_more_than_one_copy(count: int, pieces: int, seed: int) -> None:
    swarm = Swarm(count, pieces, seed)
    swarm.run()
    assert swarm.sent <= 1.5 * pieces + 8 * count


@settings(max_examples=15, deadline=None)
@given(count=st.integers(2, 6), pieces=st.integers(40, 120), seed=st.integers(0, 1000), gone=st.integers(0, 60))
def test_swarm_of_which_one_vanishes_with_its_share_completes(count: int, pieces: int, seed: int, gone: int) -> None:
    swarm = Swarm(count, pieces, seed)
    for _ in range(gone):
        swarm.step()
    swarm.receivers[seed % count].alive = False
    swarm.run()


@settings(max_examples=10, deadline=None)
@given(count=st.integers(2, 6), pieces=st.integers(60, 120), seed=st.integers(0, 1000))
def test_swarm_with_a_slow_one_does_not_wait_for_it(count: int, pieces: int, seed: int) -> None:
    swarm = Swarm(count, pieces, seed)
    slow = swarm.receivers[0]
    slow.slowness = 1_000_000
    while any(one.missing for one in swarm.receivers[1:]):
        swarm.step()
        assert swarm.steps < 10 * pieces
