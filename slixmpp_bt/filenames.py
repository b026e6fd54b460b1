"""Names that a peer chose, made into names that are safe on every file system. Pure: nothing here touches the disk.

Safe means: one name and not a path; nothing that hides what it is (controls, bidirectional overrides); nothing that
is a device or a stream on Windows; no two names in a directory that a file system could take for the same.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

#: Bytes of a name in UTF-8, as most file systems have it.
MAX_BYTES = 255

_UNNAMED = "unnamed"
#: What separates paths or means something on Windows.
_RESERVED = frozenset('/\\:<>"|?*')
_DEVICES = frozenset(
    ["CON", "PRN", "AUX", "NUL", "CLOCK$", "CONIN$", "CONOUT$"]
    + [f"{port}{number}" for port in ("COM", "LPT") for number in range(10)]
)
_EXTENSION = re.compile(r"(?<=.)(?:\.tar)?\.[^. ]{1,16}$")


def safe_name(name: str, *, hidden: bool = False) -> str:
    """`name` as a name for a file or directory: NFC, at most 255 bytes with its extension kept, never empty.

    Separators, controls and what Windows reserves become ``_``, format characters (bidirectional overrides, zero
    width) vanish, every kind of space becomes a plain one, dots and spaces at the end and spaces at the beginning
    are trimmed, and a Windows device gets a ``_`` in front. Applied again it changes nothing.

    :param hidden: keep dots at the beginning. They are trimmed from what lands directly in the user's directory:
        what was received is to be seen there, and must not become a start-up file.
    """
    name = "".join(map(_safe, unicodedata.normalize("NFC", name)))
    name = _trim(unicodedata.normalize("NFC", name), hidden)
    # Windows takes CON.txt, "con .txt" and COM with a superscript one for the device too.
    if unicodedata.normalize("NFKC", name.partition(".")[0]).rstrip().upper() in _DEVICES:
        name = "_" + name
    return _trim(shorten(name, MAX_BYTES), hidden) or _UNNAMED


def _safe(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf":
        return ""
    if category in ("Cc", "Cs", "Zl", "Zp") or character in _RESERVED:
        return "_"
    return " " if category == "Zs" else character


def _trim(name: str, hidden: bool) -> str:
    return name.rstrip(" .").lstrip(" " if hidden else " .")


def shorten(name: str, most: int, tail: str = "") -> str:
    """`name` with `tail` before its extension, cut before both to `most` bytes in UTF-8, never within a character.

    An extension that leaves no room is cut too.
    """
    found = _EXTENSION.search(name)
    stem, end = (name[: found.start()], tail + found[0]) if found else (name, tail)
    room = most - len(end.encode())
    if room < 1:
        return name.encode()[:most].decode(errors="ignore")
    return stem.encode()[:room].decode(errors="ignore") + end


def numbered(name: str, number: int) -> str:
    """``name (1).ext`` for 1 and so on; `name` itself for 0."""
    return shorten(name, MAX_BYTES, f" ({number})") if number else name


def folded(name: str) -> str:
    """What two names have in common if some file system takes them for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def safe_paths(paths: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Safe names for the files and directories of one tree, each given by the names that lead to it.

    Where two names in a directory fall together, the first keeps it and the others are numbered, in the order given:
    the same paths always get the same names. Time is linear in the number of names.
    """
    root = _Directory(())
    return [root.find(path) for path in paths]


class _Directory:
    """What is known of one name of the tree, a file's too: its safe path, and what was named below it."""

    def __init__(self, path: tuple[str, ...]) -> None:
        self._path = path
        self._inner: dict[str, _Directory] = {}
        #: For each name in use, folded, how far it was counted.
        self._taken: dict[str, int] = {}

    def find(self, path: tuple[str, ...]) -> tuple[str, ...]:
        """The safe path of what `path` leads to."""
        here = self
        for name in path:
            if name not in here._inner:
                here._inner[name] = _Directory((*here._path, here._free(safe_name(name, hidden=True))))
            here = here._inner[name]
        return here._path

    def _free(self, name: str) -> str:
        """`name`, or the first numbered one that is not taken; it is taken then."""
        first, candidate = folded(name), name
        number = self._taken.get(first, 0)
        while folded(candidate) in self._taken:
            number += 1
            candidate = numbered(name, number)
        self._taken[folded(candidate)] = 0
        self._taken[first] = number
        return candidate
