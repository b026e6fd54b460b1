"""Where received files land: nothing outside the destination, nothing overwritten, whole or not at all."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slixmpp_bt import infodict, storage
from slixmpp_bt.errors import StorageError
from slixmpp_bt.manifest import Manifest, ManifestLimits
from slixmpp_bt.sources import Source, Tree
from slixmpp_bt.storage import Landing, require_space

LIMITS = ManifestLimits(max_size=1 << 62, max_files=1_000, max_length=1 << 24)
FILES = {("a",): 10, ("d", "b"): 20_000, ("d", "e", "c"): 0, (".hidden",): 1}
EMPTY = (("d", "nothing"), ("none",))

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts a small disk or changes owners")


def manifest(
    name: str, files: Mapping[tuple[str, ...], int] | int, empty: tuple[tuple[str, ...], ...] = ()
) -> Manifest:
    """A directory of files of these sizes, or one file of this size."""
    is_directory = not isinstance(files, int)
    sizes = {(name,): files} if isinstance(files, int) else files
    sources = [Source(path, Path(), (size, 0, 0, 0)) for path, size in sizes.items()]
    sources.sort(key=lambda source: [part.encode() for part in source.names])
    tree = Tree(name, is_directory, tuple(sources), empty)
    return Manifest.parse(infodict.write(tree, [bytes(32)] * len(sizes), 1 << 24, bytes(16), {}), LIMITS)


def content(index: int, size: int) -> bytes:
    return random.Random(index).randbytes(size)


def fill(landing: Landing, found: Manifest) -> None:
    """What an engine does."""
    for index, part in landing.parts.items():
        part.write_bytes(content(index, found.files[index].size))


async def ready(dest: Path, found: Manifest, token: str = "t", select: frozenset[int] | None = None) -> Landing:
    landing = Landing.plan(dest, found, select, token)
    await landing.prepare()
    fill(landing, found)
    return landing


def listing(directory: Path) -> set[str]:
    """Everything below `directory`, directories with a slash at the end."""
    return {
        f"{path.relative_to(directory)}{'/' if path.is_dir() and not path.is_symlink() else ''}"
        for path in directory.rglob("*")
    }


@pytest.fixture(params=[True, False], ids=["links", "moves"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With hard links and on a file system that has none, which answers as FAT does."""
    if not request.param:

        def refuse(source: Path, target: Path) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", refuse)
    return bool(request.param)


async def test_publish_of_a_file_puts_it_under_its_name(tmp_path: Path, links: bool) -> None:
    found = manifest("report.txt", 1_000)
    landing = await ready(tmp_path, found)
    assert landing.linkable is links
    assert landing.finals == {}
    assert await landing.publish() == tmp_path / "report.txt"
    assert landing.finals == {0: tmp_path / "report.txt"}
    assert landing.parts[0].exists() is links
    await landing.discard()
    assert listing(tmp_path) == {"report.txt"}
    assert (tmp_path / "report.txt").read_bytes() == content(0, 1_000)


async def test_publish_of_a_directory_puts_the_whole_tree_under_its_name(tmp_path: Path, links: bool) -> None:
    found = manifest("tree", FILES, EMPTY)
    landing = await ready(tmp_path, found)
    assert await landing.publish() == tmp_path / "tree"
    assert all(part.exists() is links for part in landing.parts.values())
    await landing.discard()
    assert listing(tmp_path / "tree") == {"a", "d/", "d/b", "d/e/", "d/e/c", ".hidden", "d/nothing/", "none/"}
    assert listing(tmp_path) == {"tree/"} | {f"tree/{name}" for name in listing(tmp_path / "tree")}
    for file in found.files:
        assert landing.finals[file.index] == tmp_path.joinpath("tree", *file.path)
        assert landing.finals[file.index].read_bytes() == content(file.index, file.size)


@pytest.mark.parametrize("files", [0, {}, {("a",): 0}], ids=["empty file", "empty directory", "empty files"])
async def test_publish_of_what_has_no_bytes_needs_no_engine(
    tmp_path: Path, files: Mapping[tuple[str, ...], int] | int
) -> None:
    landing = Landing.plan(tmp_path, manifest("nothing", files), None, "t")
    await landing.prepare()
    final = await landing.publish()
    await landing.discard()
    assert final == tmp_path / "nothing"
    assert final.is_file() if files == 0 else final.is_dir()
    assert set(listing(tmp_path)) - {"nothing", "nothing/"} == ({"nothing/a"} if files else set())


async def test_publish_of_some_files_brings_only_those(tmp_path: Path) -> None:
    found = manifest("tree", FILES, EMPTY)
    (index,) = (file.index for file in found.files if file.path == ("d", "b"))
    landing = await ready(tmp_path, found, select=frozenset({index}))
    assert set(landing.parts) == {index}
    await landing.publish()
    await landing.discard()
    assert listing(tmp_path) == {"tree/", "tree/d/", "tree/d/b"}
    assert landing.finals == {index: tmp_path / "tree/d/b"}


async def test_publish_of_some_files_names_them_as_if_all_were_wanted(tmp_path: Path) -> None:
    found = manifest("tree", {("A",): 1, ("a",): 1})
    landing = await ready(tmp_path, found, select=frozenset({1}))
    await landing.publish()
    assert landing.finals == {1: tmp_path / "tree" / "a (1)"}


@pytest.mark.parametrize("files", [5, FILES], ids=["file", "directory"])
@pytest.mark.parametrize("kind", ["file", "directory", "full directory", "symlink", "dangling symlink"])
async def test_publish_where_the_name_is_taken_takes_a_numbered_one(
    tmp_path: Path, links: bool, files: Mapping[tuple[str, ...], int] | int, kind: str
) -> None:
    taken, elsewhere = tmp_path / "in" / "x.tar.gz", tmp_path / "elsewhere"
    taken.parent.mkdir()
    elsewhere.mkdir()
    match kind:
        case "file":
            taken.write_text("mine")
        case "directory":
            taken.mkdir()
        case "full directory":
            (taken / "mine").mkdir(parents=True)
        case "symlink":
            taken.symlink_to(elsewhere)
        case "dangling symlink":
            taken.symlink_to(elsewhere / "nothing")
    before = listing(tmp_path)
    landing = await ready(tmp_path / "in", manifest("x.tar.gz", files))
    assert await landing.publish() == tmp_path / "in" / "x (1).tar.gz"
    await landing.discard()
    assert before == {name for name in listing(tmp_path) if not name.startswith("in/x (1).tar.gz")}
    assert kind != "file" or taken.read_text() == "mine"


@pytest.mark.parametrize("files", [5, {("a",): 5, ("b",): 6}], ids=["file", "directory"])
def test_publish_of_one_name_by_twenty_threads_overwrites_nothing(
    tmp_path: Path, links: bool, files: Mapping[tuple[str, ...], int] | int
) -> None:
    found = manifest("same.txt", files)
    landings = [asyncio.run(ready(tmp_path, found, f"t{n}")) for n in range(20)]
    for number, landing in enumerate(landings):
        landing.parts[0].write_bytes(b"%05d" % number)
    gate = threading.Barrier(20)

    def publish(landing: Landing) -> Path:
        gate.wait()
        return asyncio.run(landing.publish())

    with ThreadPoolExecutor(20) as pool:
        finals = list(pool.map(publish, landings))
    assert sorted(finals) == sorted(tmp_path / f"same{f' ({n})' if n else ''}.txt" for n in range(20))
    for number, landing in enumerate(landings):
        assert landing.finals[0].read_bytes() == b"%05d" % number


@pytest.mark.parametrize("files", [5, FILES], ids=["file", "directory"])
async def test_publish_again_answers_the_same(
    tmp_path: Path, links: bool, files: Mapping[tuple[str, ...], int] | int
) -> None:
    landing = await ready(tmp_path, manifest("x", files))
    assert await landing.publish() == await landing.publish() == tmp_path / "x"
    assert not (tmp_path / "x (1)").exists()


@pytest.mark.parametrize("files", [5, FILES], ids=["file", "directory"])
async def test_publish_again_after_a_restart_finds_what_it_published(
    tmp_path: Path, files: Mapping[tuple[str, ...], int] | int
) -> None:
    found = manifest("x", files)
    (tmp_path / "x").touch()
    await (await ready(tmp_path, found)).publish()
    again = Landing.plan(tmp_path, found, None, "t")
    assert await again.prepare()
    assert await again.publish() == tmp_path / "x (1)"
    await again.discard()
    assert {name for name in listing(tmp_path) if "/" not in name.rstrip("/")} == {"x", "x (1)" + "/" * (files != 5)}


async def test_publish_killed_between_is_taken_up_again(tmp_path: Path, links: bool) -> None:
    found = manifest("x", FILES, EMPTY)
    killed = await ready(tmp_path, found)
    killed._stage()
    assert killed.parts[0].exists() is links
    landing = Landing.plan(tmp_path, found, None, "t")
    assert await landing.prepare()
    await landing.publish()
    assert all(path.read_bytes() == content(i, found.files[i].size) for i, path in landing.finals.items())


async def test_publish_of_a_part_too_short_raises(tmp_path: Path) -> None:
    landing = await ready(tmp_path, manifest("x", 100))
    os.truncate(landing.parts[0], 99)
    with pytest.raises(StorageError, match="not a file of 100 bytes"):
        await landing.publish()
    assert not (tmp_path / "x").exists()


async def test_publish_where_a_part_became_a_symlink_raises(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(100))
    landing = await ready(tmp_path / "in", manifest("x", 100))
    landing.parts[0].unlink()
    landing.parts[0].symlink_to(tmp_path / "secret")
    with pytest.raises(StorageError, match="symbolic links"):
        await landing.publish()
    assert not (tmp_path / "in" / "x").exists()


async def test_publish_after_discard_raises(tmp_path: Path) -> None:
    landing = await ready(tmp_path, manifest("x", 100))
    await landing.discard()
    with pytest.raises(StorageError, match="No such file"):
        await landing.publish()


async def test_publish_cancelled_ends_with_its_thread_and_can_be_cleaned_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushing, go_on, sync = threading.Event(), threading.Event(), os.fsync

    def slow(file: int) -> None:
        flushing.set()
        go_on.wait()
        sync(file)

    landing = await ready(tmp_path, manifest("x", 100))
    monkeypatch.setattr(os, "fsync", slow)
    task = asyncio.create_task(landing.publish())
    await asyncio.to_thread(flushing.wait)
    for _ in range(3):
        task.cancel()
        await asyncio.wait([task], timeout=0.01)
        assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert landing.finals == {0: tmp_path / "x"}
    await landing.discard()
    assert listing(tmp_path) == {"x"}


async def test_prepare_keeps_others_out_and_gives_files_usual_permissions(tmp_path: Path) -> None:
    landing = await ready(tmp_path / "new" / "inbox", manifest("x", FILES))
    part = landing.parts[0].parent
    assert part.parent == tmp_path / "new" / "inbox"
    assert part.name == ".x.t.part"
    assert part.stat().st_mode & 0o777 == 0o700
    final = await landing.publish()
    usual = tmp_path / "usual"
    usual.touch()
    assert landing.finals[0].stat().st_mode == usual.stat().st_mode
    usual.unlink()
    usual.mkdir()
    assert final.stat().st_mode == usual.stat().st_mode


async def test_prepare_again_keeps_what_is_there_and_tells_what_is_missing(tmp_path: Path) -> None:
    found = manifest("x", FILES)
    landing = await ready(tmp_path, found)
    again = Landing.plan(tmp_path, found, None, "t")
    assert again.parts == landing.parts
    assert await again.prepare()
    assert all(part.read_bytes() == content(i, found.files[i].size) for i, part in again.parts.items())
    again.parts[1].unlink()
    assert not await again.prepare()


async def test_prepare_where_the_part_directory_is_a_symlink_raises(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    landing = Landing.plan(tmp_path / "in", manifest("x", FILES), None, "t")
    (tmp_path / "in").mkdir()
    landing.parts[0].parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="not a directory"):
        await landing.prepare()
    await landing.discard()
    assert listing(tmp_path / "elsewhere") == set()


async def test_prepare_where_a_part_is_a_symlink_raises(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    landing = Landing.plan(tmp_path / "in", manifest("x", 4), None, "t")
    await landing.prepare()
    landing.parts[0].unlink()
    landing.parts[0].symlink_to(tmp_path / "secret")
    with pytest.raises(StorageError, match="not a regular file"):
        await landing.prepare()
    await landing.discard()
    assert (tmp_path / "secret").read_text() == "mine"


@needs_root
async def test_prepare_where_another_user_made_the_part_directory_raises(tmp_path: Path) -> None:
    landing = Landing.plan(tmp_path, manifest("x", 4), None, "t")
    part = landing.parts[0].parent
    part.mkdir()
    part.chmod(0o777)
    os.chown(part, 65534, 65534)
    with pytest.raises(StorageError, match="another user"):
        await landing.prepare()


async def test_prepare_in_a_destination_that_is_a_symlink_follows_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    landing = await ready(tmp_path / "link", manifest("x", 4))
    assert await landing.publish() == tmp_path / "link" / "x"
    assert (tmp_path / "real" / "x").is_file()


async def test_prepare_below_a_file_or_where_nothing_can_be_made_raises(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for dest in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/self/inbox")):
        landing = Landing.plan(dest, manifest("x", 4), None, "t")
        with pytest.raises(StorageError, match=str(dest)):
            await landing.prepare()


async def test_prepare_of_paths_longer_than_the_system_takes_raises_early(tmp_path: Path) -> None:
    landing = Landing.plan(tmp_path, manifest("x", {("d" * 255,) * 31: 4}), None, "t")
    with pytest.raises(StorageError, match="File name too long"):
        await landing.prepare()
    await landing.discard()
    assert listing(tmp_path) == set()


async def test_prepare_without_enough_space_raises_and_names_the_sizes(tmp_path: Path) -> None:
    landing = Landing.plan(tmp_path, manifest("x", 1 << 44), None, "t")
    with pytest.raises(StorageError, match=r"16,777,216\.0 MiB are needed"):
        await landing.prepare()
    await landing.discard()
    assert listing(tmp_path) == set()
    landing = Landing.plan(tmp_path, manifest("x", 1), None, "t")
    with pytest.raises(StorageError, match="have to stay free"):
        await landing.prepare(min_free_space=1 << 60)


async def test_check_space_counts_what_has_arrived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(storage, "require_space", lambda directory, size, keep_free: asked.append(size))
    landing = await ready(tmp_path, manifest("x", 1 << 20))
    os.sync()
    await landing.check_space(0)
    assert asked == [1 << 20, 0]


def test_require_space_of_a_directory_to_come_asks_what_is_above(tmp_path: Path) -> None:
    require_space(tmp_path / "not" / "yet", 1, 0)
    with pytest.raises(StorageError, match="yet"):
        require_space(tmp_path / "not" / "yet", 1 << 60, 0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB and 40 files."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = "size=256k,nr_inodes=40,mode=0755"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@needs_root
async def test_prepare_on_a_full_disk_raises_and_discard_leaves_nothing(small_disk: Path) -> None:
    landing = Landing.plan(small_disk, manifest("x", {(f"{n}",): 0 for n in range(50)}), None, "t")
    with pytest.raises(StorageError, match="No space left on device"):
        await landing.prepare()
    await landing.discard()
    assert listing(small_disk) == set()


@needs_root
async def test_prepare_on_a_small_disk_counts_its_space(small_disk: Path) -> None:
    await Landing.plan(small_disk, manifest("x", 200 * 1024), None, "t").prepare()
    with pytest.raises(StorageError, match="are needed"):
        await Landing.plan(small_disk, manifest("x", 300 * 1024), None, "u").prepare()


@needs_root
async def test_publish_on_a_disk_filled_meanwhile_raises_and_works_when_there_is_space(
    small_disk: Path, links: bool
) -> None:
    found = manifest("x", {(f"d{n}", "f"): 100 for n in range(8)})
    landing = await ready(small_disk, found)
    fillers = small_disk / "fillers"
    fillers.mkdir()
    with suppress(OSError):
        for n in range(40):
            (fillers / str(n)).touch()
    with pytest.raises(StorageError, match="No space left on device"):
        await landing.publish()
    assert not (small_disk / "x").exists()
    shutil.rmtree(fillers)
    await landing.publish()
    assert all(path.read_bytes() == content(i, 100) for i, path in landing.finals.items())


async def test_discard_before_prepare_and_twice_does_nothing(tmp_path: Path) -> None:
    landing = Landing.plan(tmp_path / "in", manifest("x", FILES), None, "t")
    await landing.discard()
    await landing.prepare()
    await landing.discard()
    await landing.discard()
    assert listing(tmp_path) == {"in/"}


@pytest.mark.parametrize("token", ["", "../x", "a/b", "a.b", "é", "x" * 65, "a b", "a\n"])
def test_plan_with_a_wrong_token_raises(tmp_path: Path, token: str) -> None:
    with pytest.raises(ValueError, match="token"):
        Landing.plan(tmp_path, manifest("x", 4), None, token)


@pytest.mark.parametrize("select", [frozenset({1}), frozenset({-1}), frozenset({0, 5}), frozenset()])
def test_plan_with_a_wrong_selection_raises(tmp_path: Path, select: frozenset[int]) -> None:
    with pytest.raises(ValueError, match="selected"):
        Landing.plan(tmp_path, manifest("x", 4), select, "t")


NAMES = st.text(
    st.one_of(
        st.sampled_from('.\\: ~*?"<>|CONaA\u202e\u200b\u00e9e\u0301'),
        st.characters(exclude_characters="/\0", codec="utf-8"),
    ),
    min_size=1,
    max_size=12,
).filter(lambda name: name not in (".", ".."))
TREES = st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map(tuple), st.integers(0, 5), max_size=6)


@settings(max_examples=50, deadline=None)
@given(NAMES, TREES)
def test_publish_of_any_tree_stays_inside_and_is_whole(name: str, tree: dict[tuple[str, ...], int]) -> None:
    files = {path: size for path, size in tree.items() if not any(path[:n] in tree for n in range(1, len(path)))}
    with TemporaryDirectory() as directory:
        dest = Path(directory, "outer", "inbox")
        asyncio.run(land(dest, manifest(name, files)))
        assert list(Path(directory).iterdir()) == [dest.parent]
        assert list(dest.parent.iterdir()) == [dest]
        assert len(list(dest.iterdir())) == 1
        found = [path for path in dest.rglob("*") if path.is_file()]
        assert sorted(path.stat().st_size for path in found) == sorted(files.values())


async def land(dest: Path, found: Manifest) -> None:
    landing = await ready(dest, found)
    final = await landing.publish()
    await landing.discard()
    assert final.parent == dest
    for index, path in landing.finals.items():
        assert path.is_relative_to(final)
        assert path.read_bytes() == content(index, found.files[index].size)
