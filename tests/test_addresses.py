"""Addresses: what is told, what is dialled, and what the user hears when two sides cannot meet."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slixmpp_bt import addresses
from slixmpp_bt.config import Endpoint
from slixmpp_bt.messages import MAX_CANDIDATES, MAX_PEERS, Candidate


def at(*texts: str) -> tuple[Candidate, ...]:
    """Candidates from ``host`` (port 6881) or ``host port``."""
    return tuple(Candidate(ip_address(host), int(port or 6881)) for host, _, port in (t.partition(" ") for t in texts))


def endpoints(*texts: str) -> tuple[Endpoint, ...]:
    return tuple(Endpoint.parse(text) for text in texts)


NEVER = [
    "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "127.0.0.1", "127.1.2.3",
    "169.254.7.7", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:0.0.0.0", "::ffff:224.0.0.1",
    "::ffff:255.255.255.255", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1", "2001:0:7f00:1::1", "ff02::1",
    "ff0e::1", "fe80::1", "fe80::1%2", "4000::1", "2a00::1%2",
]  # fmt: skip
ALWAYS = ["10.0.0.1", "192.168.1.255", "100.64.0.1", "8.8.8.8", "2a00::1", "fd12::1", "2001:db8::1", "198.51.100.4"]


@pytest.mark.parametrize("address", NEVER)
def test_acceptable_of_an_address_that_names_no_host_elsewhere_drops_it(address: str) -> None:
    assert addresses.acceptable(at(address), at("192.168.1.2", "2a00::2")) == ()
    assert addresses.acceptable(at(address), ()) == ()


@pytest.mark.parametrize("address", ALWAYS)
def test_acceptable_of_an_ordinary_address_keeps_it(address: str) -> None:
    assert addresses.acceptable(at(address), ()) == at(address)


@pytest.mark.parametrize("port", [-1, 0, 65_536])
def test_acceptable_of_a_port_that_is_none_drops_it(port: int) -> None:
    assert addresses.acceptable([Candidate(ip_address("8.8.8.8"), port)], ()) == ()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_acceptable_of_loopback_for_who_listens_on_loopback_keeps_it(address: str) -> None:
    assert len(addresses.acceptable(at(f"{address} 9"), at("127.0.0.1 8"))) == 1


def test_acceptable_of_link_local_needs_one_of_the_same_family() -> None:
    theirs = at("169.254.7.7", "fe80::7")
    assert addresses.acceptable(theirs, at("169.254.1.1")) == at("169.254.7.7")
    assert addresses.acceptable(theirs, at("fe80::1")) == at("fe80::7")


def test_acceptable_of_mapped_addresses_gives_them_back_once_as_ipv4() -> None:
    assert addresses.acceptable(at("::ffff:8.8.8.8", "8.8.8.8"), ()) == at("8.8.8.8")


def test_acceptable_of_this_sides_own_candidates_drops_them() -> None:
    own = at("192.168.1.2 6881")
    assert addresses.acceptable(at("192.168.1.2 6881", "::ffff:192.168.1.2", "192.168.1.2 6882"), own) == at(
        "192.168.1.2 6882"
    )


def test_acceptable_of_many_keeps_the_first_ones_in_order() -> None:
    theirs = at(*(f"198.51.100.{n}" for n in range(1, 80)))
    assert addresses.acceptable(theirs, ()) == theirs[:MAX_CANDIDATES]
    assert addresses.acceptable(theirs, (), most=MAX_PEERS) == theirs[:MAX_PEERS]


def test_acceptable_counts_only_what_it_keeps() -> None:
    assert addresses.acceptable(at(*["127.0.0.1"] * 20, "8.8.8.8"), ()) == at("8.8.8.8")


def test_own_orders_by_promise() -> None:
    listening = at("127.0.0.1", "192.168.1.2", "fd00::2", "203.0.113.9", "8.8.4.4", "2a00::2", "169.254.1.1", "::1")
    told = addresses.own(listening, endpoints("198.51.100.1:7000", "[2a00::3]:7000"), at("9.9.9.9", "2a00::4"))
    assert told == at(
        "2a00::2", "2a00::3 7000", "2a00::4", "198.51.100.1 7000", "9.9.9.9", "8.8.4.4", "fd00::2", "192.168.1.2"
    )  # fmt: skip


def test_own_with_an_advertised_port_zero_uses_the_port_of_the_family() -> None:
    listening = at("192.168.1.2 1111", "2a00::2 2222")
    told = addresses.own(listening, endpoints("198.51.100.1", "2a00::3"), ())
    assert set(told) >= set(at("198.51.100.1 1111", "2a00::3 2222"))


def test_own_with_an_advertised_port_zero_falls_back_to_the_other_family() -> None:
    assert at("198.51.100.1 2222")[0] in addresses.own(at("2a00::2 2222"), endpoints("198.51.100.1"), ())
    assert addresses.own((), endpoints("198.51.100.1"), ()) == ()


def test_own_tells_loopback_only_where_nothing_else_is_listened_on() -> None:
    assert addresses.own(at("127.0.0.1", "::1"), (), ()) == at("::1", "127.0.0.1")
    assert addresses.own(at("127.0.0.1", "10.0.0.1"), (), ()) == at("10.0.0.1")
    assert addresses.own(at("127.0.0.1"), endpoints("198.51.100.1:7000"), ()) == at("198.51.100.1 7000", "127.0.0.1")


def test_own_believes_few_reported_addresses_and_no_local_ones() -> None:
    reported = at("127.0.0.1", "fe80::1", "0.0.0.0", *(f"9.9.9.{n}" for n in range(1, 20)))
    told = addresses.own(at("192.168.1.2"), (), reported)
    assert told == (*at("9.9.9.1", "9.9.9.2", "9.9.9.3"), *at("192.168.1.2"))


def test_own_of_the_same_address_from_several_sources_tells_it_once() -> None:
    assert addresses.own(at("8.8.4.4"), endpoints("8.8.4.4:6881"), at("::ffff:8.8.4.4")) == at("8.8.4.4")


MEETING: list[tuple[tuple[str, ...], tuple[str, ...], str | None]] = [
    (("10.0.0.1",), (), "named no address"),
    ((), (), "named no address"),
    ((), ("8.8.8.8",), None),
    (("8.8.8.8",), ("2a00::1",), "this side has only IPv4 addresses and the other side only IPv6"),
    (("2a00::1", "fd00::1"), ("10.0.0.1",), "this side has only IPv6 addresses and the other side only IPv4"),
    (("2a00::1", "10.0.0.1"), ("8.8.8.8",), None),
    (("10.0.0.1",), ("8.8.8.8",), None),
    (("8.8.8.8",), ("10.0.0.1",), None),
    (("192.168.1.2",), ("192.168.1.77",), None),
    (("192.168.1.2",), ("192.168.7.2",), "private addresses"),
    (("10.0.0.1", "192.168.1.2"), ("172.17.0.1", "192.168.1.9"), None),
    (("fd00::1",), ("fd00::2",), None),
    (("fd00::1",), ("fd00:0:0:1::1",), "private addresses"),
    (("fd00::1", "2a00::1"), ("10.0.0.1", "fd00:1::1"), None),
    (("127.0.0.1 1",), ("127.0.0.1 2",), None),
    (("127.0.0.1",), ("10.0.0.1",), "this side listens only on its own machine"),
    (("8.8.8.8",), ("127.0.0.1",), "the other side listens only on its own machine"),
    (("8.8.8.8",), ("::ffff:9.9.9.9",), None),
]


@pytest.mark.parametrize(("ours", "theirs", "words"), MEETING)
def test_explain_says_what_is_in_the_way(ours: tuple[str, ...], theirs: tuple[str, ...], words: str | None) -> None:
    said = addresses.explain(at(*ours), at(*theirs))
    assert said is None if words is None else words in (said or "")


# For any addresses --------------------------------------------------------------------------------------------------

special = st.sampled_from([*NEVER, *ALWAYS]).map(ip_address)
hosts: st.SearchStrategy[IPv4Address | IPv6Address] = st.ip_addresses() | special
candidates = st.builds(Candidate, hosts, st.integers(0, 65_535))
several = st.lists(candidates, max_size=20)
configured = st.lists(st.builds(Endpoint, hosts, st.integers(0, 65_535)), max_size=4)


def unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    return getattr(address, "ipv4_mapped", None) or address


@given(several, several)
@settings(deadline=None)
def test_acceptable_of_anything_is_bounded_dialable_and_stable(theirs: list[Candidate], own: list[Candidate]) -> None:
    kept = addresses.acceptable(theirs, own)
    assert len(kept) == len(set(kept)) <= MAX_CANDIDATES
    assert addresses.acceptable(kept, own) == kept
    for candidate in kept:
        address = candidate.address
        assert candidate.port
        assert not address.is_unspecified
        assert not address.is_multicast
        assert not address.is_reserved or address.is_loopback
        assert unmapped(address) == address
    if not any(unmapped(candidate.address).is_loopback for candidate in own):
        assert not any(candidate.address.is_loopback for candidate in kept)
    assert not {(unmapped(c.address), c.port) for c in own} & {(c.address, c.port) for c in kept}


@given(several, configured, several)
@settings(deadline=None)
def test_own_of_anything_is_bounded_and_dialable(
    listening: list[Candidate], advertise: list[Endpoint], learnt: list[Candidate]
) -> None:
    told = addresses.own(listening, advertise, learnt)
    assert len(told) == len(set(told)) <= MAX_CANDIDATES
    assert all(1 <= c.port <= 65_535 and not c.address.is_multicast and not c.address.is_unspecified for c in told)
    is_global_v6 = [c.address.version == 6 and c.address.is_global for c in told]
    assert is_global_v6 == sorted(is_global_v6, reverse=True)


@given(several, several)
@settings(deadline=None)
def test_explain_of_anything_names_the_same_obstacle_from_both_sides(
    ours: list[Candidate], theirs: list[Candidate]
) -> None:
    if ours and theirs:
        assert (addresses.explain(ours, theirs) is None) == (addresses.explain(theirs, ours) is None)
