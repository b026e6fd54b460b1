"""Addresses that a peer names, from the stanza to what is dialled."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from xml.etree.ElementTree import Element, SubElement

from hypothesis import given
from hypothesis import strategies as st

from slixmpp_bt import stanza
from slixmpp_bt.addresses import acceptable, explain
from slixmpp_bt.constants import NS
from slixmpp_bt.errors import ProtocolError
from slixmpp_bt.messages import Candidate, Peers
from slixmpp_bt.streams.proxies import BYTESTREAMS, streamhosts

from . import cursory, patient

WRITTEN = [
    "127.0.0.1", "127.1", "0.0.0.0", "0", "2130706433", "0x7f.1", "0177.0.0.1", "::", "::1", "::ffff:127.0.0.1",
    "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::", "fe80::1", "fe80::1%eth0", "fe80::1%25lo",
    "ff02::1", "224.0.0.1", "239.255.255.250", "255.255.255.255", "240.0.0.1", "169.254.169.254", "192.168.1.255",
    "10.0.0.1", "100.64.0.1", "example.org", "localhost", "127.0.0.1:22", "[::1]", " 127.0.0.1", "127.0.0.1\n",
    "\u0661\u0662\u0667.0.0.1", "", "::ffff:0:0",
]  # fmt: skip
PORTS = ["1", "22", "6881", "65535", "0", "-1", "65536", "+80", "0x50", "80 ", "\u0668\u0660", ""]
written = st.sampled_from(WRITTEN) | st.ip_addresses().map(str) | st.text(max_size=20)
ports = st.sampled_from(PORTS) | st.text(max_size=6)
pairs = st.lists(st.tuples(written, ports), max_size=70)
own = st.sampled_from([(), ("127.0.0.1",), ("192.0.2.7",), ("fe80::2", "192.168.1.5"), ("::1", "2001:db8::1")])


def is_safe(candidate: Candidate, here: list[Candidate]) -> bool:
    """Whether it is one host, not this one unless it listens there, written as what it is."""
    address: IPv4Address | IPv6Address = candidate.address
    assert getattr(address, "ipv4_mapped", None) is None
    if address.is_loopback:
        return any(one.address.is_loopback for one in here)
    if address.is_link_local:
        return any(one.address.is_link_local and one.address.version == address.version for one in here)
    hidden = isinstance(address, IPv6Address) and (address.sixtofour or address.teredo or address.scope_id)
    return not (address.is_unspecified or address.is_multicast or address.is_reserved or hidden)


@patient
@given(pairs, own)
@cursory
def test_candidates_of_anything_are_refused_or_safe_to_dial(
    named: list[tuple[str, str]], listening: tuple[str, ...]
) -> None:
    peers = Element(f"{{{NS}}}peers", {"id": "o", "transfer": "t"})
    joined = SubElement(peers, f"{{{NS}}}joined")
    for address, port in named:
        for parent in (peers, joined):
            SubElement(parent, f"{{{NS}}}candidate", {"address": address, "port": port})
    here = [Candidate(ip_address(address), 6881) for address in listening]
    try:
        message = stanza.parse(peers)
    except ProtocolError:
        return
    assert isinstance(message, Peers)
    fit = acceptable((*message.joined, *message.left), here)
    assert len(fit) <= 8
    assert len(set(fit)) == len(fit)
    assert all(is_safe(candidate, here) and 1 <= candidate.port <= 65_535 for candidate in fit)
    explain(here, fit)


@patient
@given(
    st.lists(st.tuples(written, ports, st.sampled_from(["p.example", "", "@", "a@b/c", "/", "x" * 5_000])), max_size=9)
)
@cursory
def test_streamhosts_of_anything_are_well_formed_or_left_out(named: list[tuple[str, str, str]]) -> None:
    query = Element(f"{BYTESTREAMS}query")
    for host, port, jid in named:
        SubElement(query, f"{BYTESTREAMS}streamhost", {"host": host, "port": port, "jid": jid})
    for found in streamhosts(query):
        assert 1 <= found.port <= 65_535
        assert found.host
        assert found.jid.domain
