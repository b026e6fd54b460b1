"""The gate between a record's fields and a database's cells: each value is checked on its way in and on its way out.

A gate raises ``ValueError`` for what it does not let through. The message never holds the value: it may be a secret.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from slixmpp import JID

from ..constants import Route
from ..messages import MAX_ID, MAX_INDEX, MAX_NUMBER, MAX_SELECT, Candidate
from ..sources import Stamp

#: What SQLite keeps.
Cell: TypeAlias = int | float | str | bytes | None

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

#: Bytes of a blob at most.
MAX_BLOB = 128 * 1024 * 1024
#: Characters of a JID (RFC 7622 section 3.1: three parts of 1,023 bytes), and bytes of a path.
MAX_JID, MAX_PATH = 3_071, 32_768
#: Seconds since the epoch: some 30,000 years.
_MAX_MOMENT = 1e12
#: So many stanzas of one offer.
_MAX_STANZAS = 1_024
#: So many addresses of others.
_MAX_CANDIDATES = 1_024

_TOKEN = re.compile(rf"[A-Za-z0-9._~-]{{1,{MAX_ID}}}")
_STAMP = struct.Struct("<qqqQ")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Gate(Generic[T]):
    """How a field becomes a cell, and a cell a field."""

    write: Callable[[T], Cell]
    read: Callable[[Cell], T]


def optional(gate: Gate[T]) -> Gate[T | None]:
    """None passes too, as NULL."""
    return Gate(
        lambda value: None if value is None else gate.write(value),
        lambda cell: None if cell is None else gate.read(cell),
    )


def text(most: int) -> Gate[str]:
    """A text of `most` characters at most, for machines: what does not fit is refused."""

    def check(value: Cell) -> str:
        whole = _of(str, value)
        _require(len(whole) <= most, f"more than {most} characters")
        _require(_is_unicode(whole), "a surrogate, which is no character")
        return whole

    return Gate(check, check)


def prose(most: int) -> Gate[str]:
    """A text for people: what is beyond `most` characters is cut off, and what is no character becomes ``?``."""
    checked = text(most)
    return Gate(lambda value: _of(str, value)[:most].encode(errors="replace").decode(), checked.read)


def number(lowest: int = 0, highest: int = MAX_NUMBER) -> Gate[int]:
    """A whole number."""

    def check(value: Cell) -> int:
        whole = _of(int, value)
        _require(lowest <= whole <= highest, f"not from {lowest} to {highest}")
        return whole

    return Gate(check, check)


def blob(most: int = MAX_BLOB, exactly: int | None = None) -> Gate[bytes]:
    """Bytes."""

    def check(value: Cell) -> bytes:
        whole = _of(bytes, value)
        _require(len(whole) <= most if exactly is None else len(whole) == exactly, f"{len(whole)} bytes")
        return whole

    return Gate(check, check)


def word(words: type[E]) -> Gate[E]:
    """One of an enumeration."""
    return Gate(lambda value: words(value).value, lambda cell: words(_of(str, cell)))


def one_of(words: Collection[str]) -> Gate[Any]:
    """One of some words."""

    def check(value: Cell) -> str:
        _require(value in words, "not a word that is known")
        return _of(str, value)

    return Gate(check, check)


def _read_mark(cell: Cell) -> bool:
    _require(cell in (None, 1), "neither nothing nor 1")
    return cell is not None


def _token(value: Cell) -> str:
    _require(bool(_TOKEN.fullmatch(_of(str, value))), "not an id")
    return _of(str, value)


def _moment(value: Cell) -> float:
    seconds = float(value) if type(value) is int else _of(float, value)
    _require(math.isfinite(seconds) and 0 <= seconds <= _MAX_MOMENT, "not a time")
    return seconds


def _instant(value: datetime) -> int:
    _require(_of(datetime, value).tzinfo is not None, "a time without a zone")
    microseconds = (value - _EPOCH) // _MICROSECOND
    _require(microseconds >= 0, "a time before 1970")
    return microseconds


def _read_instant(cell: Cell) -> datetime:
    microseconds = _of(int, cell)
    _require(microseconds >= 0, "a time before 1970")
    try:
        return _EPOCH + microseconds * _MICROSECOND
    except OverflowError:
        raise ValueError("a time too late") from None


def _read_flag(cell: Cell) -> bool:
    _require(cell in (0, 1), "neither 0 nor 1")
    return bool(cell)


def _jid(value: JID) -> str:
    whole = str(_of(JID, value))
    _require(bool(whole), "an empty JID")
    return whole


def _read_jid(cell: Cell) -> JID:
    whole = _of(str, cell)
    _require(0 < len(whole) <= MAX_JID, "not a JID")
    return JID(whole)


def _path(value: Path) -> bytes:
    _require(isinstance(value, Path) and value.is_absolute(), "not an absolute path")
    return os.fsencode(value)


def _read_path(cell: Cell) -> Path:
    whole = _of(bytes, cell)
    _require(len(whole) <= MAX_PATH and b"\0" not in whole, "not a path")
    path = Path(os.fsdecode(whole))
    _require(path.is_absolute(), "not an absolute path")
    return path


def _stamps(value: tuple[Stamp, ...]) -> bytes:
    try:
        return b"".join(_STAMP.pack(*stamp) for stamp in value)
    except struct.error:
        raise ValueError("not stamps") from None


def _read_stamps(cell: Cell) -> tuple[Stamp, ...]:
    whole = _of(bytes, cell)
    _require(len(whole) % _STAMP.size == 0, "not stamps")
    return tuple(_STAMP.iter_unpack(whole))


def _read_stamp(cell: Cell) -> Stamp:
    stamps = _read_stamps(cell)
    _require(len(stamps) == 1, "not a stamp")
    return stamps[0]


def _select(value: frozenset[int]) -> bytes:
    indices = sorted(value)
    _require(len(indices) <= MAX_SELECT and all(0 <= index <= MAX_INDEX for index in indices), "not a selection")
    return struct.pack(f"<{len(indices)}I", *indices)


def _read_select(cell: Cell) -> frozenset[int]:
    whole = _of(bytes, cell)
    _require(len(whole) % 4 == 0, "not a selection")
    indices = frozenset(struct.unpack(f"<{len(whole) // 4}I", whole))
    _select(indices)
    return indices


def _routes(value: tuple[tuple[Route, int], ...]) -> str:
    counts = {Route(route).value: number().write(count) for route, count in value}
    _require(len(counts) == len(value), "a route twice")
    return json.dumps(counts)


def _read_routes(cell: Cell) -> tuple[tuple[Route, int], ...]:
    counts = _parsed(cell)
    _require(isinstance(counts, dict), "not bytes by route")
    return tuple((Route(route), number().read(count)) for route, count in counts.items())


def _stanzas(value: tuple[tuple[JID, str], ...]) -> str:
    _require(len(value) <= _MAX_STANZAS, "too many stanzas")
    return json.dumps([(_jid(to), _STANZA_ID.write(id)) for to, id in value])


def _read_stanzas(cell: Cell) -> tuple[tuple[JID, str], ...]:
    pairs = _parsed(cell)
    _require(isinstance(pairs, list) and len(pairs) <= _MAX_STANZAS, "not stanzas")
    _require(all(isinstance(pair, list) and len(pair) == 2 for pair in pairs), "not stanzas")
    return tuple((_read_jid(to), _STANZA_ID.read(id)) for to, id in pairs)


def _candidates(value: tuple[Candidate, ...]) -> str:
    _require(len(value) <= _MAX_CANDIDATES, "too many addresses")
    return json.dumps([(str(candidate.address), candidate.port) for candidate in value])


def _read_candidates(cell: Cell) -> tuple[Candidate, ...]:
    pairs = _parsed(cell)
    _require(isinstance(pairs, list) and len(pairs) <= _MAX_CANDIDATES, "not addresses")
    _require(all(isinstance(pair, list) and len(pair) == 2 for pair in pairs), "not addresses")
    return tuple(Candidate(ip_address(_of(str, host)), number(1, 65_535).read(port)) for host, port in pairs)


def _parsed(cell: Cell) -> Any:
    try:
        return json.loads(_of(str, cell))
    except RecursionError:
        raise ValueError("nested too deep") from None


def _of(kind: type[T], value: object) -> T:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{type(value).__name__} where {kind.__name__} belongs")
    return value


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def _is_unicode(whole: str) -> bool:
    try:
        whole.encode()
    except UnicodeEncodeError:
        return False
    return True


_STANZA_ID = text(1_024)

#: An offer's or a transfer's id; and one that may be missing, kept as an empty text so that it can be part of a key.
token: Gate[str] = Gate(_token, _token)
token_or_none: Gate[str | None] = Gate(
    lambda value: "" if value is None else _token(value), lambda cell: None if cell == "" else _token(cell)
)
#: Seconds since the epoch, and an aware datetime to the microsecond, which comes back in UTC.
moment: Gate[float] = Gate(_moment, _moment)
instant: Gate[datetime] = Gate(_instant, _read_instant)
flag: Gate[bool] = Gate(lambda value: int(_of(bool, value)), _read_flag)
#: A flag whose column came later: in older rows there is nothing.
mark: Gate[bool] = Gate(lambda value: int(_of(bool, value)) or None, _read_mark)
jid: Gate[JID] = Gate(_jid, _read_jid)
#: Bytes, since the name of a directory need not be UTF-8.
path: Gate[Path] = Gate(_path, _read_path)
stamp: Gate[Stamp] = Gate(lambda value: _stamps((value,)), _read_stamp)
stamps: Gate[tuple[Stamp, ...]] = Gate(_stamps, _read_stamps)
select: Gate[frozenset[int]] = Gate(_select, _read_select)
routes: Gate[tuple[tuple[Route, int], ...]] = Gate(_routes, _read_routes)
stanzas: Gate[tuple[tuple[JID, str], ...]] = Gate(_stanzas, _read_stanzas)
candidates: Gate[tuple[Candidate, ...]] = Gate(_candidates, _read_candidates)
