"""What a hostile sender announces and sends over a stream, against the fetcher and a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slixmpp import JID

from slixmpp_bt.backends.plain import PlainBackend
from slixmpp_bt.config import Config
from slixmpp_bt.constants import Mode, Route
from slixmpp_bt.context import Context
from slixmpp_bt.errors import ProtocolError
from slixmpp_bt.fetching import FETCH_SIZE, Fetcher
from slixmpp_bt.manifest import read_piece
from slixmpp_bt.messages import BLOCK, Fetch, Fetching
from slixmpp_bt.outbox import Outbox
from slixmpp_bt.sealing import OVERHEAD
from slixmpp_bt.seals import Opener, Sealer
from slixmpp_bt.tasks import Tasks
from slixmpp_bt.testing._material import Material, material
from slixmpp_bt.wire import StreamBroken

from . import cursory, patient

EVE, BOB = JID("eve@example.org/x"), JID("bob@example.org/x")
PIECES = 5


class Hostile:
    """The wire to a sender who announces, and then sends, what a test says: also a stream, expected and open.

    :param chunks: what comes; None breaks the stream.
    """

    def __init__(self, announced: int | None, chunks: list[bytes | None]) -> None:
        self.fetches = 0
        self._announced, self._chunks = announced, chunks

    async def relays(self, *, sender: JID) -> tuple[()]:
        return ()

    async def request(self, request: Any, to: JID, **how: Any) -> Fetching:
        assert isinstance(request, Fetch)
        self.fetches += 1
        if self._announced is None:
            raise ProtocolError("no", "item-not-found")
        return Fetching(request.id, request.transfer, self._announced)

    @asynccontextmanager
    async def expect_stream(self, *what: Any, **how: Any) -> AsyncIterator[Hostile]:
        yield self

    async def opened(self) -> Hostile:
        return self

    async def receive(self) -> bytes:
        if not self._chunks:
            return b""
        chunk = self._chunks.pop(0)
        if chunk is None:
            raise StreamBroken("cut")
        return chunk


@pytest.fixture(scope="module")
def given_file() -> Iterator[tuple[asyncio.Runner, Material, Material]]:
    with TemporaryDirectory() as directory, asyncio.Runner() as runner:
        plain = runner.run(material(Path(directory), PIECES * BLOCK - 777))
        sealed = runner.run(material(Path(directory), PIECES * BLOCK - 777, seed=1, mode=Mode.SEALED))
        yield runner, plain, sealed


#: What is sent: blocks of the file as they are or damaged, and anything else; cut into chunks as it comes.
things = st.lists(
    st.tuples(st.sampled_from(["right"] * 6 + ["flipped", "short", "other", "swapped"]), st.integers(0, PIECES - 1)),
    max_size=PIECES + 3,
)
chunk_sizes = st.lists(st.sampled_from([777, 4_096, BLOCK - 1, BLOCK, BLOCK + OVERHEAD, 10**6]), min_size=1, max_size=3)
announcements = st.sampled_from(["right"] * 8 + ["none", "zero", "more", "huge"])


def damaged(data: bytes, how: str, at: int) -> bytes:
    if how == "flipped":
        place = at * 1_000 % len(data)
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    return {"right": data, "short": data[: at * 100], "other": bytes(len(data)), "swapped": data[::-1]}[how]


@patient
@given(things, chunk_sizes, announcements, st.booleans(), st.sampled_from([Route.RELAY, Route.IN_BAND]))
@cursory
def test_stream_of_anything_stores_only_what_was_offered(
    given_file: tuple[asyncio.Runner, Material, Material],
    sent: list[tuple[str, int]], sizes: list[int], announced: str, sealed: bool, route: Route,
) -> None:  # fmt: skip
    runner, *materials = given_file
    runner.run(fetch(materials[sealed], sent, sizes, announced, route))


async def fetch(file: Material, sent: list[tuple[str, int]], sizes: list[int], announced: str, route: Route) -> None:
    opener = None
    if file.authority is not None:
        opener = Opener("o", "t", file.authority.certificate)
    stream = b"".join(blocks_of(file, sent, opener))
    chunks: list[bytes | None] = []
    while stream:
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(stream[:size])
        stream = stream[size:]
    right = file.manifest.size + (PIECES * OVERHEAD if opener is not None else 0)
    wire: Any = Hostile(
        {"right": right, "none": None, "zero": 0, "more": right + 1, "huge": 2**63 - 1}[announced], chunks
    )
    backend, tasks = PlainBackend(()), Tasks()
    context = Context(
        config=Config.parse({}), wire=wire, backend=backend, notify=lambda name, data: None, tasks=tasks,
        outbox=Outbox(wire, tasks), running=lambda: 0,
    )  # fmt: skip
    for part in file.parts.values():
        part.parent.mkdir(exist_ok=True)
        part.unlink(missing_ok=True)
    download = await backend.open_download(file.manifest, file.parts, file.admission())
    fetcher = Fetcher(
        context, file.manifest, download, file.manifest.pieces_of(None),
        offer="o", transfer="t", peer=lambda: EVE, local=BOB, moved=lambda: None, opener=opener,
    )  # fmt: skip
    try:
        await fetcher.run(route)
    except StreamBroken:  # a strike is one, too
        pass
    else:
        assert download.have() == file.manifest.pieces_of(None)
    assert fetcher.received <= right + max(sizes)
    assert fetcher.received <= FETCH_SIZE[route] + max(sizes)
    had = download.have()
    await download.aclose()
    await backend.aclose()
    for piece in had:
        assert read_piece(file.manifest, file.parts, piece) == file.piece(piece)


def blocks_of(file: Material, sent: list[tuple[str, int]], opener: Opener | None) -> Iterator[bytes]:
    """The right blocks up to the first lie, and then what was drawn."""
    sealer = Sealer("o", "t", opener.request) if opener is not None else None
    for place, (how, at) in enumerate(sent):
        index = place % PIECES if how == "right" else at
        data = file.piece(index)
        if sealer is not None:
            data = sealer.seal("block", index, data)
        yield damaged(data, how, at)
