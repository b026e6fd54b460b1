"""What the backend conformance suite works with: files, their manifest, and a loop for each test."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from ..backends import UNLIMITED, Admission, Backend, Event, RateLimits, Swarm
from ..config import Endpoint
from ..constants import Mode
from ..manifest import Manifest, ManifestLimits, make
from ..sealing import Authority

KIB = 1024
#: Seconds after which something that must happen counts as missing: a limit for slow machines, not a measure.
PATIENCE = 30.0
LOOPBACK = (Endpoint.parse("127.0.0.1"),)
PRIVATE = Admission(Mode.PRIVATE)

_GENEROUS = ManifestLimits(max_size=1 << 40, max_files=100_000, max_length=1 << 40)

S = TypeVar("S")
P = ParamSpec("P")
E = TypeVar("E", bound=Event)


def on_a_loop(
    test: Callable[Concatenate[S, P], Awaitable[None]],
) -> Callable[Concatenate[S, P], None]:
    """Run a test on an event loop of its own, without a pytest plugin, and fail it for tasks that are left over."""

    async def watched(self: S, *args: P.args, **kwargs: P.kwargs) -> None:
        await asyncio.wait_for(_settled(test(self, *args, **kwargs)), 2 * PATIENCE)

    @functools.wraps(test)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(watched(self, *args, **kwargs))

    return run


async def _settled(test: Awaitable[None]) -> None:
    before = asyncio.all_tasks()
    await test
    left = asyncio.all_tasks() - before
    assert not left, f"still running after the test: {left}"


@dataclass(frozen=True)
class Material:
    """Files as a sender has them, and what a receiver knows of them.

    :ivar manifest: with piece layers.
    :ivar bare: the same as parsed from the info dict, without them.
    :ivar paths: the files by index.
    :ivar parts: where a receiver puts them, by index.
    :ivar authority: of a sealed offer; None makes it a private one.
    """

    manifest: Manifest
    bare: Manifest
    paths: Mapping[int, Path]
    parts: Mapping[int, Path]
    authority: Authority | None = None

    @property
    def mode(self) -> Mode:
        """That of the offer."""
        return Mode.PRIVATE if self.authority is None else Mode.SEALED

    def admission(self) -> Admission:
        """A new one for whoever is invited."""
        return PRIVATE if self.authority is None else admitted_by(self.authority)

    def piece(self, index: int) -> bytes:
        """The content of a piece."""
        file = self.manifest.file_of(index)
        start = (index - file.first_piece) * self.manifest.piece_length
        return self.paths[file.index].read_bytes()[start : start + self.manifest.piece_size(index)]

    def arrived(self, index: int = 0) -> bool:
        """Whether a receiver's file is the sender's."""
        return self.parts[index].read_bytes() == self.paths[index].read_bytes()

    def at(self, directory: Path) -> Material:
        """The same for another receiver, in `directory`."""
        directory.mkdir(parents=True, exist_ok=True)
        return replace(self, parts={index: directory / f"{index}.part" for index in self.paths})


def admitted_by(authority: Authority) -> Admission:
    """An admission to the offer of `authority`, valid now."""
    return Admission(Mode.SEALED, *authority.issue(datetime.now(UTC)))


async def material(
    directory: Path,
    *sizes: int,
    seed: int = 0,
    names: Mapping[int, str] | None = None,
    mode: Mode = Mode.PRIVATE,
) -> Material:
    """One file of random bytes, or a directory of several, of `sizes`; the same again for the same `seed`.

    A size that is that of the file before gets the same content.
    """
    rng = random.Random(seed)  # noqa: S311 - content, not secrets
    content = b""
    source, target = directory / f"source{seed}", directory / f"target{seed}"
    source.mkdir()
    for index, size in enumerate(sizes):
        content = content if len(content) == size else rng.randbytes(size)
        (source / (names or {}).get(index, f"{index:05}")).write_bytes(content)
    offered = source if len(sizes) > 1 else next(source.iterdir())
    authority = Authority.make(datetime.now(UTC)) if mode is Mode.SEALED else None
    extra = {} if authority is None else {b"ssl-cert": authority.certificate}
    made = await make(offered, salt=rng.randbytes(16), extra=extra)
    bare = Manifest.parse(made.manifest.info, _GENEROUS)
    return Material(made.manifest, bare, made.paths, {}, authority).at(target)


Factory = Callable[[tuple[Endpoint, ...], RateLimits], Backend]


@asynccontextmanager
async def running(
    factory: Factory, listen: tuple[Endpoint, ...] = LOOPBACK, rates: RateLimits = UNLIMITED
) -> AsyncIterator[Backend]:
    """A backend that is closed afterwards."""
    backend = factory(listen, rates)
    try:
        yield backend
    finally:
        await asyncio.wait_for(backend.aclose(), PATIENCE)


async def event(swarm: Swarm, kind: type[E], matching: Callable[[E], bool] = lambda _: True) -> E:
    """Read the events of `swarm` up to the first one of `kind` that is `matching`."""

    async def read() -> E:
        async for found in swarm.events:
            if isinstance(found, kind) and matching(found):
                return found
        raise AssertionError(f"the events ended before a {kind.__name__}")

    return await asyncio.wait_for(read(), PATIENCE)


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until `condition` holds."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"in vain waited for: {what}"
        await asyncio.sleep(0.01)


def open_below(directory: Path) -> list[str]:
    """The files below `directory` that this process has open; empty where the system does not tell."""
    table = Path("/proc/self/fd")
    found = []
    for entry in table.iterdir() if table.is_dir() else ():
        try:
            target = entry.readlink()
        except OSError:  # closed meanwhile: it was the one of iterdir()
            continue
        if target.is_relative_to(directory):
            found.append(str(target))
    return found
