"""The file: whose it is, who may read it, one user at a time, older and newer ones."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slixmpp import JID

from slixmpp_bt.errors import StateError
from slixmpp_bt.state import SavedDelegation, SavedOffer, State
from slixmpp_bt.state._database import file_name
from slixmpp_bt.state._tables import MIGRATIONS

from .records import ALICE, BOB, EVERY, characters, database_of, everything, opened, own, set_aside


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
