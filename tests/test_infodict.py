"""The parser of info dicts: hostile ones are refused, and nothing but our errors escapes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from slixmpp_bt.bencode import Value, decode, encode
from slixmpp_bt.errors import LimitExceeded, ProtocolError
from slixmpp_bt.infodict import MAX_NAME, MAX_PIECE_LENGTH, ManifestLimits, check_own, read, write
from slixmpp_bt.sources import Source, Tree

LIMITS = ManifestLimits(max_size=1 << 40, max_files=100, max_length=100_000)
SALT = bytes(range(16))
ROOT = b"\x11" * 32


def file(size: int = 5) -> Value:
    return {b"": {b"length": size, b"pieces root": ROOT} if size else {b"length": 0}}


def info(tree: Value | None = None, **changes: Value | None) -> bytes:
    """An info dict of `tree`; a change to None leaves a key out, and ``_`` in its name stands for a space."""
    top: dict[bytes, Value | None] = {
        b"file tree": {b"a": file(), b"b": file()} if tree is None else tree,
        b"meta version": 2,
        b"name": b"offered",
        b"piece length": 16_384,
        b"private": 1,
        b"salt": SALT,
    }
    top.update({key.replace("_", " ").encode(): value for key, value in changes.items()})
    return encode({key: value for key, value in top.items() if value is not None})


GOOD = info()


def test_read_of_a_tree_follows_the_order_of_its_bytes() -> None:
    tree: Value = {b"a": file(16_385), b"a b": {b"c": file(1), b"d": {}}, b"a0": file(0), b"z": file(2)}
    found = read(info(tree), LIMITS)
    assert [(f.index, f.path, f.size, f.first_piece) for f in found.files] == [
        (0, ("a",), 16_385, 0),
        (1, ("a b", "c"), 1, 2),
        (2, ("a0",), 0, 3),
        (3, ("z",), 2, 3),
    ]
    assert (found.size, found.piece_count, found.directories) == (16_388, 4, [("a b", "d")])
    assert [f.root for f in found.files] == [ROOT, ROOT, None, ROOT]


@pytest.mark.parametrize(
    ("tree", "marked", "is_directory"),
    [
        ({b"offered": file()}, False, False),
        ({b"offered": file(0)}, False, False),
        ({b"offered": file()}, True, True),
        ({b"other": file()}, False, True),
        ({b"offered": file(), b"other": {}}, False, True),
        ({b"offered": {b"offered": file()}}, False, True),
        ({b"offered": {}}, False, True),
        ({}, False, True),
    ],
)
def test_read_of_one_name_tells_file_from_directory(tree: Value, marked: bool, is_directory: bool) -> None:
    assert read(info(tree, directory=1 if marked else None), LIMITS).is_directory is is_directory


@pytest.mark.parametrize(
    "changes",
    [
        {"file_tree": None},
        {"file_tree": []},
        {"file_tree": {b"": {b"length": 0}}},
        {"meta_version": 1},
        {"meta_version": 3},
        {"meta_version": None},
        {"name": None},
        {"name": 5},
        {"name": b""},
        {"name": b"."},
        {"name": b".."},
        {"name": b"a/b"},
        {"name": b"a\0b"},
        {"name": b"\xff"},
        {"name": "\ud800".encode("utf-8", "surrogatepass")},
        {"name": b"x" * (MAX_NAME + 1)},
        {"piece_length": None},
        {"piece_length": 0},
        {"piece_length": -16_384},
        {"piece_length": 8_192},
        {"piece_length": 16_385},
        {"piece_length": 3 * 16_384},
        {"piece_length": 2 * MAX_PIECE_LENGTH},
        {"piece_length": 1 << 62},
        {"private": None},
        {"private": 0},
        {"salt": None},
        {"salt": b"short"},
        {"salt": 5},
        {"directory": 0},
        {"directory": b""},
        {"ssl-cert": 1},
        {"ssl-cert": b"x" * 4_097},
        {"attr": b"l"},
        {"name.utf-8": b"other"},
        {"pieces": b"x" * 20},
        {"length": 5},
        {"files": []},
        {"similar": [b"x" * 20]},
        {"collections": [b"c"]},
        {"url-list": b"http://127.0.0.1/"},
        {"httpseeds": []},
        {"nodes": []},
        {"announce": b"http://127.0.0.1/"},
        {"announce-list": []},
        {"update-url": b"http://127.0.0.1/"},
        {"originator": b"x"},
    ],
    ids=repr,
)
def test_read_of_a_wrong_key_is_refused(changes: dict[str, Value | None]) -> None:
    with pytest.raises(ProtocolError):
        read(info(**changes), LIMITS)


WRONG_ENTRIES: list[Value] = [
    5,
    [],
    {b"": 5},
    {b"": {}},
    {b"": {b"length": 5}},
    {b"": {b"length": 0, b"pieces root": ROOT}},
    {b"": {b"length": -1, b"pieces root": ROOT}},
    {b"": {b"length": b"5", b"pieces root": ROOT}},
    {b"": {b"length": 5, b"pieces root": ROOT[:-1]}},
    {b"": {b"length": 5, b"pieces root": 5}},
    {b"": {b"pieces root": ROOT}},
    {b"": {b"attr": b"l", b"length": 0, b"symlink path": [b"etc", b"passwd"]}},
    {b"": {b"attr": b"x", b"length": 5, b"pieces root": ROOT}},
    {b"": {b"attr": b"p", b"length": 5, b"pieces root": ROOT}},
    {b"": {b"length": 5, b"mtime": 5, b"pieces root": ROOT}},
    {b"": {b"length": 5, b"pieces root": ROOT}, b"inner": file()},
    {b"..": file()},
    {b".": file()},
    {b"x/y": file()},
    {b"x\0y": file()},
    {b"\xff": file()},
]


@pytest.mark.parametrize("entry", WRONG_ENTRIES, ids=repr)
def test_read_of_a_wrong_entry_is_refused(entry: Value) -> None:
    with pytest.raises(ProtocolError):
        read(info({b"a": file(), b"b": entry}), LIMITS)


@pytest.mark.parametrize("data", [b"", b"le", b"i1e", b"4:spam", b"de", GOOD + b"e", GOOD + b"\n", GOOD[:-1]])
def test_read_of_what_is_no_dict_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(data, LIMITS)


def nested(depth: int) -> Value:
    node: Value = file()
    for _ in range(depth):
        node = {b"d": node}
    return node


def test_read_at_the_limits_succeeds_and_beyond_each_exceeds_it() -> None:
    exact = ManifestLimits(max_size=10, max_files=2, max_length=len(GOOD), max_depth=1)
    assert read(GOOD, exact).size == 10
    for field, less in (("max_size", 9), ("max_files", 1), ("max_length", len(GOOD) - 1), ("max_depth", 0)):
        with pytest.raises(LimitExceeded):
            read(GOOD, replace(exact, **{field: less}))


def test_read_of_paths_deeper_than_allowed_exceeds_the_limit() -> None:
    limits = ManifestLimits(max_size=100, max_files=10, max_length=100_000, max_depth=4)
    assert read(info(nested(4)), limits).files[0].path == ("d",) * 4
    for depth in (5, 6, 50, 300):
        with pytest.raises(LimitExceeded):
            read(info(nested(depth)), limits)


def test_read_of_too_many_directories_exceeds_the_limit() -> None:
    limits = ManifestLimits(max_size=100, max_files=10, max_length=100_000)
    assert len(read(info({b"%d" % n: {} for n in range(10)}), limits).directories) == 10
    with pytest.raises(LimitExceeded):
        read(info({b"%02d" % n: {} for n in range(11)}), limits)


def test_read_of_more_pieces_than_engines_take_exceeds_the_limit() -> None:
    size = 16_384 << 21
    assert read(info({b"a": file(size)}), LIMITS).piece_count == 1 << 21
    with pytest.raises(LimitExceeded):
        read(info({b"a": file(size + 1)}), LIMITS)


def test_read_of_unknown_keys_ignores_few_and_refuses_many() -> None:
    assert read(info(comment=b"x" * 1_000), LIMITS).name == "offered"
    with pytest.raises(LimitExceeded):
        read(info(comment=b"x" * 1_025), LIMITS)


def test_read_of_a_certificate_authority_keeps_it() -> None:
    assert read(info(**{"ssl-cert": b"PEM"}), LIMITS).extra == {b"ssl-cert": b"PEM"}
    assert read(GOOD, LIMITS).extra == {}


@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=3), st.integers(0, 3))
def test_read_of_a_mutated_dict_is_canonical_or_refused(position: int, new: bytes, removed: int) -> None:
    changed = GOOD[:position] + new + GOOD[position + removed :]
    try:
        read(changed, LIMITS)
    except (ProtocolError, LimitExceeded):
        return
    assert encode(decode(changed, max_depth=100, max_tokens=10_000)) == changed


keys = st.sampled_from([b"", b"a", b"length", b"pieces root", b"attr"]) | st.binary(max_size=3)
anything: st.SearchStrategy[Value] = st.recursive(
    st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=40) | st.just(ROOT),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


@given(anything, st.sampled_from(["file tree", "name", "piece length", "salt", "ssl-cert", "other"]))
@example({b"": {b"": {}}}, "file tree")
def test_read_of_any_value_under_any_key_returns_or_refuses(value: Value, key: str) -> None:
    try:
        read(info(**{key: value}), LIMITS)
    except (ProtocolError, LimitExceeded):
        return


@pytest.mark.parametrize("names", [[("x",)], [("offered",)], [("a", "b"), ("a", "c"), ("d",)]])
@pytest.mark.parametrize("directories", [(), (("empty", "inner"),)])
def test_write_of_a_tree_is_read_as_the_same(
    names: list[tuple[str, ...]], directories: tuple[tuple[str, ...], ...]
) -> None:
    sources = tuple(Source(path, Path(), (index, 0, 0, 0)) for index, path in enumerate(names))
    tree = Tree("offered", True, sources, directories)
    found = read(write(tree, [ROOT] * len(names), 16_384, SALT, {b"ssl-cert": b"PEM"}), LIMITS)
    assert [(file.path, file.size) for file in found.files] == [(source.names, source.size) for source in sources]
    assert (found.name, found.is_directory, tuple(found.directories)) == ("offered", True, directories)
    assert found.extra == {b"ssl-cert": b"PEM"}


@pytest.mark.parametrize(
    ("salt", "extra"),
    [(b"short", {}), (SALT, {b"similar": b"x"}), (SALT, {b"ssl-cert": b""}), (SALT, {b"ssl-cert": b"x" * 4_097})],
)
def test_check_own_of_what_would_not_be_read_raises(salt: bytes, extra: dict[bytes, bytes]) -> None:
    check_own(SALT, {b"ssl-cert": b"PEM"})
    with pytest.raises(ValueError, match=r"16 bytes|cannot go into"):
        check_own(salt, extra)
