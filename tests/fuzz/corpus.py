"""Info dicts and names to begin with: good ones that are damaged by chance, and hostile ones that are none."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

from slixmpp_bt.bencode import Value, encode
from slixmpp_bt.infodict import MAX_PIECE_LENGTH
from slixmpp_bt.sealing import Authority

from ..security.offers import PIECE_LENGTH, entry, info_dict, tree_of

ROOT = b"\x11" * 32
BIG = 2**63 - 1


def sized(length: Value, root: Value = ROOT) -> Value:
    """A file of a size that nobody has to have."""
    return {b"": {b"length": length, b"pieces root": root}}


@cache
def good() -> tuple[bytes, ...]:
    """What this library makes, or could."""
    authority = Authority.make(datetime.now(UTC)).certificate
    many: dict[tuple[bytes, ...], bytes] = {(b"d%d" % (n % 7), b"file %d" % n): bytes([n]) for n in range(40)}
    return (
        info_dict(b"one", {b"one": entry(b"content")}),
        info_dict(b"one", {b"one": entry(b"content")}, directory=1),
        info_dict(b"sealed", {b"sealed": entry(b"content")}, **{"ssl-cert": authority}),
        info_dict(b"empty", {b"empty": entry(b"")}),
        info_dict(b"nothing", {}),
        info_dict(b"large", {b"large": sized(2**30)}, piece_length=512 * 1024),
        info_dict(b"many", tree_of(many)),
        info_dict(b"deep", nested(20)),
        info_dict("Ünï ☃".encode(), tree_of({("é".encode(), "日本".encode()): b"x"})),
    )


def nested(depth: int, last: Value | None = None) -> Value:
    """A file so deep in a tree."""
    tree: Value = entry(b"x") if last is None else last
    for _ in range(depth):
        tree = {b"d": tree}
    return tree


def _raw(*parts: bytes) -> bytes:
    """An info dict whose file tree is not written by anybody's encoder."""
    top = b"12:meta versioni2e4:name1:x12:piece lengthi16384e7:privatei1e4:salt16:" + bytes(16) + b"e"
    return b"d9:file tree" + b"".join(parts) + top


_FILE = b"d0:d6:lengthi5e11:pieces root32:" + ROOT + b"ee"

#: None of these may be taken.
HOSTILE: dict[str, bytes] = {
    "pieces beyond what engines take": info_dict(b"x", {b"x": sized(2**36)}),
    "length of 2**63 - 1": info_dict(b"x", {b"x": sized(BIG)}),
    "lengths whose sum overflows": info_dict(b"x", {b"a": sized(BIG), b"b": sized(BIG), b"c": sized(2)}),
    "pieces whose count overflows 32 bits": info_dict(b"x", {b"x": sized(PIECE_LENGTH << 32)}),
    "length of 2**64": _raw(b"d1:xd0:d6:lengthi18446744073709551616e11:pieces root32:" + ROOT + b"eee"),
    "length of -1": info_dict(b"x", {b"x": sized(-1)}),
    "length of -2**63": info_dict(b"x", {b"x": sized(-(2**63))}),
    "length with a plus": _raw(b"d1:xd0:d6:lengthi+5e11:pieces root32:" + ROOT + b"eee"),
    "length of minus zero": _raw(b"d1:xd0:d6:lengthi-0e11:pieces root32:" + ROOT + b"eee"),
    "length of ten thousand digits": _raw(b"d1:xd0:d6:lengthi" + b"9" * 10_000 + b"e11:pieces root32:" + ROOT + b"eee"),
    "string longer than the dict": _raw(b"d999999999:x" + _FILE + b"e"),
    "string of negative length": _raw(b"d-1:x" + _FILE + b"e"),
    "key twice": _raw(b"d1:x" + _FILE + b"1:x" + _FILE + b"e"),
    "keys out of order": _raw(b"d1:y" + _FILE + b"1:x" + _FILE + b"e"),
    "top key twice": info_dict(b"x", {b"x": sized(5)})[:-1] + b"4:name1:ye",
    "bytes after the end": info_dict(b"x", {b"x": sized(5)}) + b"e",
    "integer as a key": _raw(b"di5e" + _FILE + b"e"),
    "depth of 50,000": _raw(b"d1:d" * 50_000 + b"0:0:" + b"e" * 50_000),
    "lists of depth 200,000": b"l" * 200_000,
    "depth of 200 names": info_dict(b"x", nested(200)),
    "file that is a directory too": info_dict(b"x", {b"x": {b"": {b"length": 0}, b"y": sized(5)}}),
    "file tree that is a file": info_dict(b"x", {b"": {b"length": 5, b"pieces root": ROOT}}),
    "pad file": info_dict(b"x", {b"x": {b"": {b"attr": b"p", b"length": 5, b"pieces root": ROOT}}}),
    "pads directory": info_dict(b"x", {b".pad": {b"1": {b"": {b"attr": b"p", b"length": 5}}}}),
    "symbolic link": info_dict(b"x", {b"x": {b"": {b"attr": b"l", b"length": 0, b"symlink path": [b"etc"]}}}),
    "executable": info_dict(b"x", {b"x": {b"": {b"attr": b"x", b"length": 5, b"pieces root": ROOT}}}),
    "root without length": info_dict(b"x", {b"x": sized(0)}),
    "root too short": info_dict(b"x", {b"x": sized(5, ROOT[:-1])}),
    "piece length of 0": info_dict(b"x", {b"x": sized(5)}, piece_length=0),
    "piece length of 1": info_dict(b"x", {b"x": sized(5)}, piece_length=1),
    "piece length that is no power of two": info_dict(b"x", {b"x": sized(5)}, piece_length=PIECE_LENGTH + 1),
    "piece length beyond all": info_dict(b"x", {b"x": sized(5)}, piece_length=2 * MAX_PIECE_LENGTH),
    "a v1 torrent inside": info_dict(b"x", {b"x": sized(5)}, pieces=ROOT[:20], length=5),
    "another file list": info_dict(b"x", {b"x": sized(5)}, files=[{b"length": 5, b"path": [b"..", b"y"]}]),
    "not private": info_dict(b"x", {b"x": sized(5)}, private=0),
    "trackers": info_dict(b"x", {b"x": sized(5)}, announce=b"http://127.0.0.1/"),
    "web seeds": info_dict(b"x", {b"x": sized(5)}, **{"url-list": b"http://127.0.0.1/"}),
    "dot dot": info_dict(b"x", tree_of({(b"..", b"x"): b"x"})),
    "dot dot as the name": info_dict(b"..", {b"x": sized(5)}),
    "slash in a name": info_dict(b"x", tree_of({(b"a/../../x",): b"x"})),
    "absolute name": info_dict(b"/etc/passwd", {b"/etc/passwd": sized(5)}),
    "empty name": info_dict(b"", {b"x": sized(5)}),
    "nul in a name": info_dict(b"x", tree_of({(b"x\0.txt",): b"x"})),
    "name that is not UTF-8": info_dict(b"x", tree_of({(b"\xff\xfe",): b"x"})),
    "name with a surrogate": info_dict(b"x", tree_of({(b"\xed\xa0\x80",): b"x"})),
    "name of 2,000 bytes": info_dict(b"x", tree_of({(b"x" * 2_000,): b"x"})),
    "no salt": encode({b"file tree": {}, b"meta version": 2, b"name": b"x", b"piece length": 16_384, b"private": 1}),
    "nothing": b"",
    "an integer": b"i5e",
}  # fmt: skip

#: Names that a parser takes, and that are dangerous on some system.
TRICKS = (
    "CON", "con.txt", "NUL", "COM1", "LPT9.log", "com\u00b9", "aux", "CLOCK$", "..\\..\\evil.exe", "C:\\Windows\\x",
    "\\\\host\\share", "file.txt:stream", "file.txt::$DATA", "~root", "~", "-rf", "$(reboot)", "`reboot`", "%2e%2e%2fx",
    "x\u202egpj.exe", "\u200b", "a\u2028b", "line\nbreak", "tab\t", "bell\a", "\x1b[2J", "\x7f", "trailing.",
    "trailing ", " leading", "...", ". .", ".bashrc", ".ssh", "desktop.ini", "Thumbs.db", "x" * 255,
    "\u00e9" * 130, "e\u0301", "\u00e9", "\u00c9", "\ufb00",
    "\u00df", "\u1e9e", "SS", "\u017f", "K", "\u0130", "\u0131", "\u212a", "\u00c5",
    "A\u030a", "\ufeffx", "\ufffe", "\U000e0041", "\U0001f600" * 60, "a" * 250 + ".tar.gz", ".part", ".x.part",
    "file (1)", "file", "FILE", "unnamed",
)  # fmt: skip
