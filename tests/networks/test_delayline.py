"""benchmarks/network/delayline.py, without devices: what one direction does to packets."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.network.delayline import Direction


def line(delay: float = 0.0, loss: float = 0.0, rate: float = 0.0, queue: float = 1.0) -> Direction:
    return Direction(delay, loss, rate, queue, random.Random(1))


@given(
    delay=st.floats(0, 1),
    loss=st.floats(0, 1),
    rate=st.sampled_from([0.0, 100.0, 1e6]),
    steps=st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 1500)), max_size=50),
)
def test_packets_keep_order_arrive_once_and_never_early(
    delay: float, loss: float, rate: float, steps: list[tuple[float, int]]
) -> None:
    way, now, sent, arrived = line(delay, loss, rate), 0.0, {}, []
    for index, (pause, size) in enumerate(steps):
        now += pause
        packet = index.to_bytes(4, "big").ljust(size + 4, b"x")
        sent[packet] = now
        way.take(packet, now)
        for got in way.due(now):
            assert sent[got] + delay <= now
            arrived.append(got)
    arrived += way.due(float("inf"))
    assert way.next_at is None
    assert arrived == [packet for packet in sent if packet in set(arrived)]
    assert len(arrived) + way.lost == len(sent)


def test_packet_arrives_after_delay_and_not_before() -> None:
    way = line(delay=0.5)
    way.take(b"packet", 10.0)
    assert way.next_at == 10.5
    assert way.due(10.49) == []
    assert way.due(10.5) == [b"packet"]


def test_share_of_packets_is_lost() -> None:
    way = line(loss=0.25)
    for _ in range(4_000):
        way.take(b"packet", 0.0)
    assert 900 < way.lost < 1_100


def test_packets_wait_for_their_turn_at_rate() -> None:
    way = line(rate=1_000.0)
    for _ in range(3):
        way.take(bytes(100), 0.0)
    assert [len(way.due(now)) for now in (0.05, 0.11, 0.21, 0.31)] == [0, 1, 1, 1]


def test_packet_that_would_wait_too_long_is_lost() -> None:
    way = line(rate=1_000.0, queue=0.25)
    for _ in range(5):
        way.take(bytes(100), 0.0)
    assert (way.lost, len(way.due(10.0))) == (2, 3)
