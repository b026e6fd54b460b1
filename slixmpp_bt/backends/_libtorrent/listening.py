"""Where the session listens, and which of that another side can use."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

from ...config import Endpoint
from ...constants import Mode
from ...messages import MAX_CANDIDATES, Candidate

Address = IPv4Address | IPv6Address


def is_ours(address: Address) -> bool:
    """Whether an interface still has this address: the engine tells of new ones, not of those that went."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True


class Listening:
    """Collects what the alerts say about sockets, mapped ports and the address that others see."""

    def __init__(self, listen: Iterable[Endpoint], is_ours: Callable[[Address], bool] = is_ours) -> None:
        self._is_ours = is_ours
        self._asked = frozenset(endpoint.address for endpoint in listen)
        self._ports: dict[Mode, dict[Address, int]] = {mode: {} for mode in Mode}
        self._failures: dict[str, None] = {}
        self._external: dict[int, Address] = {}
        self._mapped: dict[object, int] = {}

    def succeeded(self, mode: Mode, address: str, port: int) -> None:
        """A TCP socket for offers of `mode` listens."""
        self._ports[mode][ip_address(address)] = port

    def failed(self, text: str) -> None:
        """A socket could not be opened; `text` names it and says why."""
        self._failures[text] = None

    def mapped(self, mapping: object, port: int) -> None:
        """By `mapping` the router forwards its TCP `port` to one of our sockets."""
        self._mapped[mapping] = port

    def seen_as(self, text: str) -> Address:
        """Others see this side at the address `text`."""
        address = ip_address(text)
        self._external[address.version] = address
        return address

    @property
    def complete(self) -> bool:
        """Whether there is a socket for every mode."""
        return all(self._ports.values())

    @property
    def failure(self) -> str:
        """Why there is no socket, in words."""
        return "; ".join(self._failures) or "libtorrent opened no socket"

    def ports(self, mode: Mode) -> frozenset[int]:
        """Every port listened on for offers of `mode`."""
        return frozenset(self._ports[mode].values())

    def port(self, mode: Mode, address: Address) -> int:
        """The port listened on, for offers of `mode`, for those who reach us at `address`."""
        ports = self._ports[mode]
        if address in ports:
            return ports[address]
        family = [known for known in ports if known.version == address.version] or list(ports)
        outside = [known for known in family if not known.is_loopback] or family
        return ports[outside[0]] if outside else 0

    def candidates(self, mode: Mode) -> tuple[Candidate, ...]:
        """The addresses to tell for offers of `mode`: IPv6 first, public before private ones; at most
        :data:`~slixmpp_bt.messages.MAX_CANDIDATES`."""
        found = [Candidate(address, port) for address, port in self._ports[mode].items() if self._tellable(address)]
        routed = [candidate for candidate in found if not candidate.address.is_link_local]
        found = routed or [candidate for candidate in found if candidate.address.version == 4]
        outside = self._external.get(4)
        if outside:
            found += [Candidate(outside, port) for port in self._mapped.values() if self._may_lead_to(mode, port)]
        found.sort(key=lambda candidate: (-candidate.address.version, not candidate.address.is_global))
        return tuple(dict.fromkeys(found))[:MAX_CANDIDATES]

    def _may_lead_to(self, mode: Mode, port: int) -> bool:
        """Whether what the router forwards as `port` may be for `mode`. The engine does not tell for which socket it
        is; routers mostly grant the same number as inside."""
        return not any(port in ports.values() for other, ports in self._ports.items() if other is not mode)

    def _tellable(self, address: Address) -> bool:
        if address.is_unspecified or (address.is_loopback and address not in self._asked):
            return False
        return self._is_ours(address)
