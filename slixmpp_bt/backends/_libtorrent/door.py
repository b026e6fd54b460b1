"""Hangs up on who begins a TLS handshake with the engine and does not finish it.

libtorrent waits for them without end and gives no hold on them, and each keeps a descriptor: a process that has none
left can open neither a file nor a connection. So they are looked for among the sockets of the process.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

Address = tuple[str, int]

#: Seconds that a handshake may take, and how many may be under way at once; of more the oldest go.
PATIENCE, MOST = 10.0, 64
#: Where the system lists the descriptors of the process; elsewhere nothing is done.
_TABLE = Path("/proc/self/fd")


class Door:
    """Watches the ports for sealed offers. Use :meth:`look` every second or so, and :meth:`close` in the end."""

    def __init__(self) -> None:
        self._since: dict[Address, float] = {}
        # Without one to spare the table could not be read when it matters.
        self._spare = os.open(os.devnull, os.O_RDONLY)

    def close(self) -> None:
        """Let go of what it holds."""
        os.close(self._spare)

    def look(self, ports: Collection[int], members: Collection[Address], now: float) -> int:
        """Hang up on those who called too long ago and are no members yet, and return on how many. Takes some 10 µs
        for each descriptor of the process.

        :param ports: where sealed offers are served.
        :param members: the peers that have finished a handshake.
        :param now: in seconds, of a clock that only goes forward.
        """
        calling = {peer: number for number, peer in self._callers(ports) if peer not in members}
        self._since = {peer: self._since.get(peer, now) for peer in calling}
        oldest = sorted(self._since, key=self._since.__getitem__)
        late = {peer for peer in oldest if now - self._since[peer] > PATIENCE}
        late.update(oldest[: max(0, len(oldest) - MOST)])
        for peer in late:
            _hang_up(calling[peer], peer)
        return len(late)

    def _callers(self, ports: Collection[int]) -> Iterator[tuple[int, Address]]:
        for number in self._descriptors():
            peer = _caller(number, ports)
            if peer is not None:
                yield number, peer

    def _descriptors(self) -> list[int]:
        os.close(self._spare)
        try:
            return [int(entry.name) for entry in _TABLE.iterdir()] if _TABLE.is_dir() else []
        finally:
            self._spare = os.open(os.devnull, os.O_RDONLY)


def _caller(number: int, ports: Collection[int]) -> Address | None:
    """Who called at one of `ports`, if that is what a descriptor is."""
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            return None
        found = socket.socket(fileno=number)
    except OSError:  # closed meanwhile
        return None
    try:
        if found.family not in (socket.AF_INET, socket.AF_INET6) or found.getsockname()[1] not in ports:
            return None
        host, port, *_ = found.getpeername()
        return host.partition("%")[0], port
    except OSError:  # it listens
        return None
    finally:
        found.detach()


def _hang_up(number: int, peer: Address) -> None:
    """End a connection that the engine owns; the engine then closes it."""
    try:
        found = socket.socket(fileno=number)
    except OSError:
        return
    try:
        host, port, *_ = found.getpeername()
        if (host.partition("%")[0], port) == peer:  # and not another one that has its number now
            found.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    finally:
        found.detach()
