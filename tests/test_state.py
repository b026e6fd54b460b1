"""What survives a restart, a kill, a damaged file, and what is said when it cannot be kept."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import resource
import shutil
import signal
import sqlite3
import stat
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slixmpp import JID

from slixmpp_bt import constants, messages
from slixmpp_bt import state as state_module
from slixmpp_bt.constants import Mode, Route
from slixmpp_bt.errors import StateError
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
    _layers,
)
from slixmpp_bt.state._database import Database, file_name, saving
from slixmpp_bt.state._tables import BY_RECORD, MIGRATIONS, TABLES, Mismatch

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


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[State]:
    async with opened(tmp_path) as state:
        yield state


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


# keeping


async def test_save_of_every_kind_is_found_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as state:
        await state.save(*EVERY)
    async with opened(tmp_path) as state:
        assert await everything(state) == list(EVERY)
        for record in EVERY:
            assert await state.find(type(record), *record.key) == record


async def test_save_with_a_known_key_replaces(state: State) -> None:
    await state.save(own("o1"), own("o2"))
    await state.save(own("o1", state=constants.State.OFFERED))
    assert [(o.id, o.state) for o in await state.load(SavedOffer)] == [("o1", "offered"), ("o2", "preparing")]


async def test_save_without_waiting_is_kept_in_order(tmp_path: Path) -> None:
    async with opened(tmp_path) as state:
        for size in range(100):
            state.save(own(size=size))
    async with opened(tmp_path) as state:
        assert [offer.size for offer in await state.load(SavedOffer)] == [99]


async def test_save_cancelled_is_kept_all_the_same(state: State) -> None:
    for id in ("o1", "o2"):
        state.save(own(id)).cancel()
    assert len(await state.load(SavedOffer)) == 2


async def test_find_of_what_is_unknown_is_none(state: State) -> None:
    assert await state.find(SavedOffer, "nothing") is None


async def test_delete_takes_along_what_belongs_to_it(state: State) -> None:
    await state.save(*EVERY, SavedDetails("o2", b"info"), SavedCheckpoint("t2", b""))
    await state.delete(SavedOffer, "o1")
    await state.delete(SavedDownload, "t1")
    await state.delete(SavedDownload, "unknown")
    kept = await everything(state)
    assert kept == [SavedDetails("o2", b"info"), EVERY[3], SavedCheckpoint("t2", b""), *EVERY[6:]]


async def test_delete_of_a_letter_by_its_key_takes_that_one(state: State) -> None:
    letters = [SavedLetter(End("i1", "decline", "decline", transfer=t), BOB, ALICE, NOW) for t in (None, "t1")]
    await state.save(*letters)
    await state.delete(SavedLetter, *letters[0].key)
    assert await state.load(SavedLetter) == letters[1:]


async def test_open_drops_what_belongs_to_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as state:
        await state.save(own("o1"), SavedDetails("o1", b""), SavedDetails("gone", b""), SavedCheckpoint("gone", b""))
    async with opened(tmp_path) as state:
        assert await everything(state) == [own("o1"), SavedDetails("o1", b"")]


async def test_transaction_is_done_as_a_whole_and_in_order(state: State) -> None:
    await state.save(download())
    async with state.transaction() as changes:
        changes.save(own("o1"))
        changes.delete(SavedDownload, "t1")
        changes.delete(SavedOffer, "o1")
        changes.save(own("o2"))
        assert await state.load(SavedOffer) == []
    assert await everything(state) == [own("o2")]


async def test_transaction_that_raises_changes_nothing(state: State) -> None:
    async def fail() -> None:
        async with state.transaction() as changes:
            changes.save(own())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await everything(state) == []


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (own("o2", node="\ud800"), r"offer\.node: a surrogate"),
        (own("o2", path=Path("relative")), r"offer\.path: not an absolute path"),
        (own("not an id"), r"offer\.id: not an id"),
        (own("o2", size=2**63), r"offer\.size: not from 0"),
        (own("o2", expires=float("nan")), r"offer\.expires: not a time"),
        (own("o2", single=1), r"offer\.single: int where bool"),
        (own("o2", reason="because"), r"offer\.reason: not a word"),
        (own("o2", to=JID("")), r"offer\.to: an empty JID"),
        (SavedDetails("o2", b"", ((1, 2, 3, 2**64),)), r"details\.stamps: not stamps"),
        (SavedReceiver("o2", "r", BOB, "p", select=frozenset({-1})), r"receiver\.select: not a selection"),
        (SavedPast("bob", "o2", b"short", NOW), r"past\.info_hash: 5 bytes"),
    ],
)
async def test_save_of_what_cannot_be_kept_keeps_none_and_names_the_field(
    state: State, bad: Record, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StateError, match=words):
        await state.save(own("o1"), bad)
    assert len(caplog.messages) == 1
    assert await everything(state) == []
    await state.save(own("o1"))


async def test_save_of_words_for_people_makes_them_fit(state: State) -> None:
    await state.save(own(desc="\ud800" + "x" * 5_000))
    assert [offer.desc for offer in await state.load(SavedOffer)] == ["?" + "x" * 1_999]


async def test_save_of_a_path_that_is_not_utf8_is_kept(state: State) -> None:
    odd = own(path=Path(os.fsdecode(b"/srv/caf\xe9")), text="/srv/caf\udce9 cannot be read")
    await state.save(odd)
    (found,) = await state.load(SavedOffer)
    assert (found.path, found.text) == (odd.path, "/srv/caf? cannot be read")


async def test_find_with_a_key_that_cannot_be_refuses(state: State) -> None:
    for key in (("o1", "o2"), ("\ud800",)):
        with pytest.raises(StateError):
            await state.find(SavedOffer, *key)


async def test_prune_forgets_letters_and_past_offers_after_their_time(state: State) -> None:
    await state.save(*EVERY, SavedPast("bob@b.example", "later", b"p" * 32, NOW + 1))
    await state.prune(NOW)
    assert await state.load(SavedLetter) == []
    assert [past.offer for past in await state.load(SavedPast)] == ["later"]
    assert await state.load(SavedOffer) == [EVERY[0]]


async def test_secrets_are_in_no_repr_and_no_log(state: State, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = (
        SavedDetails("o1", KEY, (), KEY, KEY),
        download(),
        SavedReceiver("o1", "r", BOB, "", request=KEY, certificate=KEY),
        SavedCheckpoint("t1", KEY),
        SavedSeed("t1", Mode.SEALED, NOW, Path("/x"), KEY, KEY, (), KEY, KEY),
        SavedDelegation("t1", "x", "o1", BOB, NOW, None, True, (), KEY),
    )
    await state.save(*secrets)
    bad = SavedDetails("\ud800", KEY, (), KEY, KEY)
    with pytest.raises(StateError) as raised:
        await state.save(bad)
    assert "PRIVATE" not in repr(secrets) + repr(bad) + str(raised.value) + caplog.text


# values


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


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with TemporaryDirectory() as directory:
        database = Database(Path(directory) / "x.db")
        database.open()
        yield database
        database.close()


@given(record=RECORDS)
def test_a_record_with_any_values_comes_back_equal(database: Database, record: Record) -> None:
    database.execute([saving(record)])
    found = database.find(BY_RECORD[type(record)], record.key)
    assert found == record
    assert type(found) is type(record)


@given(record=RECORDS, data=st.data())
def test_a_row_with_any_cell_changed_is_refused(record: Record, data: st.DataObject) -> None:
    table = BY_RECORD[type(record)]
    row = list(table.row(record))
    column = data.draw(st.integers(0, len(row) - 1))
    other = data.draw(
        st.one_of(st.none(), numbers, st.floats(), blobs, characters(9)).filter(lambda v: v != row[column])
    )
    row[column] = other
    with pytest.raises(Mismatch):
        table.record_of(row)


@given(record=RECORDS, data=st.data())
def test_a_row_that_is_checked_but_hostile_gives_a_record_or_value_error(record: Record, data: st.DataObject) -> None:
    table = BY_RECORD[type(record)]
    *row, _ = table.row(record)
    column = data.draw(st.integers(0, len(row) - 1))
    row[column] = data.draw(
        st.one_of(st.none(), st.integers(), st.floats(), blobs, st.text(), st.just("[" * 100_000), st.just("[[1]]"))
    )
    try:
        again = table.record_of([*row, table._checksum(row)])
    except ValueError:
        return
    assert table.row(again)[:-1] == tuple(row) or again == table.record_of(table.row(again))


def test_tables_have_the_columns_of_the_schema(database: Database) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        for steps in MIGRATIONS:
            for step in steps:
                connection.execute(step)
        for table in TABLES:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table.name})")]
            assert sorted(columns) == sorted([*table.columns, "crc"])


# the file


@given(first=st.tuples(characters(200), st.from_regex("[A-Za-z0-9-]{1,64}", fullmatch=True)), other=characters(9))
def test_file_name_of_anything_is_its_own_and_a_plain_one(first: tuple[str, str], other: str) -> None:
    account, instance = first
    name = file_name(account, instance)
    assert len(name) < 150
    assert name.isascii()
    assert not set(name) & set("/\\:\0")
    assert name[0] not in ".-"
    assert (file_name(other, instance) == name) == (other == account)
    assert file_name(account, instance + "x") != name


def test_file_name_does_not_confuse_account_and_instance() -> None:
    assert file_name("a.b", "c") != file_name("a", "b.c")
    assert file_name("alice@a.example", "default").startswith("alice@a.example.default.")


async def test_open_makes_what_only_the_user_may_read(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "state"
    async with opened(directory) as state:
        await state.save(*EVERY)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        files = list(directory.iterdir())
        assert state.path in files
        assert {path.suffix for path in files} == {".db", ".db-wal", ".db-lock"}
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


async def test_open_of_another_account_or_instance_is_another_database(tmp_path: Path) -> None:
    async with (
        opened(tmp_path) as first, opened(tmp_path, instance="other") as second, opened(tmp_path, BOB) as third,
    ):  # fmt: skip
        await first.save(own())
        assert await second.load(SavedOffer) == await third.load(SavedOffer) == []


async def test_open_of_one_in_use_in_this_process_says_so(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(StateError, match="in use by another"):
            await State.open(tmp_path, JID("alice@a.example/other-device"))
    async with opened(tmp_path):
        pass


CHILD = """
import asyncio, sys
from pathlib import Path
from slixmpp import JID
from slixmpp_bt.constants import Mode
from slixmpp_bt.state import SavedCheckpoint, SavedOffer, State

async def main():
    state = await State.open(Path(sys.argv[1]), JID("alice@a.example"))
    print("open", flush=True)
    first = int(sys.argv[2])
    for n in range(first, first + 100_000):
        offer = SavedOffer(f"o{n}", JID("bob@b.example"), JID("alice@a.example"), Path("/x"), Mode.SEALED, 1.0, 1.0)
        await state.save(offer, SavedCheckpoint(f"o{n}", bytes(20_000)))
        print(n, flush=True)

asyncio.run(main())
"""


@asynccontextmanager
async def child(directory: Path, first: int = 0) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(directory), str(first), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_open_of_one_in_use_in_another_process_says_so_until_that_is_killed(tmp_path: Path) -> None:
    async with child(tmp_path) as process:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"open\n"
        with pytest.raises(StateError, match="in use by another"):
            await State.open(tmp_path, ALICE)
    async with opened(tmp_path):
        pass


async def test_kill_at_any_moment_loses_nothing_that_was_kept(tmp_path: Path) -> None:
    rng, known = random.Random(7), 0
    for _ in range(6):
        told = known
        async with child(tmp_path, known) as process:
            assert process.stdout is not None
            for _ in range(rng.randrange(1, 150)):
                line = await process.stdout.readline()
                told = known if line == b"open\n" else int(line) + 1
            process.send_signal(signal.SIGKILL)
        async with opened(tmp_path) as state:
            offers = await state.load(SavedOffer)
            assert [offer.id for offer in offers] == [f"o{n}" for n in range(len(offers))]
            assert len(offers) >= told
            known = len(offers)
    assert set_aside(tmp_path) == []


async def test_open_where_there_can_be_no_database_raises_state_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    database_of(tmp_path).mkdir()
    for directory in (tmp_path, tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StateError, match=r"directory|exists"):
            await State.open(directory, ALICE)


async def test_open_does_not_follow_a_planted_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    database_of(tmp_path).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError):
        await State.open(tmp_path, ALICE)
    assert (tmp_path / "elsewhere").read_bytes() == b""


async def test_open_of_a_newer_database_sets_it_aside_untouched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as state:
        await state.save(own())
    path = database_of(tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 1000")
    before = path.read_bytes()
    async with opened(tmp_path) as state:
        assert await everything(state) == []
        await state.save(own("new"))
    (aside,) = set_aside(tmp_path)
    assert aside.read_bytes() == before
    assert len(caplog.records) == 1
    assert "its version is 1000" in caplog.text
    assert aside.name in caplog.text


async def test_open_of_an_older_database_brings_it_to_this_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as state:
        await state.save(*EVERY)
    monkeypatch.setattr(
        "slixmpp_bt.state._database.MIGRATIONS", [*MIGRATIONS, ('ALTER TABLE past ADD COLUMN "note" TEXT',)]
    )
    for _ in range(2):
        async with opened(tmp_path) as state:
            assert await everything(state) == list(EVERY)
    with closing(sqlite3.connect(database_of(tmp_path))) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
    assert set_aside(tmp_path) == []


async def test_open_of_a_database_from_before_delegation_keeps_what_was_offered(tmp_path: Path) -> None:
    kept = [record for record in EVERY if not isinstance(record, SavedDelegation)]
    async with opened(tmp_path) as state:
        await state.save(*kept)
    with closing(sqlite3.connect(database_of(tmp_path))) as connection:
        connection.execute('ALTER TABLE incoming DROP COLUMN "delegate"')
        connection.execute("DROP TABLE delegation")
        connection.execute("PRAGMA user_version = 4")
    async with opened(tmp_path) as state:
        assert await everything(state) == kept
        await state.save(EVERY[-1])
        assert await everything(state) == list(EVERY)
    assert set_aside(tmp_path) == []


# damage


async def test_load_of_damaged_rows_sets_the_database_aside_and_keeps_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as state:
        await state.save(own("o1"), own("o2"), own("o3"), download(), others())
    with closing(sqlite3.connect(database_of(tmp_path), isolation_level=None)) as connection:
        connection.execute("UPDATE offer SET size = 1 WHERE id = 'o1'")
        connection.execute("UPDATE offer SET node = CAST(x'ff00' AS TEXT) WHERE id = 'o3'")
        connection.execute("UPDATE download SET dest = 'text'")
    before = database_of(tmp_path).read_bytes()
    async with opened(tmp_path) as state:
        assert await state.find(SavedDownload, "t1") is None
        assert await everything(state) == [own("o2"), others()]
    (aside,) = set_aside(tmp_path)
    assert aside.read_bytes() == before
    (message,) = caplog.messages
    assert f"a row of download is damaged) was set aside as {aside.name}; 2 records were saved" in message


async def test_load_of_a_row_this_version_does_not_know_drops_that_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = BY_RECORD[SavedOffer]
    *row, _ = table.row(own("o2"))
    row[list(table.columns).index("mode")] = "secret"
    async with opened(tmp_path) as state:
        await state.save(own("o1"))
    with closing(sqlite3.connect(database_of(tmp_path), isolation_level=None)) as connection:
        connection.execute(table.upsert, (*row, table._checksum(row)))
    for _ in range(2):
        async with opened(tmp_path) as state:
            assert await state.load(SavedOffer) == [own("o1")]
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "1 rows of offer mean nothing to this version and are dropped"
    ]
    assert set_aside(tmp_path) == []


async def test_open_of_a_database_whose_tables_are_damaged_begins_anew(tmp_path: Path) -> None:
    """Also where SQLite's own words about it are no text any more."""
    for attempt, (old, new) in enumerate([(b'"mtype" TEXT', b'"mtypf" TEXT'), (b'"mtype" TEXT', b'\xff\xfe(("" TEXT')]):
        directory = tmp_path / str(attempt)
        async with opened(directory) as state:
            await state.save(own())
        path = database_of(directory)
        content = path.read_bytes()
        assert old in content
        path.write_bytes(content.replace(old, new))
        async with opened(directory) as state:
            await state.save(own("new"))
            assert await state.load(SavedOffer) == [own("new")]
        assert len(set_aside(directory)) == 1


@pytest.mark.parametrize("content", [b"this is no database" * 1_000, bytes(50_000)])
async def test_open_of_what_is_no_database_sets_it_aside(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = database_of(tmp_path)
    path.write_bytes(content)
    for _ in range(2):
        async with opened(tmp_path) as state:
            await state.save(own())
            assert await everything(state) == [own()]
    (aside,) = set_aside(tmp_path)
    assert aside.read_bytes() == content
    assert [aside.name in message for message in caplog.messages] == [True]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not [name for name in names(tmp_path) if "salvage" in name]


async def test_open_of_an_empty_file_begins_a_database(tmp_path: Path) -> None:
    database_of(tmp_path).touch()
    async with opened(tmp_path) as state:
        await state.save(own())
    assert set_aside(tmp_path) == []


async def test_open_after_a_kill_just_before_the_new_database_took_the_name_finds_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as state:
        await state.save(*EVERY)
    path = database_of(tmp_path)
    path.rename(path.with_name(path.name + "-new"))
    async with opened(tmp_path) as state:
        assert await everything(state) == list(EVERY)


async def test_damage_that_shows_later_is_treated_alike(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(tmp_path) as state:
        await state.save(*LARGE)
    async with opened(tmp_path) as state:
        path = database_of(tmp_path)
        with path.open("r+b") as file:  # behind SQLite's back, beyond what it has in memory
            file.seek(4_000_000)
            file.write(b"\xff" * 1_000_000)
        found = await state.load(SavedOffer)
        assert 2_000 < len(found) < len(LARGE)
        assert not [offer for offer in found if offer not in LARGE]
        await state.save(own("new"))
        assert await state.load(SavedOffer) == [*found, own("new")]
        assert len(set_aside(tmp_path)) == 1
        assert len(caplog.messages) == 1


#: More than SQLite keeps in memory.
LARGE = [own(f"o{n}", desc="x" * 2_000) for n in range(3_000)]


@pytest.fixture(scope="module")
def victims() -> Iterator[Path]:
    """A directory with a database that was closed well (``closed``), and one with its log (``killed``)."""
    with TemporaryDirectory() as directory:
        asyncio.run(_make_victims(Path(directory)))
        yield Path(directory)


OFFERS = [own(f"o{n}", desc="x" * 200) for n in range(400)]


async def _make_victims(directory: Path) -> None:
    async with opened(directory / "closed") as state:
        await state.save(*EVERY[1:], *OFFERS[:300])
        await state.cache_layers(65_536, [(Path(f"/srv/{n}"), (n, 0, 0, 0), bytes(32), bytes(9_000)) for n in range(9)])
    shutil.copytree(directory / "closed", directory / "open")
    async with opened(directory / "open") as state:
        for offer in OFFERS[300:]:
            await state.save(offer)
        shutil.copytree(directory / "open", directory / "killed")


async def survivors(directory: Path) -> list[Record]:
    """What is left after opening a damaged database twice, which has to go well and to give only what was saved."""
    async with opened(directory) as state:
        found = await everything(state)
        await state.cached_layers([(Path("/srv/1"), (1, 0, 0, 0))], 65_536)
        await state.save(own("new"))
    async with opened(directory) as state:
        again = await everything(state)
    assert own("new") in again
    again.remove(own("new"))
    owners = {record.key for record in found if isinstance(record, SavedOffer | SavedDownload)}
    owned = (SavedDetails, SavedReceiver, SavedCheckpoint)
    assert again == [record for record in found if not isinstance(record, owned) or record.key[:1] in owners]
    assert not [record for record in found if record not in (*EVERY, *OFFERS)]
    return found


def cut(path: Path, rng: random.Random) -> int:
    size = path.stat().st_size
    keep = rng.randrange(size)
    os.truncate(path, keep)
    return size - keep


def flip(path: Path, rng: random.Random) -> int:
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 10, 100])):
        content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(content)
    return len(content)


def zero(path: Path, rng: random.Random) -> int:
    size = path.stat().st_size
    start = rng.randrange(size)
    length = rng.randrange(1, 20_000)
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(min(length, size - start)))
    return size


def empty(path: Path, rng: random.Random) -> int:
    os.truncate(path, 0)
    return 0


@pytest.mark.parametrize("which", ["closed", "killed"])
async def test_a_database_cut_anywhere_opens_and_loses_at_most_what_was_cut(
    tmp_path: Path, victims: Path, which: str
) -> None:
    rng, whole = random.Random(1), 300 if which == "closed" else 400
    pages_of_roots = 20 * 4_096  # the first: they say where all others are
    for attempt in range(50):
        directory = tmp_path / str(attempt)
        shutil.copytree(victims / which, directory)
        path = database_of(directory)
        lost = cut(path, rng)
        offers = [record for record in await survivors(directory) if isinstance(record, SavedOffer)]
        if path.stat().st_size and (victims / which / path.name).stat().st_size - lost >= pages_of_roots:
            assert (whole - len(offers)) * 250 <= lost + 4_096
        shutil.rmtree(directory)


@pytest.mark.parametrize("damage", [flip, zero])
@pytest.mark.parametrize("which", ["closed", "killed"])
async def test_a_database_damaged_anywhere_opens(
    tmp_path: Path, victims: Path, which: str, damage: Callable[[Path, random.Random], int]
) -> None:
    rng = random.Random(2)
    for attempt in range(15):
        directory = tmp_path / str(attempt)
        shutil.copytree(victims / which, directory)
        damage(database_of(directory), rng)
        await survivors(directory)
        shutil.rmtree(directory)


@pytest.mark.parametrize("damage", [cut, flip, zero, empty])
async def test_a_log_damaged_anywhere_loses_only_what_it_held(
    tmp_path: Path, victims: Path, damage: Callable[[Path, random.Random], int]
) -> None:
    rng = random.Random(3)
    for attempt in range(15):
        directory = tmp_path / str(attempt)
        shutil.copytree(victims / "killed", directory)
        path = database_of(directory)
        damage(path.with_name(path.name + "-wal"), rng)
        offers = [record for record in await survivors(directory) if isinstance(record, SavedOffer)]
        assert offers == OFFERS[: len(offers)]
        assert len(offers) >= 300
        shutil.rmtree(directory)


async def test_a_database_that_vanished_leaves_its_log_to_be_read(tmp_path: Path) -> None:
    async with opened(tmp_path / "open") as state:
        await state.save(*EVERY)
        shutil.copytree(tmp_path / "open", tmp_path / "killed")
    os.truncate(database_of(tmp_path / "killed"), 0)
    async with opened(tmp_path / "killed") as state:
        assert await everything(state) == list(EVERY)
    assert len(set_aside(tmp_path / "killed")) == 1


# trouble


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may become longer than 4 KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_is_told_logged_once_and_over_with_the_next_write_that_fits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as state:
        await state.save(own("o1"))
        with full_disk():
            for _ in range(3):
                with pytest.raises(StateError):
                    await state.save(own("o2"), SavedCheckpoint("t", bytes(100_000)))
            assert await state.load(SavedOffer) == [own("o1")]
            told = list(caplog.messages)
        await state.save(own("o3"))
        assert await state.load(SavedOffer) == [own("o1"), own("o3")]
    assert len(told) == 1
    assert "not kept" in told[0]
    assert [message.endswith("can be written again") for message in caplog.messages] == [False, True]
    assert set_aside(tmp_path) == []
    async with opened(tmp_path) as state:
        assert await state.load(SavedOffer) == [own("o1"), own("o3")]


async def test_a_full_disk_when_a_damaged_database_shows_raises_only_state_errors(tmp_path: Path) -> None:
    async with opened(tmp_path) as state:
        await state.save(*LARGE)
    async with opened(tmp_path) as state:
        with database_of(tmp_path).open("r+b") as file:
            file.seek(4_000_000)
            file.write(b"\xff" * 1_000_000)
        with full_disk():
            for _ in range(2):
                with pytest.raises(StateError):
                    await state.load(SavedOffer)
        await state.save(own("new"))
        assert len(await state.load(SavedOffer)) > 2_000
        assert len(set_aside(tmp_path)) == 1


async def test_nothing_keeps_nothing_and_never_fails() -> None:
    state = State.nothing()
    await state.save(*EVERY)
    async with state.transaction() as changes:
        changes.save(own())
    await state.delete(SavedOffer, "o1")
    await state.cache_layers(65_536, [(Path("/srv"), (1, 2, 3, 4), bytes(32), b"")])
    await state.prune(NOW)
    assert state.path is None
    assert await everything(state) == []
    assert await state.find(SavedOffer, "o1") is None
    assert await state.cached_layers([(Path("/srv"), (1, 2, 3, 4))], 65_536) == [None]
    await state.aclose()
    await state.save(own())


async def test_aclose_twice_and_use_afterwards_raise_only_state_errors(tmp_path: Path) -> None:
    state = await State.open(tmp_path, ALICE)
    state.save(own())
    await asyncio.gather(state.aclose(), state.aclose())
    await state.aclose()
    with pytest.raises(StateError, match="is closed"):
        await state.save(own())
    with pytest.raises(StateError, match="is closed"):
        await state.load(SavedOffer)
    async with opened(tmp_path) as again:
        assert await again.load(SavedOffer) == [own()]


async def test_aclose_with_a_disk_that_does_not_answer_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(state_module, "_PATIENCE", 0.01)
    answers = threading.Event()
    state = await State.open(tmp_path, ALICE)
    stuck = state._post(lambda database: answers.wait(), None)
    saved = state.save(own())
    await state.aclose()
    assert not stuck.done()
    assert "does not answer" in caplog.text
    answers.set()
    await saved
    monkeypatch.undo()
    await state.aclose()
    async with opened(tmp_path) as again:
        assert await again.load(SavedOffer) == [own()]


async def test_open_cancelled_lets_go_of_the_database(tmp_path: Path) -> None:
    for _ in range(5):
        opening = asyncio.ensure_future(State.open(tmp_path, ALICE))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
    deadline = asyncio.get_running_loop().time() + 30
    while True:
        try:
            state = await State.open(tmp_path, ALICE)
        except StateError:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.01)
        else:
            await state.aclose()
            return


# the cache of Merkle layers

STAMP = (100_000, 2, 3, 2**64 - 1)


async def test_cached_layers_are_found_for_files_that_look_the_same(tmp_path: Path) -> None:
    one, two = Path("/srv/one"), Path("/srv/two")
    async with opened(tmp_path) as state:
        await state.cache_layers(65_536, [(one, STAMP, b"1" * 32, b"x" * 64), (two, STAMP, b"2" * 32, b"")])
    async with opened(tmp_path) as state:
        looked = [(two, STAMP), (one, STAMP), (Path("/srv/three"), STAMP)]
        assert await state.cached_layers(looked, 65_536) == [(b"2" * 32, b""), (b"1" * 32, b"x" * 64), None]
        assert await state.cached_layers([(one, STAMP)], 16_384) == [None]
        for part in range(4):
            other = (*STAMP[:part], STAMP[part] - 1, *STAMP[part + 1 :])
            assert await state.cached_layers([(one, other)], 65_536) == [None]  # type: ignore[list-item]


async def test_cache_layers_of_a_changed_file_replaces_what_was_known(state: State) -> None:
    path, later = Path("/srv/one"), (5, 6, 7, 8)
    await state.cache_layers(65_536, [(path, STAMP, b"1" * 32, b"")])
    await state.cache_layers(65_536, [(path, later, b"2" * 32, b"")])
    assert await state.cached_layers([(path, STAMP), (path, later)], 65_536) == [None, (b"2" * 32, b"")]


async def test_cache_layers_beyond_the_bound_forgets_the_oldest(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_layers, "MOST", 100_000)
    files = [(Path(f"/srv/{n}"), STAMP) for n in range(50)]
    for path, looks in files:
        await state.cache_layers(65_536, [(path, looks, bytes(32), bytes(9_000))])
    found = [layers is not None for layers in await state.cached_layers(files, 65_536)]
    assert found == sorted(found)
    assert 7 <= sum(found) <= 10
