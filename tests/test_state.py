"""What survives a restart, and what is said when it cannot be kept."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from slixmpp import JID

from slixmpp_bt import constants
from slixmpp_bt import state as state_module
from slixmpp_bt.constants import Mode
from slixmpp_bt.errors import StateError
from slixmpp_bt.messages import End
from slixmpp_bt.state import (
    Record,
    SavedCheckpoint,
    SavedDelegation,
    SavedDetails,
    SavedDownload,
    SavedLetter,
    SavedOffer,
    SavedPast,
    SavedReceiver,
    SavedSeed,
    State,
    _layers,
)

from .records import ALICE, BOB, EVERY, KEY, LARGE, NOW, database_of, download, everything, opened, own, set_aside


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[State]:
    async with opened(tmp_path) as state:
        yield state


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
