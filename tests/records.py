"""Records to keep: one of every kind, any that there can be, and a state to keep them in."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from slixmpp import JID

from slixmpp_bt import messages
from slixmpp_bt.constants import Mode, Route
from slixmpp_bt.messages import Candidate, End, Offer
from slixmpp_bt.state import (
    Record,
    SavedCheckpoint,
    SavedDelegation,
    SavedDetails,
    SavedDownload,
    SavedIncoming,
    SavedLetter,
    SavedOffer,
    SavedPast,
    SavedReceiver,
    SavedSeed,
    State,
)
from slixmpp_bt.state._database import file_name

ALICE, BOB = JID("alice@a.example"), JID("bob@b.example/phone")
KINDS: tuple[type[Record], ...] = (
    SavedOffer, SavedDetails, SavedReceiver, SavedIncoming, SavedDownload, SavedCheckpoint, SavedLetter, SavedPast,
    SavedSeed, SavedDelegation,
)  # fmt: skip
NOW = 1.8e9
PEER = Candidate(ip_address("2001:db8::1"), 6881)
KEY = b"-----BEGIN PRIVATE KEY-----secret"


def own(id: str = "o1", **changes: Any) -> SavedOffer:
    values: dict[str, Any] = {
        "id": id, "to": BOB, "local": ALICE, "path": Path("/srv/file"), "mode": Mode.SEALED, "expires": NOW,
        "created": NOW - 1,
    }  # fmt: skip
    return SavedOffer(**values | changes)


def others(id: str = "i1") -> SavedIncoming:
    offer = Offer(id, Mode.PRIVATE, datetime(2027, 1, 1, tzinfo=UTC), "name", 5, b"h" * 32, 150, info=b"i" * 150)
    return SavedIncoming("bob@b.example", offer, BOB, ALICE, NOW, bare=JID("bob@b.example"))


def download(transfer: str = "t1") -> SavedDownload:
    return SavedDownload(transfer, "bob@b.example", "i1", Path("/in"), "running", NOW, private_key=KEY)


EVERY: tuple[Record, ...] = (
    own(),
    SavedDetails("o1", b"info", ((1, 2, 3, 4),), b"cert", KEY),
    SavedReceiver(
        "o1", "r1", BOB, "running", frozenset({0, 2}), sent=((Route.SWARM, 7),), owner="den@muc.example id:ü"
    ),
    others(),
    download(),
    SavedCheckpoint("t1", b"resume", ((Route.SWARM, 3), (Route.IN_BAND, 2**63 - 1))),
    SavedLetter(End("i1", "complete", "success", transfer="t1"), BOB, ALICE, NOW, "den@muc.example id:ü"),
    SavedPast("bob@b.example", "i0", b"p" * 32, NOW),
    SavedSeed("t0", Mode.SEALED, NOW, Path("/in/file"), b"info", b"layers", (PEER,), b"cert", KEY),
    SavedDelegation("t0", "bob@b.example", "i0", ALICE, NOW, JID("den@muc.example"), True, ((1, 2, 3, 4),), KEY),
)


@asynccontextmanager
async def opened(directory: Path, account: JID = ALICE, instance: str = "default") -> AsyncIterator[State]:
    state = await State.open(directory, account, instance)
    try:
        yield state
    finally:
        await state.aclose()


async def everything(state: State) -> list[Record]:
    found: list[Record] = []
    for kind in KINDS:
        found += await state.load(kind)
    return found


def database_of(directory: Path) -> Path:
    return directory / file_name(ALICE.bare, "default")


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def set_aside(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("*.db.2*") if not path.name.endswith(("-wal", "-shm")))


def characters(most: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=most)


tokens = st.from_regex(r"[A-Za-z0-9._~-]{1,64}", fullmatch=True)
moments = st.floats(0, 1e12)
numbers = st.integers(0, 2**63 - 1)
blobs = st.binary(max_size=100)
jids = st.sampled_from([ALICE, BOB, JID("room@muc.example/Ünï ☃"), JID("example"), JID("a\\20b@xn--p1ai.example/x y")])
paths = st.builds(lambda name: Path("/") / os.fsdecode(name.replace(b"\0", b"")), st.binary(max_size=50))
instants = st.datetimes(datetime(1970, 1, 2), datetime(9998, 1, 1), timezones=st.just(timezone(timedelta(hours=5))))
stamps = st.tuples(*[st.integers(-(2**63), 2**63 - 1)] * 3, st.integers(0, 2**64 - 1))
selects = st.none() | st.frozensets(st.integers(0, messages.MAX_INDEX))
routes = st.dictionaries(st.sampled_from(Route), numbers).map(lambda counts: tuple(counts.items()))
reasons = st.none() | st.sampled_from(sorted(messages.REASONS))
prose = st.none() | characters(100)

_ending = {"reason": reasons, "text": prose}
_offers = st.builds(
    Offer, tokens, st.sampled_from(Mode), instants, characters(100), numbers, st.binary(min_size=32, max_size=32),
    numbers, st.none() | blobs, prose, prose, st.none() | instants, st.booleans(),
)  # fmt: skip
_ends = st.builds(
    End, tokens, st.sampled_from(["complete", "cancel", "decline"]), st.sampled_from(sorted(messages.REASONS)),
    st.none() | tokens, prose, st.none() | numbers,
)  # fmt: skip
RECORDS: st.SearchStrategy[Record] = st.one_of(
    st.builds(
        SavedOffer, id=tokens, to=jids, local=jids, path=paths, expires=moments, created=moments, size=numbers,
        desc=prose, stanzas=st.lists(st.tuples(jids, characters(50)), max_size=4).map(tuple), node=prose, access=prose,
        **_ending,
    ),
    st.builds(
        SavedDetails, tokens, blobs, st.lists(stamps, max_size=4).map(tuple), st.none() | blobs, st.none() | blobs
    ),
    st.builds(
        SavedReceiver, tokens, tokens, jids, characters(64), selects, st.none() | blobs, st.none() | blobs, moments,
        st.booleans(), routes, **_ending,
    ),
    st.builds(
        SavedIncoming, characters(100), _offers, jids, jids, moments, st.none() | jids, st.none() | jids, st.booleans(),
        st.booleans(), st.booleans(),
    ),
    st.builds(
        SavedDownload, tokens, characters(100), tokens, paths, characters(64), moments, selects, st.booleans(),
        st.none() | blobs, st.none() | blobs, st.none() | blobs, st.none() | paths, **_ending,
    ),
    st.builds(SavedCheckpoint, tokens, blobs, routes),
    st.builds(SavedLetter, _ends, jids, jids, moments),
    st.builds(SavedPast, characters(100), tokens, st.binary(min_size=32, max_size=32), moments),
    st.builds(
        SavedSeed, tokens, st.sampled_from(Mode), moments, paths, blobs, blobs,
        st.lists(st.builds(Candidate, st.ip_addresses(), st.integers(1, 65_535)), max_size=4).map(tuple),
        st.none() | blobs, st.none() | blobs,
    ),
    st.builds(
        SavedDelegation, tokens, characters(100), tokens, jids, moments, st.none() | jids, st.booleans(),
        st.lists(stamps, max_size=4).map(tuple), st.none() | blobs,
    ),
)  # fmt: skip


#: More than SQLite keeps in memory.
LARGE = [own(f"o{n}", desc="x" * 2_000) for n in range(3_000)]
