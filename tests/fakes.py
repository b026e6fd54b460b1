"""Two and more exchanges joined in memory: real negotiations, files and disks; only XMPP and the swarm are scripted.

Time stands still but for :meth:`World.pass_time`, so what a timer does is seen and nothing depends on speed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from slixmpp import JID

from slixmpp_bt.backends import Admission, Backend, Download, Seed, Status
from slixmpp_bt.backends.plain import PlainBackend, PlainDownload, PlainSeed
from slixmpp_bt.config import Config
from slixmpp_bt.constants import Mode, Route
from slixmpp_bt.context import Context
from slixmpp_bt.errors import BTError, PeerGone
from slixmpp_bt.exchange import Exchange
from slixmpp_bt.incoming import IncomingOffer
from slixmpp_bt.manifest import Manifest, read_piece
from slixmpp_bt.messages import Candidate, Message, Offer, Reply, Request, Seek, Share, StreamHost, Withdraw
from slixmpp_bt.outbox import Outbox
from slixmpp_bt.outgoing import OutgoingOffer
from slixmpp_bt.policy import Peer
from slixmpp_bt.tasks import Tasks
from slixmpp_bt.testing.clock import Clock
from slixmpp_bt.transfer import Transfer
from slixmpp_bt.wire import StreamBroken

T = TypeVar("T")
WEEK = 7 * 86_400.0


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition()` is true, in real time: the loop's own may stand still."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        await asyncio.to_thread(time.sleep, 0.0005)


async def settled() -> None:
    """Wait until nothing happens any more that does not wait for a timer or an answer."""
    for _ in range(3):
        await asyncio.to_thread(time.sleep, 0.001)
        for _ in range(30):
            await asyncio.sleep(0)


async def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of `coroutine`, with a limit in real time."""
    task = asyncio.ensure_future(coroutine)
    await until(task.done)
    return task.result()


class Dialled:
    """What a handle was told about its peers."""

    def __init__(self) -> None:
        self.candidates: list[Candidate] = []
        self.paused = False
        self.closed = False
        self.uploaded = 0
        self.peers = 0
        self.share = Share(0, 1)

    def add(self, candidates: Iterable[Candidate]) -> None:
        self.candidates += [c for c in candidates if c not in self.candidates]

    def remove(self, candidates: Iterable[Candidate]) -> None:
        self.candidates = [c for c in self.candidates if c not in set(candidates)]


class ScriptedSeed(PlainSeed):
    """A seed whose uploads are what a test says."""

    dialled: Dialled

    def add_candidates(self, candidates: Iterable[Candidate]) -> None:
        super().add_candidates(candidates)
        self.dialled.add(candidates)

    def remove_candidates(self, candidates: Iterable[Candidate]) -> None:
        super().remove_candidates(candidates)
        self.dialled.remove(candidates)

    def status(self) -> Status:
        super().status()
        return Status(uploaded=self.dialled.uploaded, peers=self.dialled.peers)

    async def aclose(self) -> None:
        await super().aclose()
        self.dialled.closed = True


class ScriptedDownload(PlainDownload):
    """A download that stores for real what a test brings it."""

    dialled: Dialled
    #: Bytes that a test brought as a swarm would.
    carried = 0

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.claimed: set[int] = set()
        #: What somebody claimed while somebody else had.
        self.claimed_twice: set[int] = set()

    def claim(self, pieces: Iterable[int]) -> None:
        super().claim(pieces)
        self.claimed_twice |= self.claimed.intersection(pieces)
        self.claimed.update(pieces)

    def release(self, pieces: Iterable[int]) -> None:
        super().release(pieces)
        self.claimed.difference_update(pieces)

    def status(self) -> Status:
        return replace(super().status(), downloaded=self.carried)

    def add_candidates(self, candidates: Iterable[Candidate]) -> None:
        super().add_candidates(candidates)
        self.dialled.add(candidates)

    def remove_candidates(self, candidates: Iterable[Candidate]) -> None:
        super().remove_candidates(candidates)
        self.dialled.remove(candidates)

    def prefer(self, share: Share) -> None:
        super().prefer(share)
        self.dialled.share = share

    async def pause(self) -> None:
        await super().pause()
        self.dialled.paused = True

    async def resume(self) -> None:
        await super().resume()
        self.dialled.paused = False

    async def aclose(self) -> None:
        await super().aclose()
        self.dialled.closed = True


class ScriptedBackend(PlainBackend):
    """Claims to swarm; the pieces are carried by :meth:`World.carry`."""

    modes = frozenset(Mode)

    def __init__(self, port: int) -> None:
        super().__init__(())
        self.own = (Candidate(ip_address("127.0.0.1"), port),)
        self.seeds: list[ScriptedSeed] = []
        self.downloads: list[ScriptedDownload] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def candidates(self, mode: Mode) -> tuple[Candidate, ...]:
        await super().candidates(mode)
        return self.own

    async def open_seed(self, manifest: Manifest, files: Mapping[int, Path], admission: Admission) -> Seed:
        await self.gate.wait()
        self._check_new(manifest)
        seed = ScriptedSeed(manifest, self._handles)
        seed.dialled = Dialled()
        await seed.open(files)
        self.seeds.append(seed)
        return seed

    async def open_download(
        self, manifest: Manifest, files: Mapping[int, Path], admission: Admission, *,
        checkpoint: bytes | None = None, select: frozenset[int] | None = None,
    ) -> Download:  # fmt: skip
        await self.gate.wait()
        self._check_new(manifest)
        download = ScriptedDownload(manifest, select, self._handles)
        download.dialled = Dialled()
        await download.open(files, checkpoint)
        self.downloads.append(download)
        return download


class FakeStream:
    """One end of a stream in memory. The other end reads what this one sends; at most one block waits."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.closed = False
        self._block: bytes | None = None
        self._broken: BTError | None = None
        self._changed = asyncio.Condition()

    async def break_off(self, error: BTError) -> None:
        async with self._changed:
            self._broken = error
            self._changed.notify_all()

    async def send(self, data: bytes) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._block is None or self._broken or self.closed)
            if self._broken is not None or self.closed:
                raise self._broken or StreamBroken("closed by the other side")
            self._block = data
            self._changed.notify_all()

    async def receive(self) -> bytes:
        async with self._changed:
            await self._changed.wait_for(lambda: self._block is not None or self._broken or self.closed)
            if self._broken is not None:
                raise self._broken
            data, self._block = self._block or b"", None
            self._changed.notify_all()
            return data

    async def aclose(self) -> None:
        async with self._changed:
            self.closed = True
            self._changed.notify_all()


class FakeExpected:
    """A stream that is allowed to one peer."""

    def __init__(self, peer: JID) -> None:
        self.peer = peer
        self.stream: asyncio.Future[FakeStream] = asyncio.get_running_loop().create_future()

    async def opened(self) -> FakeStream:
        return await asyncio.shield(self.stream)


class FakeWire:
    """Carries messages and requests between the parties of a world, as long as both are online."""

    def __init__(self, world: World, party: Party) -> None:
        self._world, self._party = world, party
        self.up = asyncio.Event()
        self.up.set()
        self.sent: list[Message | Request] = []
        #: Kinds that are not answered before the gate opens; and those that nobody ever hears.
        self.gates: dict[type, asyncio.Event] = {}
        self.lost: set[type] = set()
        #: Why streams of a kind do not come about; and those that did.
        self.no_streams: dict[Route, StreamBroken] = {Route.RELAY: StreamBroken("there is no proxy", final=True)}
        self.streams: list[FakeStream] = []
        self.proxies: tuple[StreamHost, ...] = (StreamHost(JID("proxy.example"), "127.0.0.1", 7777),)
        self.expected: dict[str, FakeExpected] = {}

    def of(self, kind: type[T]) -> list[T]:
        """What was sent of one kind."""
        return [message for message in self.sent if isinstance(message, kind)]

    async def online(self) -> None:
        await self.up.wait()

    async def entered(self, room: JID, *, sender: JID) -> None:
        await self.up.wait()

    def break_off(self, peer: JID) -> None:
        pass

    async def send(self, message: Message, to: JID, *, sender: JID, mtype: str) -> str:
        if not self.up.is_set():
            raise PeerGone("there is no session")
        self.sent.append(message)
        if isinstance(message, Offer) and message.info_length > 6_000:  # as it would not fit a stanza
            message = replace(message, info=None)
        for other in self._world.parties:
            if other.jid.bare == to.bare and to.resource in ("", other.jid.resource):
                other.hear(message, self._party)
        return f"stanza {len(self.sent)}"

    async def request(self, request: Request, to: JID, *, sender: JID, timeout: float = 30.0) -> Reply:
        self.sent.append(request)
        if gate := self.gates.get(type(request)):
            await gate.wait()
        other = next((p for p in self._world.parties if p.jid == to and p.wire.up.is_set()), None)
        if other is None or not self.up.is_set() or type(request) in self.lost:
            raise PeerGone(f"{to} did not answer")
        return await other.exchange.receive(request, other.know(self._party), other.jid)

    @asynccontextmanager
    async def expect_stream(self, route: Route, sid: str, peer: JID, *, sender: JID) -> AsyncIterator[FakeExpected]:
        if route in self.no_streams:
            raise self.no_streams[route]
        self.expected[sid] = expected = FakeExpected(peer)
        try:
            yield expected
        finally:
            del self.expected[sid]
            if expected.stream.done():
                await expected.stream.result().aclose()

    async def open_stream(
        self, route: Route, sid: str, to: JID, *, sender: JID, hosts: tuple[StreamHost, ...] = ()
    ) -> FakeStream:
        other = next(p for p in self._world.parties if p.jid == to)
        expected = other.wire.expected.get(sid)
        if expected is None or expected.peer != self._party.jid or not self.up.is_set():
            raise StreamBroken("refused")
        stream = FakeStream(route)
        self.streams.append(stream)
        expected.stream.set_result(stream)
        return stream

    async def relays(self, *, sender: JID) -> tuple[StreamHost, ...]:
        return self.proxies


class Party:
    """One side: an exchange with what it stands on."""

    def __init__(self, world: World, jid: str, home: Path, backend: Backend | None, **config: Any) -> None:
        self.jid = JID(jid)
        self.home = home
        self.inbox = home / "inbox"
        self.inbox.mkdir(parents=True)
        self.events: list[tuple[str, Any]] = []
        self.wire = FakeWire(world, self)
        self.tasks = Tasks()
        self.backend: Any = backend or ScriptedBackend(1000 + len(world.parties))
        self.subscription = "both"
        self.context = Context(
            config=Config.parse({"download_dir": self.inbox, "state_dir": None, "routes": ["swarm"], **config}),
            wire=self.wire,
            backend=self.backend,
            notify=lambda name, data: self.events.append((name, data)),
            tasks=self.tasks,
            outbox=Outbox(self.wire, self.tasks),
            running=lambda: self.exchange.registry.running(),
            now=world.clock,
            rng=world.clock.rng,
        )
        self.exchange = Exchange(self.context, self.authorize)
        self._world = world

    async def authorize(self, offer: IncomingOffer) -> bool:
        return await self.exchange.intake.allows(offer)

    def know(self, other: Party) -> Peer:
        return Peer(jid=other.jid, bare=JID(other.jid.bare), subscription=self.subscription)

    def hear(self, message: Message, sender: Party) -> None:
        if isinstance(message, Offer):
            self.exchange.intake.receive_offer(message, self.know(sender), self.jid)
        elif isinstance(message, Withdraw):
            self.exchange.withdrawn(message, self.know(sender))
        elif isinstance(message, Seek):
            self.exchange.sought(message, self.know(sender), self.jid)

    def offer(
        self, to: str, path: Path, *, lasts: float = WEEK, single: bool = False, delegate: bool = False
    ) -> OutgoingOffer:
        expires = datetime.fromtimestamp(self._world.clock() + lasts, UTC)
        return self.exchange.offer(
            to=JID(to), local=self.jid, path=path, mode=Mode.PRIVATE, expires=expires, single=single,
            delegate=delegate,
        )  # fmt: skip

    def told(self, name: str) -> list[Any]:
        return [data for event, data in self.events if event == name]

    async def expect(self, name: str, count: int = 1) -> Any:
        await until(lambda: len(self.told(name)) >= count)
        return self.told(name)[count - 1]

    async def aclose(self) -> None:
        await finish(self.exchange.aclose())
        await finish(self.tasks.aclose())
        await finish(self.backend.aclose())


class World:
    """Parties, and a clock that stands still. Leaving it closes all; nothing may be left running."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.clock = Clock()
        self.parties: list[Party] = []

    async def __aenter__(self) -> Self:
        self.clock.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for party in self.parties:
            await party.aclose()
        self.clock.__exit__(kind, error, traceback)

    def party(self, jid: str, backend: Backend | None = None, **config: Any) -> Party:
        party = Party(self, jid, self.home / jid.replace("/", "-"), backend, **config)
        self.parties.append(party)
        return party

    def pair(self, **config: Any) -> tuple[Party, Party]:
        """A sender, and a receiver who accepts everything unless told otherwise."""
        alice = self.party("alice@a.example/laptop")
        return alice, self.party("bob@b.example/phone", **{"auto_accept": True, **config})

    def file(self, name: str = "file", size: int = 100_000) -> Path:
        path = self.home / name
        path.write_bytes(self.clock.rng.randbytes(size))
        return path

    async def pass_time(self, seconds: float, step: float = 0.25) -> None:
        await settled()
        await self.clock.advance(seconds, step)
        await settled()

    async def carry(self, offer: OutgoingOffer, to: Party, count: int | None = None) -> None:
        """Bring the next `count` pieces, or all, into the newest download of `to`, as a swarm would."""
        made = offer._content.loaded
        assert made is not None
        await until(lambda: to.backend.downloads)
        download = to.backend.downloads[-1]
        for piece in sorted(download._missing)[:count]:
            data = read_piece(made.manifest, made.paths, piece)
            download.carried += len(data)
            await finish(download.write(piece, data))

    async def running(
        self, alice: Party, bob: Party, *, size: int = 100_000, single: bool = True, to: str | None = None
    ) -> tuple[OutgoingOffer, Transfer, Transfer]:
        """A transfer of which two pieces have arrived: the offer, the sender's side, the receiver's."""
        offer = alice.offer(to or bob.jid.bare, self.file(size=size), single=single)
        receiving = await bob.expect("bt_transfer_start")
        await until(lambda: bob.backend.downloads and bob.backend.downloads[-1].dialled.candidates)
        await self.carry(offer, bob, 2)
        await self.pass_time(0.5)
        sending = next(t for t in offer.transfers if t.peer == bob.jid)
        return offer, sending, receiving
