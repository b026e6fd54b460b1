"""A line between two network namespaces on which packets take their time, get lost, or wait for a turn.

For kernels without netem. Usage::

    python -m benchmarks.network.delayline /run/netns/a=eth0 /run/netns/b=eth0 --delay 0.05 --loss 0.01

It makes a TUN device in each namespace (the path may be any handle of one, such as ``/proc/PID/ns/net``), prints
``ready``, and passes packets from each to the other until its standard input ends. The devices are down and without
addresses; who runs it gives them both. Needs root and ``/dev/net/tun``. Packets keep their order.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import random
import selectors
import struct
import sys
import time
from collections import deque
from pathlib import Path

# linux/if_tun.h, sched.h
_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_CLONE_NEWNET = 0x40000000
#: The largest packet read; a device's MTU is below it.
_MTU = 65_535
#: Packets read at once, so that neither direction starves the other.
_BURST = 64

_libc = ctypes.CDLL(None, use_errno=True)


class Direction:
    """One way of the line: a packet leaves `delay` seconds after the last bit of it was taken at `rate`.

    :param delay: in seconds.
    :param loss: the share of packets that are lost, from 0 to 1.
    :param rate: bytes per second; 0 for no limit.
    :param queue: seconds that a packet may have to wait for its turn at `rate`; one that would wait longer is lost.
    """

    def __init__(self, delay: float, loss: float, rate: float, queue: float, rng: random.Random) -> None:
        self.lost = 0
        self._delay = delay
        self._loss = loss
        self._rate = rate
        self._queue = queue
        self._rng = rng
        self._free_at = 0.0
        self._packets: deque[tuple[float, bytes]] = deque()

    def take(self, packet: bytes, now: float) -> None:
        """A packet enters."""
        waits = max(0.0, self._free_at - now)
        if self._rng.random() < self._loss or (self._rate and waits > self._queue):
            self.lost += 1
            return
        leaves = now + waits + (len(packet) / self._rate if self._rate else 0.0)
        self._free_at = leaves
        self._packets.append((leaves + self._delay, packet))

    def due(self, now: float) -> list[bytes]:
        """The packets that arrive by `now`, in order."""
        arrived = []
        while self._packets and self._packets[0][0] <= now:
            arrived.append(self._packets.popleft()[1])
        return arrived

    @property
    def next_at(self) -> float | None:
        """When the next packet arrives."""
        return self._packets[0][0] if self._packets else None


def open_tun(namespace: Path, device: str) -> int:
    """Make the TUN device `device` in the network `namespace`; its file descriptor, which does not block.

    :raises OSError: it is not allowed, or there is such a device.
    """
    with Path("/proc/thread-self/ns/net").open() as home, namespace.open() as there:
        _enter(there.fileno())
        try:
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _IFF_TUN | _IFF_NO_PI))
        finally:
            _enter(home.fileno())
    return fd


def _enter(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def pump(ends: tuple[int, int], ways: tuple[Direction, Direction], stop: int) -> None:
    """Pass packets from ``ends[0]`` to ``ends[1]`` by ``ways[0]``, and back by ``ways[1]``, until `stop` is at its
    end."""
    with selectors.DefaultSelector() as selector:
        selector.register(stop, selectors.EVENT_READ)
        for end, way in zip(ends, ways, strict=True):
            selector.register(end, selectors.EVENT_READ, way)
        while True:
            times = [at for way in ways if (at := way.next_at) is not None]
            for key, _ in selector.select(max(0.0, min(times) - time.monotonic()) if times else None):
                if key.fd == stop:
                    if not os.read(stop, 4096):
                        return
                else:
                    _drain(key.fd, key.data)
            for way, out in zip(ways, reversed(ends), strict=True):
                _deliver(way, out)


def _drain(end: int, way: Direction) -> None:
    for _ in range(_BURST):
        try:
            packet = os.read(end, _MTU)
        except OSError:  # nothing more, or the device is down
            return
        way.take(packet, time.monotonic())


def _deliver(way: Direction, out: int) -> None:
    for packet in way.due(time.monotonic()):
        try:
            os.write(out, packet)
        except OSError:  # a device that is full or down loses packets, as a router does
            way.lost += 1


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ends", nargs=2, metavar="NAMESPACE=DEVICE")
    parser.add_argument("--delay", type=float, default=0.0, help="of each direction, in seconds")
    parser.add_argument("--loss", type=float, default=0.0, help="share of packets lost in each direction, 0 to 1")
    parser.add_argument("--rate", type=float, default=0.0, help="bytes per second in each direction; 0 for no limit")
    parser.add_argument("--queue", type=float, default=0.1, help="seconds of packets that wait for their turn")
    parser.add_argument("--seed", type=int, default=1, help="which packets are lost")
    options = parser.parse_args()
    first, second = (end.rpartition("=") for end in options.ends)
    ends = open_tun(Path(first[0]), first[2]), open_tun(Path(second[0]), second[2])
    ways = tuple(
        Direction(options.delay, options.loss, options.rate, options.queue, random.Random(f"{options.seed} {way}"))
        for way in ("there", "back")
    )
    print("ready", flush=True)
    pump(ends, (ways[0], ways[1]), sys.stdin.fileno())


if __name__ == "__main__":
    main()
