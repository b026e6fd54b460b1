"""A small internet: a core that routes, hosts on lines of their own, home routers with NAT, firewalls, distance.

::

    xmpp.test, in the core ── line ── host                     a public address of each IP version
                         └── line ── router ── host            NAT44 and no IPv6: the usual home

Each host has a line to the core, where a firewall may stand. Every address is one that Python counts as global, as the
library treats others differently; they are of the blocks that IANA gave to AS112 (RFC 7534, 7535), and no packet
leaves the namespaces.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.network import delayline

from .namespaces import Namespace

#: From where ``python -m`` finds modules.
ROOT = Path(__file__).parents[2]
#: The domain of the accounts; names below it stand in every host's ``/etc/hosts``.
DOMAIN = "xmpp.test"
#: Where the core's own services are.
SERVICES = ("192.31.196.1", "2620:4f:8000::1")
_HOSTS = "127.0.0.1 localhost\n" + "".join(f"{address} {DOMAIN} proxy.{DOMAIN}\n" for address in SERVICES)
_V4 = "192.175.48.{}"
_V6 = "2620:4f:8000:{:x}::{:x}"
#: Addresses of each line: so many fit into a /24 of lines.
_WIDTH = 16
#: What most home routers give out, so two homes look like one.
_HOME = "192.168.1.{}"
_PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Line:
    """How a host is joined to the core.

    :ivar versions: the IP versions it has.
    :ivar nat: behind a home router: a private IPv4 address, nothing gets in that did not come out, no IPv6.
    :ivar udp: whether UDP passes.
    :ivar ports: of the core's services, the only TCP ports that may be reached; nothing else passes. None: all does.
    :ivar delay: of a packet in each direction, in seconds.
    :ivar loss: the share of packets lost in each direction, from 0 to 1.
    """

    versions: tuple[int, ...] = (4, 6)
    nat: bool = False
    udp: bool = True
    ports: tuple[int, ...] | None = None
    delay: float = 0.0
    loss: float = 0.0


class Host:
    """A machine at the end of a line; made by :meth:`Internet.attach`.

    :ivar namespace: its network.
    :ivar address: its address of each IP version, as it sees it itself.
    """

    def __init__(self, namespace: Namespace, line: Line, index: int) -> None:
        self.namespace = namespace
        self.line = line
        self._index = index
        self._last = 1
        self.address: dict[int, str] = {}

    def command(self, *words: str) -> list[str]:
        """The command that runs `words` on this host."""
        return self.namespace.command(*words)

    def move(self) -> None:
        """Lose the addresses and get others, as a laptop does that joins another network. Connections die silently."""
        self._last += 1
        self.namespace.ip("link set eth0 down", "addr flush dev eth0")
        self.connect()

    def connect(self) -> None:
        """Bring the line up, with the addresses that come next."""
        versions = (4,) if self.line.nat else self.line.versions
        lines, gateways = ["link set eth0 up"], {}
        if 4 in versions and self.line.nat:
            # The hosts of two homes have different last numbers: what is dialled there is nobody, and not oneself.
            self.address[4], gateways[4] = _HOME.format(_WIDTH * self._index + self._last), _HOME.format(1)
            lines.append(f"addr add {self.address[4]}/24 dev eth0")
        elif 4 in versions:
            self.address[4], gateways[4] = _v4(self._index, 1 + self._last), _v4(self._index, 1)
            lines.append(f"addr add {self.address[4]}/28 dev eth0")
        if 6 in versions:
            self.address[6], gateways[6] = _v6(self._index, 1 + self._last), _v6(self._index, 1)
            lines.append(f"addr add {self.address[6]}/64 dev eth0 nodad")
        lines += [f"route replace default via {gateway} dev eth0" for gateway in gateways.values()]
        self.namespace.ip(*lines)


class Internet:
    """The core, with :data:`SERVICES` as its addresses. A context manager: all is gone afterwards.

    :ivar core: the network in which a server's process belongs.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._hosts = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.core = stack.enter_context(_router())
            self.core.ip(f"addr add {SERVICES[0]}/32 dev lo", f"addr add {SERVICES[1]}/128 dev lo nodad")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def attach(self, line: Line = Line()) -> Host:
        """Make a host and join it to the core."""
        self._hosts += 1
        index, port = self._hosts, f"line{self._hosts}"
        host = Host(self._stack.enter_context(Namespace(_HOSTS)), line, index)
        end = host.namespace
        if line.nat:
            end = self._stack.enter_context(_router())
        self._join(port, end, line)
        self.core.ip(
            f"link set {port} up",
            f"addr add {_v4(index, 1)}/28 dev {port}",
            f"addr add {_v6(index, 1)}/64 dev {port} nodad",
        )
        if line.nat:
            _translate(end, host.namespace, index)
        self._guard(port, line)
        host.connect()
        return host

    def _join(self, port: str, end: Namespace, line: Line) -> None:
        """A device `port` in the core, and ``eth0`` in `end`, down."""
        if line.delay or line.loss:
            self._stack.enter_context(_distance(self.core, port, end, line))
        else:
            self.core.ip(f"link add {port} type veth peer name eth0 netns {end.pid}")

    def _guard(self, port: str, line: Line) -> None:
        """The firewall of a line stands in the core, out of the host's reach."""
        if not line.udp:
            self.core.iptables(f"-A FORWARD -i {port} -p udp -j DROP", f"-A FORWARD -o {port} -p udp -j DROP")
        if line.ports is not None:
            allowed = ",".join(map(str, line.ports))
            # IPv6 finds its neighbours by ICMP.
            self.core.iptables(f"-A INPUT -i {port} -p icmpv6 -j ACCEPT", versions=(6,))
            self.core.iptables(
                f"-A INPUT -i {port} -p tcp -m multiport --dports {allowed} -j ACCEPT",
                f"-A INPUT -i {port} -j DROP",
                f"-A FORWARD -i {port} -j DROP",
                f"-A FORWARD -o {port} -j DROP",
            )


def _v4(line: int, host: int) -> str:
    return _V4.format(_WIDTH * line + host)


def _v6(line: int, host: int) -> str:
    return _V6.format(line, host)


@contextmanager
def _router() -> Iterator[Namespace]:
    with Namespace() as namespace:
        namespace.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        yield namespace


def _translate(router: Namespace, host: Namespace, index: int) -> None:
    """Make a home router, whose ``eth0`` is its line, and join `host` to it."""
    router.ip(
        f"link add home type veth peer name eth0 netns {host.pid}",
        "link set eth0 up",
        "link set home up",
        f"addr add {_v4(index, 2)}/28 dev eth0",
        f"addr add {_HOME.format(1)}/24 dev home",
        f"route add default via {_v4(index, 1)}",
    )
    router.iptables(
        "-t nat -A POSTROUTING -o eth0 -j MASQUERADE",
        "-A FORWARD -i eth0 -m conntrack ! --ctstate ESTABLISHED,RELATED -j DROP",
        "-A INPUT -i eth0 -m conntrack ! --ctstate ESTABLISHED,RELATED -j DROP",
        versions=(4,),
    )


@contextmanager
def _distance(core: Namespace, port: str, end: Namespace, line: Line) -> Iterator[None]:
    """A line on which packets take their time and get lost."""
    command = [sys.executable, "-m", delayline.__name__, f"{core.path}={port}", f"{end.path}=eth0"]
    command += ["--delay", str(line.delay), "--loss", str(line.loss)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError("the delay line did not start")
        yield
    finally:
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_PATIENCE)  # the end of its input
        process.kill()
        process.wait()
