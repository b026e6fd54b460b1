"""What can be offered, and noticing that it changed."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from slixmpp_bt.errors import PathError, SourceChanged
from slixmpp_bt.sources import MAX_DEPTH, changed, check_path, read_range, scan, stamp


def test_scan_of_a_file_finds_it_under_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    tree = scan(tmp_path / "file")
    (source,) = tree.files
    assert (tree.name, tree.is_directory, tree.directories) == ("file", False, ())
    assert (source.names, source.path, source.size) == (("file",), tmp_path / "file", 5)


def test_scan_of_a_directory_finds_files_in_byte_order_and_what_is_empty(tmp_path: Path) -> None:
    for name in ("b", "a/z", "a b/c", "a-", "\U0001f600", "\uffff"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "e" / "f").mkdir(parents=True)
    (tmp_path / "E").mkdir()
    tree = scan(tmp_path)
    assert ["/".join(source.names) for source in tree.files] == ["a/z", "a b/c", "a-", "b", "\uffff", "\U0001f600"]
    assert tree.directories == (("E",), ("e", "f"))
    assert (tree.name, tree.is_directory) == (tmp_path.name, True)


def test_scan_of_an_empty_directory_finds_nothing_in_it(tmp_path: Path) -> None:
    tree = scan(tmp_path)
    assert (tree.files, tree.directories, tree.is_directory) == ((), (), True)


@pytest.mark.parametrize("written", [".", "../{name}", "inner/.."])
def test_scan_of_a_path_without_a_name_takes_the_directorys_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path)
    assert scan(Path(written.format(name=tmp_path.name))).name == tmp_path.name


def test_scan_told_to_stop_ends(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert scan(tmp_path, lambda: True).files == ()


@pytest.mark.parametrize("kind", ["symlink", "directory"])
def test_scan_of_a_directory_replaced_meanwhile_does_not_enter_it(tmp_path: Path, kind: str) -> None:
    inner, elsewhere = tmp_path / "offered" / "inner", tmp_path / "elsewhere"
    inner.mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "secret").touch()
    asked = []

    def stopped() -> bool:
        asked.append(True)
        if len(asked) == 2:
            inner.rename(tmp_path / "away")
            if kind == "symlink":
                inner.symlink_to(elsewhere)
            else:
                elsewhere.rename(inner)
        return False

    with pytest.raises(PathError, match="offered/inner"):
        scan(tmp_path / "offered", stopped)


def symlink(path: Path) -> None:
    path.symlink_to(path.parent)


def dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


SPECIAL = pytest.mark.parametrize(
    ("make", "words"),
    [
        (symlink, "is a symbolic link"),
        (dangling, "is a symbolic link"),
        (os.mkfifo, "is a named pipe"),
        (unix_socket, "is a socket"),
    ],
)


@SPECIAL
def test_check_path_and_scan_of_something_special_say_what_it_is(
    tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    make(tmp_path / "odd")
    for look in (check_path, scan, stamp):
        with pytest.raises(PathError, match=f"odd {words}"):
            look(tmp_path / "odd")


@SPECIAL
def test_scan_of_a_directory_with_something_special_names_it(
    tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    (tmp_path / "good").mkdir()
    make(tmp_path / "good" / "odd")
    with pytest.raises(PathError, match=f"good/odd {words}"):
        scan(tmp_path)
    check_path(tmp_path)


def test_check_path_and_scan_of_a_device_say_so() -> None:
    for look in (check_path, scan):
        with pytest.raises(PathError, match="/dev/null is a device"):
            look(Path("/dev/null"))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (Path("/nowhere/at/all"), "No such file or directory"),
        (Path("/"), "no name"),
        (Path("/tmp/\0"), "null"),
        (Path("/tmp/" + "x" * 300), "too long"),
    ],
)
def test_check_path_and_scan_of_an_impossible_path_raise(path: Path, words: str) -> None:
    for look in (check_path, scan):
        with pytest.raises(PathError, match=words):
            look(path)


def test_scan_of_a_name_that_is_not_utf_8_raises(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"bad\xff")).touch()
    with pytest.raises(PathError, match="not UTF-8"):
        scan(tmp_path)
    with pytest.raises(PathError, match="not UTF-8"):
        check_path(tmp_path / os.fsdecode(b"bad\xff"))


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A directory that anybody may enter, and no privileges of root for the time of the test."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        (Path(name) / "secret").mkdir(mode=0o700)
        (Path(name) / "secret file").touch(mode=0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        else:
            (Path(name) / "secret").chmod(0)
        yield Path(name)
        os.seteuid(user)
        (Path(name) / "secret").chmod(0o700)


@pytest.mark.parametrize("name", ["secret", "secret file"])
def test_check_path_without_permission_raises(unprivileged: Path, name: str) -> None:
    with pytest.raises(PathError, match=f"{name} cannot be read: Permission denied"):
        check_path(unprivileged / name)


def test_scan_without_permission_raises(unprivileged: Path) -> None:
    with pytest.raises(PathError, match="secret cannot be read: Permission denied"):
        scan(unprivileged)


def test_scan_deeper_than_receivers_accept_raises(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * (MAX_DEPTH - 1))
    deep.mkdir(parents=True)
    (deep / "file").touch()
    assert len(scan(tmp_path).files[0].names) == MAX_DEPTH
    (deep / "d").mkdir()
    with pytest.raises(PathError, match="directories deep"):
        scan(tmp_path)


def wait_for_a_tick(path: Path) -> None:
    """Until the file system's clock shows another time than that of `path`."""
    probe = path.with_name("probe")
    probe.touch()
    while probe.stat().st_ctime_ns == path.stat().st_ctime_ns:
        probe.touch()
    probe.unlink()


def touch(path: Path) -> None:
    path.touch()


def rewrite(path: Path) -> None:
    """Other content of the same size, with the old time set again."""
    before = path.stat()
    path.write_bytes(b"other")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path) -> None:
    (path.parent / "new").write_bytes(b"new")
    (path.parent / "new").replace(path)


@pytest.mark.parametrize("change", [touch, rewrite, replace, Path.unlink], ids=lambda f: f.__name__)
def test_changed_after_any_change_names_the_file(tmp_path: Path, change: Callable[[Path], None]) -> None:
    paths = {0: tmp_path / "a", 1: tmp_path / "b"}
    for path in paths.values():
        path.write_bytes(b"12345")
    stamps = {index: stamp(path) for index, path in paths.items()}
    assert changed(stamps, paths) is None
    wait_for_a_tick(paths[1])
    change(paths[1])
    assert changed(stamps, paths) == paths[1]


def test_read_range_of_what_is_there_returns_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    assert read_range(tmp_path / "file", 3, 4) == b"3456"


def test_read_range_beyond_the_end_or_of_nothing_raises_source_changed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    with pytest.raises(SourceChanged, match="shorter"):
        read_range(tmp_path / "file", 8, 4)
    with pytest.raises(SourceChanged, match="No such file"):
        read_range(tmp_path / "gone", 0, 1)
