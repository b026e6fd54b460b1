"""Bencoding as BEP 3 defines it: canonical only, and safe on hostile input.

What :func:`decode` accepts, :func:`encode` turns into the same bytes again. Time and memory are linear in the input,
and nesting is a list here, not the interpreter's stack.
"""

from __future__ import annotations

import re
from typing import TypeAlias

from .errors import LimitExceeded, ProtocolError

Value: TypeAlias = "int | bytes | list[Value] | dict[bytes, Value]"

_INTEGER = re.compile(rb"i(0|-?[1-9][0-9]{0,18})e")
_LENGTH = re.compile(rb"(0|[1-9][0-9]{0,9}):")
_LIST, _DICT, _INT, _END = b"ldie"


def encode(value: Value) -> bytes:
    """The one canonical form of `value`: keys sorted by their bytes."""
    parts: list[bytes] = []
    _write(value, parts)
    return b"".join(parts)


def _write(value: Value, parts: list[bytes]) -> None:
    match value:
        case int():
            parts.append(b"i%de" % value)
        case bytes():
            parts.append(b"%d:" % len(value))
            parts.append(value)
        case list():
            parts.append(b"l")
            for item in value:
                _write(item, parts)
            parts.append(b"e")
        case dict():
            parts.append(b"d")
            for key in sorted(value):
                _write(key, parts)
                _write(value[key], parts)
            parts.append(b"e")


def decode(data: bytes, *, max_depth: int, max_tokens: int) -> Value:
    """Read one bencoded value that fills `data`.

    :param max_depth: how deep lists and dicts may nest.
    :param max_tokens: how many values there may be in all, lists and dicts counted twice.
    :raises LimitExceeded: it is too deep or has too many values.
    :raises ProtocolError: it is not bencoded, or not canonically: keys out of order or twice, a leading zero, an
        integer beyond 64 bits, bytes after the end.
    """
    reader = _Reader(data, max_depth)
    for _ in range(max_tokens):
        if reader.step():
            return reader.result()
    raise LimitExceeded("more values than allowed")


class _Reader:
    """Reads one token a step, and keeps the open lists and dicts and each dict's latest key."""

    def __init__(self, data: bytes, max_depth: int) -> None:
        self._data = data
        self._position = 0
        self._max_depth = max_depth
        self._open: list[list[Value] | dict[bytes, Value]] = []
        self._keys: list[bytes | None] = []
        self._top: Value = 0

    def step(self) -> bool:
        """Read a token and the ends after it; True once the outermost value is complete."""
        if self._open and isinstance(self._open[-1], dict):
            if self._closes():
                return self._close()
            self._read_key()
        elif self._open and self._closes():
            return self._close()
        kind = self._data[self._position] if self._position < len(self._data) else None
        if kind == _LIST:
            return self._enter([])
        if kind == _DICT:
            return self._enter({})
        self._put(self._integer() if kind == _INT else self._string())
        return not self._open

    def result(self) -> Value:
        if self._position != len(self._data):
            raise ProtocolError("bencoding: bytes after the end")
        return self._top

    def _closes(self) -> bool:
        return self._position < len(self._data) and self._data[self._position] == _END

    def _close(self) -> bool:
        self._position += 1
        self._open.pop()
        self._keys.pop()
        return not self._open

    def _enter(self, value: list[Value] | dict[bytes, Value]) -> bool:
        if len(self._open) >= self._max_depth:
            raise LimitExceeded(f"nested deeper than {self._max_depth}")
        self._position += 1
        self._put(value)
        self._open.append(value)
        self._keys.append(None)
        return False

    def _put(self, value: Value) -> None:
        if not self._open:
            self._top = value
            return
        parent = self._open[-1]
        if isinstance(parent, list):
            parent.append(value)
        else:
            key = self._keys[-1]
            assert key is not None
            parent[key] = value

    def _read_key(self) -> None:
        key, last = self._string(), self._keys[-1]
        if last is not None and key <= last:
            raise ProtocolError("bencoding: keys out of order")
        self._keys[-1] = key

    def _integer(self) -> int:
        found = _INTEGER.match(self._data, self._position)
        value = int(found[1]) if found else 1 << 63
        if found is None or not -(1 << 63) <= value < 1 << 63:
            raise ProtocolError(f"bencoding: no integer of 64 bits at {self._position}")
        self._position = found.end()
        return value

    def _string(self) -> bytes:
        found = _LENGTH.match(self._data, self._position)
        end = found.end() + int(found[1]) if found else -1
        if found is None or end > len(self._data):
            raise ProtocolError(f"bencoding: no string at {self._position}")
        self._position = end
        return self._data[found.end() : end]
