"""Info dicts and names of hostile senders, and that the engine reads what the parser took in the same way."""

from __future__ import annotations

import tracemalloc
from pathlib import Path, PurePosixPath

import libtorrent as lt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slixmpp_bt.backends._libtorrent.params import _loaded, engine_indices
from slixmpp_bt.bencode import Value, decode, encode
from slixmpp_bt.errors import BTError, LimitExceeded, ProtocolError
from slixmpp_bt.filenames import MAX_BYTES, folded, safe_name, safe_paths
from slixmpp_bt.manifest import Manifest, ManifestLimits
from slixmpp_bt.storage import Landing

from ..security.offers import info_dict, tree_of
from . import patient, thorough
from .corpus import BIG, HOSTILE, ROOT, TRICKS, good, sized

LIMITS = ManifestLimits(max_size=1 << 30, max_files=10_000, max_length=4 * 1024**2)
MIB = 1024**2


def parse(info: bytes) -> Manifest | None:
    """The manifest; None if it was refused as it should be."""
    try:
        return Manifest.parse(info, LIMITS)
    except (ProtocolError, LimitExceeded):
        return None


def check(manifest: Manifest) -> None:
    """What holds of everything that is taken: limits, safe names, and that the engine sees the same."""
    assert encode(decode(manifest.info, max_depth=100, max_tokens=10**6)) == manifest.info
    assert 0 <= manifest.size <= LIMITS.max_size
    assert len(manifest.files) <= LIMITS.max_files
    assert manifest.size == sum(file.size for file in manifest.files)
    assert manifest.piece_count == sum(-(-file.size // manifest.piece_length) for file in manifest.files)
    check_names([*(file.path for file in manifest.files), *manifest.directories])
    if manifest.piece_count:
        check_engine(manifest)


def check_names(paths: list[tuple[str, ...]]) -> None:
    safe = safe_paths(paths)
    for path, below in zip(paths, safe, strict=True):
        assert len(path) == len(below)
        joined = PurePosixPath(*below)
        assert not joined.is_absolute()
        assert len(joined.parts) == len(below)
        for name in below:
            assert name not in ("", ".", "..")
            assert not set(name) & set("/\\:\0\n\r\u202e")
            assert len(name.encode()) <= MAX_BYTES
    assert len({tuple(map(folded, below)) for below in safe}) == len(set(paths))


def check_engine(manifest: Manifest) -> None:
    """The engine, if it takes the dict, has the same files, sizes and pieces."""
    try:
        params = _loaded(manifest, {})
    except BTError:
        return
    info = params.ti
    assert info is not None
    layout = info.layout()
    assert info.piece_length() == manifest.piece_length
    assert info.info_hashes().v2.to_bytes() == manifest.info_hash
    assert not info.info_hashes().has_v1()
    assert info.priv()
    indices = list(engine_indices(manifest))
    assert [layout.file_size(index) for index in indices] == [file.size for file in manifest.files]
    assert all(layout.file_flags(index) & lt.file_flags_t.flag_pad_file for index in pads(layout, indices))
    assert info.num_pieces() == manifest.piece_count
    assert not params.trackers
    assert not params.url_seeds
    assert not params.dht_nodes


def pads(layout: lt.file_storage, indices: list[int]) -> set[int]:
    """What is no file of ours."""
    return set(range(layout.num_files())) - set(indices)


# The corpus


@pytest.mark.parametrize("info", HOSTILE.values(), ids=HOSTILE)
def test_parse_of_a_hostile_dict_refuses_it(info: bytes) -> None:
    tracemalloc.start()
    try:
        assert parse(info) is None
        assert tracemalloc.get_traced_memory()[1] < 32 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("info", good())
def test_parse_of_a_good_dict_agrees_with_the_engine(info: bytes) -> None:
    manifest = parse(info)
    assert manifest is not None
    check(manifest)


WIDE = {
    "directories": info_dict(b"x", {b"%x" % n: {} for n in range(400_000)}),
    "files": info_dict(b"x", {b"%x" % n: {b"": {b"length": 0}} for n in range(150_000)}),
    "lists": b"d9:file tree" + b"le" * 2_000_000 + b"e",
    "integers": b"l" + b"i0e" * 1_300_000 + b"e",
    "strings": b"l" + b"0:" * 2_000_000 + b"e",
}


@pytest.mark.parametrize("info", WIDE.values(), ids=WIDE)
def test_parse_of_four_mebibytes_of_small_things_is_refused_in_bounded_memory(info: bytes) -> None:
    info = info[: LIMITS.max_length]
    tracemalloc.start()
    try:
        assert parse(info) is None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    print(f"{len(info) / MIB:.1f} MiB of them: {peak / MIB:.1f} MiB at most")
    assert peak < 64 * MIB


# By chance


PARTS = [b"i0e", b"i-1e", b"d", b"l", b"e", b"0:", b"1:a", b"de", b"le", b"2:..", b"9" * 19, bytes(32)]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good dict with some bytes, or numbers, or strings of it changed."""
    info = bytearray(draw(st.sampled_from(good())))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(info) - 1)))
        until = min(len(info), at + draw(st.sampled_from([0, 1, 2, 4, 16, 64])))
        info[at:until] = draw(st.binary(max_size=4) | st.sampled_from(PARTS) | st.just(bytes(info[at:until]) * 2))
    return bytes(info)


tricky = st.sampled_from('./\\:\0\n\r\t ~*?"<>|CONcon1-_\u00b9\u202e\u200b\u2028\ufeffe\u0301\u00df\u017fK')
names = st.sampled_from(TRICKS) | st.text(tricky | st.characters(exclude_categories=["Cs"]), max_size=40)
lengths = st.integers() | st.sampled_from([0, 1, 5, 16_383, 16_384, 16_385, 2**20, 2**30, 2**31, 2**32, 2**40, BIG, -1])
entries: st.SearchStrategy[Value] = st.builds(
    lambda length, root, more: {
        b"": {**({b"pieces root": root} if root is not None else {}), b"length": length, **more}
    },
    lengths.filter(lambda n: -(2**63) <= n < 2**63),
    st.sampled_from([ROOT, None, b"", ROOT[:-1], 5]),
    st.sampled_from([{}, {}, {}, {b"attr": b"p"}, {b"attr": b"l", b"symlink path": [b"x"]}, {b"mtime": 5}]),
)
small: st.SearchStrategy[Value] = st.sampled_from([{b"": {b"length": 0}}, sized(1), sized(16_384), sized(50_000)])
leaves: st.SearchStrategy[Value] = small | small | small | entries
trees: st.SearchStrategy[Value] = st.recursive(
    leaves,
    lambda inner: st.dictionaries(names.map(str.encode), inner, max_size=6),
    max_leaves=12,
)
values: st.SearchStrategy[Value] = st.recursive(
    st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.binary(max_size=5), inner, max_size=3),
    max_leaves=5,
)
#: Keys that mean something somewhere, and what is said under them.
KEYS = ["piece length", "meta version", "private", "salt", "ssl-cert", "directory", "similar", "x", "pieces"]
changes = st.dictionaries(
    st.sampled_from(KEYS),
    st.sampled_from([0, 1, 2, 16_384, 32_768, 2**24, 2**25, b"", bytes(16), b"x" * 4_096]) | values,
    max_size=1,
)


@patient
@given(damaged())
@thorough
def test_parse_of_a_damaged_dict_refuses_it_or_agrees_with_the_engine(info: bytes) -> None:
    manifest = parse(info)
    if manifest is not None:
        check(manifest)


@patient
@given(names, trees, changes)
@thorough
def test_parse_of_any_tree_refuses_it_or_agrees_with_the_engine(
    name: str, tree: Value, changed: dict[str, Value]
) -> None:
    top = dict(changed)
    manifest = parse(info_dict(name.encode(), tree if isinstance(tree, dict) else {b"x": tree}, **top))
    if manifest is not None:
        check(manifest)


@patient
@given(st.lists(st.lists(names, min_size=1, max_size=4).map(tuple), max_size=8, unique=True))
@thorough
def test_safe_paths_of_any_names_are_inside_and_distinct(paths: list[tuple[str, ...]]) -> None:
    check_names(list(dict.fromkeys(paths)))


@pytest.mark.parametrize("name", TRICKS)
def test_landing_of_a_trick_stays_in_the_destination(tmp_path: Path, name: str) -> None:
    info = info_dict(name.encode(), tree_of({(name.encode(), name.encode()): b"x"})) if "/" not in name else b""
    manifest = parse(info)
    if manifest is None:
        assert "\0" in name or name in (".", "..")
        return
    landing = Landing.plan(tmp_path, manifest, None, "token")
    for path in (*landing.parts.values(), *landing.finals.values()):
        assert path.parent != tmp_path.parent
        assert path.resolve().is_relative_to(tmp_path.resolve())
    assert safe_name(name) not in ("", ".", "..")
