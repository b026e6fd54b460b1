"""Which addresses are told, which are dialled, and why two sides cannot meet (docs/protocol, section "Addresses").

Pure: what the backend listens on, what the user configured and what peers report comes in as arguments.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_network

from .config import Endpoint
from .messages import MAX_CANDIDATES, Candidate

#: So many addresses that peers report are told on: one of each family and a spare one. More would let them crowd out
#: what this side knows for itself.
MAX_LEARNT = 3

_THIS_NETWORK = IPv4Network("0.0.0.0/8")


def acceptable(
    candidates: Iterable[Candidate], own: Iterable[Candidate], *, most: int = MAX_CANDIDATES
) -> tuple[Candidate, ...]:
    """Those of a peer's candidates that may be dialled, in the peer's order, none twice and at most `most`.

    Never an unspecified, multicast, broadcast or reserved address, nor one inside a tunnel (6to4, Teredo), which could
    hide any of those. Loopback and link-local addresses only if this side has such candidates itself; its own
    candidates never. IPv4-mapped addresses are judged, and given back, as IPv4.
    """
    mine = {_normal(candidate) for candidate in own}
    loopback = any(candidate.address.is_loopback for candidate in mine)
    link_local = {candidate.address.version for candidate in mine if candidate.address.is_link_local}

    def fit(candidate: Candidate) -> bool:
        address = candidate.address
        if not _names_one_host(candidate) or candidate in mine:
            return False
        if address.is_loopback:
            return loopback
        return not address.is_link_local or address.version in link_local

    return _first((candidate for candidate in map(_normal, candidates) if fit(candidate)), most)


def own(
    listening: Iterable[Candidate], advertise: Iterable[Endpoint], learnt: Iterable[Candidate]
) -> tuple[Candidate, ...]:
    """This side's candidates, the most promising first, at most 8 and none twice.

    Global IPv6 addresses come first, then what is advertised, then what peers report (of that at most
    :data:`MAX_LEARNT`), then global IPv4, private, link-local and loopback addresses; among equals IPv6 first. A
    loopback address is told only where nothing but loopback is listened on.

    :param listening: addresses of the interfaces that the backend listens on.
    :param advertise: further addresses from the configuration; port 0 is the port listened on in that family, or in
        the other one, if there is any.
    :param learnt: what peers say this side's address is.
    """
    heard = [candidate for candidate in map(_normal, listening) if _names_one_host(candidate)]
    local_only = all(candidate.address.is_loopback for candidate in heard)
    heard = [candidate for candidate in heard if local_only or not candidate.address.is_loopback]
    reported = _first((c for c in map(_normal, learnt) if _names_one_host(c) and not _local(c)), MAX_LEARNT)
    ranked = [
        *((_rank(candidate), candidate) for candidate in heard),
        *((0 if _rank(candidate) == 0 else 1, candidate) for candidate in _advertised(advertise, heard)),
        *((0 if _rank(candidate) == 0 else 2, candidate) for candidate in reported),
    ]
    return _first(candidate for _, candidate in sorted(ranked, key=lambda pair: (pair[0], -pair[1].address.version)))


def explain(ours: Iterable[Candidate], theirs: Iterable[Candidate]) -> str | None:
    """Why two sides cannot meet, or hardly, as a sentence for ``Transfer.diagnosis``; None if nothing is in the way.

    :param ours: as :func:`own` gave them; empty says nothing, since this side can still dial.
    :param theirs: as the other side sent them.
    """
    here, there = {_normal(candidate) for candidate in ours}, {_normal(candidate) for candidate in theirs}
    if not there:
        return "the other side has named no address"
    if not here:
        return None
    versions = {c.address.version for c in here}, {c.address.version for c in there}
    if not versions[0] & versions[1]:
        mine, other = (f"IPv{version.pop()}" for version in versions)
        return f"this side has only {mine} addresses and the other side only {other} ones"
    lonely = [all(candidate.address.is_loopback for candidate in side) for side in (here, there)]
    if lonely[0] != lonely[1]:
        return f"{'this' if lonely[0] else 'the other'} side listens only on its own machine (a loopback address)"
    if any(_may_reach(a.address, b.address) for a in here for b in there):
        return None
    return "both sides have only private addresses, it seems of different networks; a forwarded port would help"


def _normal(candidate: Candidate) -> Candidate:
    """An IPv4 address that was written as an IPv6 one (``::ffff:192.0.2.1``) as what it is."""
    mapped = getattr(candidate.address, "ipv4_mapped", None)
    return candidate if mapped is None else replace(candidate, address=mapped)


def _names_one_host(candidate: Candidate) -> bool:
    """Whether somebody could listen there at all; loopback and link-local addresses included."""
    address = candidate.address
    if not 1 <= candidate.port <= 65535 or address.is_unspecified or address.is_multicast:
        return False
    if isinstance(address, IPv4Address):
        return not (address.is_reserved or address in _THIS_NETWORK)
    if address.is_loopback:  # which Python counts among the reserved ones
        return True
    return not (address.is_reserved or address.sixtofour or address.teredo or address.scope_id)


def _local(candidate: Candidate) -> bool:
    return candidate.address.is_loopback or candidate.address.is_link_local


def _rank(candidate: Candidate) -> int:
    address = candidate.address
    if address.is_loopback:
        return 6
    if address.is_link_local:
        return 5
    if not address.is_global:
        return 4
    return 0 if address.version == 6 else 3


def _advertised(advertise: Iterable[Endpoint], heard: list[Candidate]) -> Iterable[Candidate]:
    for endpoint in advertise:
        ports = [c.port for c in heard if c.address.version == endpoint.address.version] or [c.port for c in heard]
        port = endpoint.port or next(iter(ports), 0)
        candidate = _normal(Candidate(endpoint.address, port))
        if _names_one_host(candidate):
            yield candidate


def _first(candidates: Iterable[Candidate], most: int = MAX_CANDIDATES) -> tuple[Candidate, ...]:
    return tuple(dict.fromkeys(candidates))[:most]


def _may_reach(ours: IPv4Address | IPv6Address, theirs: IPv4Address | IPv6Address) -> bool:
    """Whether a connection in one of the two directions is thinkable."""
    if ours.version != theirs.version:
        return False
    if ours.is_global or theirs.is_global:
        return True
    # The masks are not told. Two private addresses that begin alike are most likely on one network.
    return theirs in ip_network((ours, 24 if ours.version == 4 else 64), strict=False)
