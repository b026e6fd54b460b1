"""A damaged file: it is set aside, and what can be read of it is kept."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from slixmpp_bt.state import (
    Record,
    SavedCheckpoint,
    SavedDetails,
    SavedDownload,
    SavedOffer,
    SavedReceiver,
)
from slixmpp_bt.state._tables import BY_RECORD

from .records import EVERY, LARGE, database_of, download, everything, names, opened, others, own, set_aside


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
