"""Where the session listens, and which of that another side can use."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

from ...config import Endpoint
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
        self._ports: dict[Address, int] = {}
        self._failures: list[str] = []
        self._external: dict[int, Address] = {}
        self._mapped: int | None = None

    def succeeded(self, address: str, port: int) -> None:
        """A TCP socket listens."""
        self._ports[ip_address(address)] = port

    def failed(self, text: str) -> None:
        """A socket could not be opened; `text` names it and says why."""
        self._failures.append(text)

    def mapped(self, port: int) -> None:
        """The router forwards its TCP `port` to us."""
        self._mapped = port

    def seen_as(self, text: str) -> Candidate:
        """Others see this side at the address `text`; where they would have to dial."""
        address = ip_address(text)
        self._external[address.version] = address
        return Candidate(address, self.port(address))

    @property
    def anywhere(self) -> bool:
        """Whether there is a socket at all."""
        return bool(self._ports)

    @property
    def failure(self) -> str:
        """Why there is no socket, in words."""
        return "; ".join(self._failures) or "libtorrent opened no socket"

    def port(self, address: Address) -> int:
        """The port listened on for those who reach us at `address`."""
        if address in self._ports:
            return self._ports[address]
        family = [known for known in self._ports if known.version == address.version] or list(self._ports)
        outside = [known for known in family if not known.is_loopback] or family
        return self._ports[outside[0]] if outside else 0

    def candidates(self) -> tuple[Candidate, ...]:
        """The addresses to tell: IPv6 first, public before private ones; at most
        :data:`~slixmpp_bt.messages.MAX_CANDIDATES`."""
        found = [Candidate(address, port) for address, port in self._ports.items() if self._tellable(address)]
        routed = [candidate for candidate in found if not candidate.address.is_link_local]
        found = routed or [candidate for candidate in found if candidate.address.version == 4]
        outside = self._external.get(4)
        if self._mapped and outside:
            found.append(Candidate(outside, self._mapped))
        found.sort(key=lambda candidate: (-candidate.address.version, not candidate.address.is_global))
        return tuple(dict.fromkeys(found))[:MAX_CANDIDATES]

    def _tellable(self, address: Address) -> bool:
        if address.is_unspecified or (address.is_loopback and address not in self._asked):
            return False
        return self._is_ours(address)
