"""Manifests: made and parsed, against libtorrent's own reading, and judging pieces."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slixmpp_bt import hashing, manifest
from slixmpp_bt.bencode import decode, encode
from slixmpp_bt.errors import IntegrityError, PathError, SourceChanged
from slixmpp_bt.manifest import Made, Manifest, ManifestLimits, changed, make, piece_length_for, read_piece

KIB, MIB, GIB = 1024, 1024**2, 1024**3
LIMITS = ManifestLimits(max_size=GIB, max_files=1_000, max_length=MIB)
SALT = bytes(range(16))

#: A directory with all that is special: empty files and directories, a file of one piece and of several, names whose
#: order differs between bytes and paths.
TREE = {"a": 10, "a b/c": 100_000, "a b/d": 16_385, "a-": 16_384, "z/empty": 0, "big": 3_000_001, "é": 1}


def build(root: Path, sizes: Mapping[str, int]) -> Path:
    """Files of these sizes below `root`, with content that their names decide."""
    for name, size in sizes.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(random.Random(name).randbytes(size))
    return root


async def made(path: Path) -> Made:
    return await make(path, salt=SALT)


def engine() -> Any:
    """libtorrent, whose older line has other names for what is used here."""
    return pytest.importorskip("libtorrent", minversion="2.1", reason="needs libtorrent 2.1 to compare with")


@pytest.fixture
async def tree(tmp_path: Path) -> Made:
    (tmp_path / "offered" / "nothing" / "here").mkdir(parents=True)
    return await made(build(tmp_path / "offered", TREE))


async def test_make_of_a_directory_lists_files_in_the_order_of_pieces(tree: Made, tmp_path: Path) -> None:
    found = tree.manifest
    assert ["/".join(file.path) for file in found.files] == ["a", "a b/c", "a b/d", "a-", "big", "z/empty", "é"]
    assert found.directories == (("nothing", "here"),)
    assert (found.name, found.is_directory, found.size) == ("offered", True, sum(TREE.values()))
    assert tree.paths == {file.index: tmp_path.joinpath("offered", *file.path) for file in found.files}
    assert changed(tree.stamps, tree.paths) is None


async def test_make_of_a_file_describes_that_file_alone(tmp_path: Path) -> None:
    result = await made(build(tmp_path, {"file.txt": 20_000}) / "file.txt")
    (file,) = result.manifest.files
    assert (result.manifest.name, result.manifest.is_directory, file.path) == ("file.txt", False, ("file.txt",))
    assert len(result.manifest.info) < 200
    assert result.paths == {0: tmp_path / "file.txt"}


@pytest.mark.parametrize("size", [1, 16_384, 16_385, MIB, MIB + 1, 3 * MIB + 5])
async def test_make_of_a_file_gives_roots_and_layers_that_libtorrent_gives(tmp_path: Path, size: int) -> None:
    await agrees_with_libtorrent(build(tmp_path, {"file": size}) / "file")


async def test_make_of_a_directory_gives_roots_and_layers_that_libtorrent_gives(tmp_path: Path) -> None:
    await agrees_with_libtorrent(build(tmp_path / "offered", TREE))


async def agrees_with_libtorrent(path: Path) -> None:
    libtorrent = engine()
    found = (await made(path)).manifest
    torrent = libtorrent.create_torrent(
        libtorrent.list_files(str(path)), found.piece_length, libtorrent.create_torrent_flags_t.v2_only
    )
    libtorrent.set_piece_hashes(torrent, str(path.parent))
    theirs = torrent.generate()
    ours = decode(found.info, max_depth=100, max_tokens=10_000)
    assert isinstance(ours, dict)
    assert encode(ours[b"file tree"]) == libtorrent.bencode(theirs[b"info"][b"file tree"])
    assert found.layers == theirs[b"piece layers"]


async def test_make_of_a_directory_is_read_by_libtorrent_as_by_us(tree: Made) -> None:
    libtorrent = engine()
    found = tree.manifest
    theirs = libtorrent.load_torrent_buffer(b"d4:info" + found.info + b"e").ti
    layout = theirs.layout()
    indices = [i for i in range(layout.num_files()) if not layout.file_flags(i) & layout.flag_pad_file]
    assert theirs.info_hashes().v2.to_bytes() == found.info_hash
    assert theirs.num_pieces() == found.piece_count
    assert theirs.priv()
    assert [
        (layout.file_path(i), layout.file_size(i), layout.file_offset(i) // found.piece_length) for i in indices
    ] == [("/".join(("offered", *file.path)), file.size, file.first_piece) for file in found.files]


@pytest.mark.parametrize(
    "sizes", [{}, {"empty": 0}, {"offered": 0}, {"offered": 5}, {"offered": 5, "other": 5}, {"d/e/f": 0}], ids=repr
)
async def test_make_of_any_directory_is_parsed_as_a_directory(tmp_path: Path, sizes: dict[str, int]) -> None:
    (tmp_path / "offered").mkdir()
    result = (await made(build(tmp_path / "offered", sizes))).manifest
    parsed = Manifest.parse(result.info, LIMITS)
    assert parsed.is_directory
    assert {"/".join(file.path): file.size for file in parsed.files} == sizes


async def test_make_of_an_empty_file_has_no_pieces(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    result = (await made(tmp_path / "empty")).manifest
    assert (result.size, result.piece_count, result.is_directory, result.verifiable) == (0, 0, False, True)
    assert result.files[0].root is None
    assert result.pieces_of() == frozenset()


async def test_make_with_another_salt_has_another_info_hash(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"same")
    hashes = {(await make(tmp_path / "file", salt=bytes([n] * 16))).manifest.info_hash for n in range(3)}
    assert len(hashes) == 3


async def test_make_with_a_certificate_authority_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = await make(tmp_path / "file", salt=SALT, extra={b"ssl-cert": b"PEM"})
    assert result.manifest.extra == {b"ssl-cert": b"PEM"}


async def test_make_with_a_wrong_salt_raises_before_it_reads(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        await make(tmp_path / "nowhere", salt=b"")


async def test_make_of_a_path_that_cannot_be_offered_raises(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    for path in (tmp_path / "nowhere", tmp_path / "link", tmp_path):
        with pytest.raises(PathError, match=r"nowhere|link"):
            await made(path)


async def test_make_of_a_file_changed_meanwhile_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_INTERVAL", 0.001)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)

        def progress(done: int, total: int) -> None:
            file.truncate(5)

        with pytest.raises(SourceChanged, match="large"):
            await make(tmp_path / "large", salt=SALT, progress=progress)


async def test_make_cancelled_while_it_looks_around_stops_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    looking, ended = asyncio.Event(), []

    def scan(path: Path, stopped: Callable[[], bool]) -> None:
        loop.call_soon_threadsafe(looking.set)
        while not stopped():
            pass
        ended.append(path)

    monkeypatch.setattr(manifest, "scan", scan)
    task = asyncio.create_task(made(tmp_path))
    await looking.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [tmp_path]


names = st.text(alphabet="ab. é\U0001f600", min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))
trees = st.dictionaries(
    st.lists(names, min_size=1, max_size=3).map(tuple), st.sampled_from([0, 1, 16_384, 16_385, 40_000]), max_size=6
)


@settings(max_examples=25, deadline=None)
@given(trees)
def test_parse_of_what_was_made_is_the_same(sizes: dict[tuple[str, ...], int]) -> None:
    with TemporaryDirectory() as name:
        root = Path(name, "offered")
        root.mkdir()
        expected = {}
        for path, size in sizes.items():
            if not any(path[:n] in expected for n in range(1, len(path))) and not root.joinpath(*path).exists():
                build(root, {"/".join(path): size})
                expected[path] = size
        result = asyncio.run(made(root))
    found = result.manifest
    parsed = Manifest.parse(found.info, LIMITS)
    assert {file.path: file.size for file in parsed.files} == expected
    assert parsed == found
    assert parsed.files == found.files
    assert parsed.with_layers(found.layers).layers == found.layers


async def test_verify_of_every_piece_accepts_exactly_its_content(tree: Made) -> None:
    found = Manifest.parse(tree.manifest.info, LIMITS).with_layers(tree.manifest.layers)
    total = 0
    for piece in range(found.piece_count):
        data = read_piece(found, tree.paths, piece)
        total += len(data)
        assert len(data) == found.piece_size(piece)
        assert found.verify(piece, data)
        assert found.verify(piece, memoryview(data))
        assert not found.verify(piece, data[:-1])
        assert not found.verify(piece, data + b"\0")
        assert not found.verify(piece, data[:-1] + bytes([data[-1] ^ 1]))
        assert not found.verify((piece + 1) % found.piece_count, data)
    assert total == found.size


async def test_verify_of_no_piece_raises_index_error(tree: Made) -> None:
    for piece in (-1, tree.manifest.piece_count):
        with pytest.raises(IndexError):
            tree.manifest.verify(piece, b"")


async def test_verify_without_layers_raises_where_they_are_needed(tree: Made) -> None:
    parsed = Manifest.parse(tree.manifest.info, LIMITS)
    assert not parsed.verifiable
    assert parsed.layers == {}
    assert parsed.verify(0, read_piece(parsed, tree.paths, 0))
    big = parsed.files[4]
    with pytest.raises(ValueError, match="layers"):
        parsed.verify(big.first_piece, read_piece(parsed, tree.paths, big.first_piece))
    assert parsed.with_layers(tree.manifest.layers).verifiable


async def test_with_layers_of_a_file_of_one_piece_needs_none(tmp_path: Path) -> None:
    result = await made(build(tmp_path, {"file": 16_384}) / "file")
    parsed = Manifest.parse(result.manifest.info, LIMITS)
    assert parsed.verifiable
    assert parsed.with_layers({}).verify(0, (tmp_path / "file").read_bytes())


@pytest.mark.parametrize("tamper", ["bit", "cut", "cut hash", "longer", "missing", "more", "other root", "swapped"])
async def test_with_layers_tampered_with_raises_integrity_error(tree: Made, tamper: str) -> None:
    parsed = Manifest.parse(tree.manifest.info, LIMITS)
    layers = dict(tree.manifest.layers)
    root = parsed.files[4].root
    assert root is not None
    layer = layers[root]
    match tamper:
        case "bit":
            layers[root] = layer[:40] + bytes([layer[40] ^ 1]) + layer[41:]
        case "cut":
            layers[root] = layer[:-1]
        case "cut hash":
            layers[root] = layer[:-32]
        case "longer":
            layers[root] = layer + bytes(32)
        case "missing":
            del layers[root]
        case "more":
            layers[bytes(32)] = layer
        case "other root":
            layers[bytes(32)] = layers.pop(root)
        case "swapped":
            layers[root] = layer[32:64] + layer[:32] + layer[64:]
    with pytest.raises(IntegrityError):
        parsed.with_layers(layers)
    assert parsed.layers == {}


async def test_with_layers_padded_with_real_zero_hashes_is_refused(tmp_path: Path) -> None:
    """The padding of the tree must not pass for pieces: a layer has one hash for each piece and no more."""
    result = (await made(build(tmp_path, {"file": 3 * 16_384}) / "file")).manifest
    ((root, layer),) = result.layers.items()
    assert len(layer) == 96
    with pytest.raises(IntegrityError):
        Manifest.parse(result.info, LIMITS).with_layers({root: layer + bytes(32)})


async def test_file_of_and_pieces_of_agree_on_every_piece(tree: Made) -> None:
    found = tree.manifest
    for file in found.files:
        pieces = found.pieces_of(frozenset({file.index}))
        assert all(found.file_of(piece) is file for piece in pieces)
        assert sum(found.piece_size(piece) for piece in pieces) == file.size
        assert min(pieces, default=file.first_piece) == file.first_piece
    assert found.pieces_of() == found.pieces_of(frozenset(range(len(found.files)))) == set(range(found.piece_count))
    assert found.pieces_of(frozenset()) == frozenset()


async def test_manifest_shown_hides_what_admits_to_the_swarm(tree: Made) -> None:
    assert repr(tree.manifest.info_hash) not in repr(tree.manifest)
    assert repr(SALT)[2:-1] not in repr(tree.manifest)


async def test_read_piece_of_a_file_gone_raises_source_changed(tree: Made) -> None:
    tree.paths[0].unlink()
    with pytest.raises(SourceChanged):
        read_piece(tree.manifest, tree.paths, 0)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, 16 * KIB),
        (MIB, 16 * KIB),
        (MIB + 1, 64 * KIB),
        (16 * MIB, 64 * KIB),
        (16 * MIB + 1, 64 * KIB),
        (191 * MIB, 64 * KIB),
        (192 * MIB, 128 * KIB),
        (GIB, 512 * KIB),
        (10 * GIB, 4 * MIB),
        (32 * GIB, 16 * MIB),
        (1 << 50, 16 * MIB),
    ],
)
def test_piece_length_for_a_size_is_the_nearest_power_of_two(size: int, expected: int) -> None:
    assert piece_length_for(size) == expected


@given(st.integers(0, 1 << 60), st.integers(0, 1 << 60))
def test_piece_length_for_a_larger_size_is_not_smaller(one: int, other: int) -> None:
    smaller, larger = sorted((one, other))
    assert piece_length_for(smaller) <= piece_length_for(larger)
