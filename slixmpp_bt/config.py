"""The plugin's configuration: checked as a whole, frozen afterwards."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import os
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import platformdirs
from slixmpp import JID

from .constants import Mode, Route
from .errors import ConfigError

if TYPE_CHECKING:
    from .backends import Backend
    from .incoming import IncomingOffer

KIB, MIB, GIB, DAY = 1024, 1024**2, 1024**3, 86_400

AutoAccept = bool | Literal["roster"] | frozenset[JID] | Callable[["IncomingOffer"], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An IP address and a port; port 0 means any (to listen on) or the one listened on (to advertise)."""

    address: IPv4Address | IPv6Address
    port: int = 0

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read ``host`` or ``host:port``, where an IPv6 host with a port stands in brackets.

        :raises ValueError: it is not that, or the host is a name.
        """
        if not isinstance(text, str):
            raise ValueError(f"an address is a string such as '192.0.2.1:6881', not {text!r}")
        bracketed = re.fullmatch(r"\[([^]]*:[^]]*)\](?::(.*))?", text)
        plain = re.fullmatch(r"([^:]*):([^:]*)", text)
        host, port = found.groups() if (found := bracketed or plain) else (text, None)
        if port is not None and not (re.fullmatch("[0-9]{1,5}", port) and int(port) < 65536):
            raise ValueError(f"{text!r} has no port from 0 to 65535")
        return cls(ip_address(host), int(port or 0))


@dataclass(frozen=True, slots=True)
class Limits:
    """What is received, and how long things live. Sizes in bytes, times in seconds."""

    max_size: int = GIB
    max_files: int = 10_000
    max_manifest_size: int = 4 * MIB
    max_offers_per_peer: int = 20
    max_transfers: int = 32
    min_free_space: int = 256 * MIB
    in_band_max_size: int = 2 * MIB
    offer_ttl: int = 7 * DAY
    transfer_ttl: int = 30 * DAY

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            lowest = 0 if f.name in ("min_free_space", "in_band_max_size") else 1
            _whole(f"limits[{f.name!r}]", getattr(self, f.name), lowest)


@dataclass(frozen=True, slots=True)
class Config:
    """The plugin's configuration. :meth:`parse` makes one of what a user wrote.

    Every key, its default and its meaning stand in the reference (docs/reference/config).
    """

    download_dir: Path | None = None
    auto_accept: AutoAccept = False
    receive: bool = True
    mode: Mode = Mode.SEALED
    state_dir: Path | None = field(default_factory=lambda: platformdirs.user_state_path("slixmpp-bt"))
    instance: str = "default"
    listen: tuple[Endpoint, ...] = (Endpoint(IPv4Address(0)), Endpoint(IPv6Address("::")))
    advertise: tuple[Endpoint, ...] = ()
    reveal_address: Literal["invited", "roster", "never"] = "invited"
    port_mapping: bool = False
    backend: Literal["libtorrent", "plain"] | Callable[..., Backend] = "libtorrent"
    routes: frozenset[Route] = frozenset(Route)
    upload_limit: int | None = None
    download_limit: int | None = None
    seed_after: int = 0
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def parse(cls, given: Mapping[str, Any] | None) -> Self:
        """Check what a user wrote.

        :raises ConfigError: naming the key, and for an unknown one the nearest that exists.
        """
        if given is not None and not isinstance(given, Mapping):
            raise ConfigError(f"the configuration must be a mapping, not {given!r}")
        return cls().replace(**{str(key): value for key, value in (given or {}).items()})

    def replace(self, /, **changes: Any) -> Self:
        """A copy with `changes`, checked as a whole.

        :raises ConfigError: as :meth:`parse`; this one stays as it was.
        """
        known = {f.name for f in dataclasses.fields(self)}
        for key in changes:
            if key not in known:
                raise ConfigError(f"unknown key {key!r}{_nearest(key, known)}")
        checked = {key: _CHECKS[key](key, value) for key, value in changes.items() if key != "limits"}
        if "limits" in changes:
            checked["limits"] = _limits(self.limits, changes["limits"])
        new = dataclasses.replace(self, **checked)
        if new.download_dir is None and new.auto_accept is not False:
            raise ConfigError("auto_accept needs a download_dir: files that nobody asked about must go somewhere")
        return new


def _nearest(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _whole(key: str, value: object, lowest: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{key} must be a whole number, not {value!r}")
    if not lowest <= value < 2**63:
        raise ConfigError(f"{key} must be from {lowest} to 2**63 - 1, not {value!r}")
    return value


def _seconds(key: str, value: object) -> int:
    return _whole(key, value)


def _rate(key: str, value: object) -> int | None:
    return None if value is None else _whole(key, value, 1)


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{key} must be True or False, not {value!r}")
    return value


def _directory(key: str, value: object) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str | Path) or not str(value):
        raise ConfigError(f"{key} must be a path or None, not {value!r}")
    try:
        path = Path(value).expanduser().absolute()
        os.fsencode(path)
        if not (existing := next(p for p in (path, *path.parents) if p.exists())).is_dir():
            raise NotADirectoryError(f"{existing} is not a directory")
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: there is no such home directory
        raise ConfigError(f"{key}: {error}") from None
    if "\0" in str(path):
        raise ConfigError(f"{key}: {value!r} is not a path")
    return path


def _instance(key: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > 64 or not re.fullmatch("[A-Za-z0-9-]+", value):
        raise ConfigError(f"{key} must be a short name of ASCII letters, digits and hyphens, not {value!r}")
    return value


def _one_of(words: Iterable[str]) -> Callable[[str, object], str]:
    words = tuple(words)

    def check(key: str, value: object) -> str:
        if value not in words:
            raise ConfigError(f"{key} must be one of {', '.join(map(repr, words))}, not {value!r}")
        return str(value)

    return check


def _mode(key: str, value: object) -> Mode:
    return Mode(_one_of(Mode)(key, value))


def _endpoints(key: str, value: object) -> tuple[Endpoint, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, Collection) or (key == "listen" and not values):
        raise ConfigError(f"{key} must be a list of addresses such as '192.0.2.1:6881', not {value!r}")
    try:
        endpoints = tuple(Endpoint.parse(v) for v in values)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None
    if key == "advertise" and any(e.address.is_unspecified or e.address.is_multicast for e in endpoints):
        raise ConfigError(f"{key} must name addresses that others can dial, not {value!r}")
    return endpoints


def _routes(key: str, value: object) -> frozenset[Route]:
    if value == "all":
        return frozenset(Route)
    if isinstance(value, str) or not isinstance(value, Collection) or not value:
        raise ConfigError(f"{key} must be a list of some of {', '.join(Route)}, not {value!r}")
    return frozenset(Route(_one_of(Route)(key, v)) for v in value)


def _backend(key: str, value: object) -> object:
    if callable(value):
        return value
    return _one_of(("libtorrent", "plain"))(key, value)


def _auto_accept(key: str, value: object) -> AutoAccept:
    if isinstance(value, bool):
        return value
    if callable(value):
        if not (inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(getattr(value, "__call__", None))):  # noqa: B004
            raise ConfigError(f"{key} must be an 'async def' that takes the offer; {value!r} is not one")
        return cast("AutoAccept", value)
    if value == "roster":
        return "roster"
    if isinstance(value, str) or not isinstance(value, Collection):
        raise ConfigError(
            f"{key} must be False, True, 'roster', a list of bare JIDs or an async function, not {value!r}"
        )
    jids = set()
    for text in value:
        try:
            jid = JID(str(text)) if isinstance(text, str | JID) else None
        except ValueError:
            jid = None
        if jid is None or not jid.bare:
            raise ConfigError(f"{key}: {text!r} is not a JID")
        if jid.resource:
            raise ConfigError(f"{key}: {text!r} names one device; give the bare JID {jid.bare!r}")
        jids.add(jid)
    return frozenset(jids)


def _limits(old: Limits, value: object) -> Limits:
    if isinstance(value, Limits):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f"limits must be a mapping or Limits, not {value!r}")
    known = {f.name for f in dataclasses.fields(Limits)}
    for key in value:
        if key not in known:
            raise ConfigError(f"unknown key limits[{key!r}]{_nearest(str(key), known)}")
    return dataclasses.replace(old, **value)


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "download_dir": _directory,
    "auto_accept": _auto_accept,
    "receive": _flag,
    "mode": _mode,
    "state_dir": _directory,
    "instance": _instance,
    "listen": _endpoints,
    "advertise": _endpoints,
    "reveal_address": _one_of(("invited", "roster", "never")),
    "port_mapping": _flag,
    "backend": _backend,
    "routes": _routes,
    "upload_limit": _rate,
    "download_limit": _rate,
    "seed_after": _seconds,
}
