"""The small internet lets through what it says, and nothing else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from .internet import DOMAIN, SERVICES, Host, Internet, Line
from .namespaces import Namespace

PORT = 5222
OTHER = 6881
#: Seconds that something which should get through may take, and for which something that should not is tried.
_PATIENCE, _BRIEF = 20.0, 0.5


class Listeners:
    """TCP and UDP sockets that are closed at the end."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def listen(self, where: Namespace, address: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        with where.inside():
            server = self._stack.enter_context(socket.socket(_family(address), kind))
        server.settimeout(_PATIENCE)
        server.bind((address, port))
        if kind == socket.SOCK_STREAM:
            server.listen()
        return server


@pytest.fixture
def listeners() -> Iterator[Listeners]:
    with ExitStack() as stack:
        yield Listeners(stack)


def reaches(host: Host, address: str, port: int) -> bool:
    """Whether a TCP connection from `host` is accepted at `address`."""
    return _connects(host, address, port, _PATIENCE)


def misses(host: Host, address: str, port: int) -> bool:
    """Whether a TCP connection from `host` to `address` is refused or lost on the way."""
    return not _connects(host, address, port, _BRIEF)


def _connects(host: Host, address: str, port: int, patience: float) -> bool:
    with host.namespace.inside(), socket.socket(_family(address)) as probe:
        probe.settimeout(patience)
        return probe.connect_ex((address, port)) == 0


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@pytest.mark.parametrize("version", [4, 6])
def test_open_hosts_reach_each_other_and_core(internet: Internet, listeners: Listeners, version: int) -> None:
    one, other = internet.attach(), internet.attach()
    service = SERVICES[version == 6]
    listeners.listen(internet.core, service, PORT)
    listeners.listen(other.namespace, other.address[version], PORT)
    assert reaches(one, service, PORT)
    assert reaches(one, other.address[version], PORT)


def test_host_behind_nat_gets_out_under_routers_address_and_nothing_gets_in(
    internet: Internet, listeners: Listeners
) -> None:
    home, outside = internet.attach(Line(nat=True)), internet.attach()
    server = listeners.listen(outside.namespace, outside.address[4], PORT)
    assert set(home.address) == {4}
    assert reaches(home, outside.address[4], PORT)
    connection, (seen, _) = server.accept()
    connection.close()
    assert seen != home.address[4]
    listeners.listen(home.namespace, home.address[4], PORT)
    assert misses(outside, seen, PORT)
    assert misses(outside, home.address[4], PORT)


def test_firewall_lets_only_named_ports_of_core_through(internet: Internet, listeners: Listeners) -> None:
    firm, outside = internet.attach(Line(ports=(PORT,))), internet.attach()
    for where, address in ((internet.core, SERVICES[0]), (internet.core, SERVICES[1])):
        listeners.listen(where, address, PORT)
        listeners.listen(where, address, OTHER)
    listeners.listen(outside.namespace, outside.address[4], PORT)
    listeners.listen(firm.namespace, firm.address[4], PORT)
    assert [reaches(firm, address, PORT) for address in SERVICES] == [True, True]
    assert [misses(firm, address, OTHER) for address in SERVICES] == [True, True]
    assert misses(firm, outside.address[4], PORT)
    assert misses(outside, firm.address[4], PORT)


@pytest.mark.parametrize("udp", [True, False], ids=["passes", "dropped"])
def test_udp_between_hosts_passes_unless_dropped(internet: Internet, listeners: Listeners, udp: bool) -> None:
    one, other = internet.attach(Line(udp=udp)), internet.attach()
    there = listeners.listen(other.namespace, other.address[4], PORT, socket.SOCK_DGRAM)
    here = listeners.listen(one.namespace, one.address[4], PORT, socket.SOCK_DGRAM)
    here.sendto(b"hello", there.getsockname())
    there.settimeout(_PATIENCE if udp else _BRIEF)
    if udp:
        assert there.recv(100) == b"hello"
    else:
        with pytest.raises(TimeoutError):
            there.recv(100)


@pytest.mark.parametrize("nat", [False, True], ids=["open", "home"])
def test_host_that_moves_has_other_addresses_and_a_way_out(internet: Internet, listeners: Listeners, nat: bool) -> None:
    host = internet.attach(Line(nat=nat))
    for service in SERVICES:
        listeners.listen(internet.core, service, PORT)
    before = dict(host.address)
    host.move()
    assert set(host.address) == set(before)
    assert not set(host.address.values()) & set(before.values())
    assert [reaches(host, SERVICES[version == 6], PORT) for version in host.address] == [True] * len(before)


def test_host_of_one_ip_version_has_no_way_to_other(internet: Internet, listeners: Listeners) -> None:
    for service in SERVICES:
        listeners.listen(internet.core, service, PORT)
    for version, line in ((4, Line(versions=(4,))), (6, Line(versions=(6,)))):
        host = internet.attach(line)
        assert reaches(host, SERVICES[version == 6], PORT)
        assert misses(host, SERVICES[version == 4], PORT)


def test_names_of_core_are_known_on_hosts(internet: Internet) -> None:
    known = internet.attach().namespace.run("getent", "ahosts", f"proxy.{DOMAIN}")
    assert all(service in known for service in SERVICES)


def test_far_line_loses_the_packets_that_it_should(internet: Internet, listeners: Listeners) -> None:
    near, far = internet.attach(), internet.attach(Line(delay=0.01, loss=1.0))
    listeners.listen(internet.core, SERVICES[0], PORT)
    assert reaches(near, SERVICES[0], PORT)
    assert misses(far, SERVICES[0], PORT)
