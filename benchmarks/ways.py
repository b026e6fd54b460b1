"""The ways by which a file gets from one process to another, each with its own best settings.

A way is opened as a pair of sides that are ready; then it carries files, one after another.
"""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from slixmpp_bt.manifest import piece_length_for

from .places import Places
from .process import Answer, Remote, remote

#: libtorrent's settings that were the fastest on loopback (row ``settings``), beyond those of slixmpp_bt.
BEST: Mapping[str, Any] = {"max_out_request_queue": 2000, "out_enc_policy": 2, "in_enc_policy": 2}


@dataclass(frozen=True, slots=True)
class Trip:
    """One file, carried.

    :ivar seconds: from when the sender was told to until both sides were done.
    :ivar figures: what else was measured, by name.
    """

    seconds: float
    figures: dict[str, float] = field(default_factory=dict)


class Way(ABC):
    """A pair of sides, as an asynchronous context manager.

    :ivar title: what it is called in the report.
    :ivar inside: what is inside the time, in words.
    """

    title: str
    inside: str

    def __init__(self, places: Places) -> None:
        self.places = places
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self.folder = self.places.new_folder("way")
            self._stack = stack
            await self.open()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def reopen(self) -> None:
        """Start anew, after a failure."""
        await self._stack.aclose()
        await self.__aenter__()

    @abstractmethod
    async def open(self) -> None:
        """Start both sides."""

    @abstractmethod
    async def carry(self, source: Path) -> Trip:
        """Carry `source`. What arrived is compared in size and removed."""

    async def side(self, module: str, prefix: tuple[str, ...] = (), **config: Any) -> Remote:
        """A side that lives as long as this is open."""
        return await self._stack.enter_async_context(remote(module, self.folder, config, prefix))

    def target(self) -> Path:
        """A name that nothing has."""
        return self.folder / secrets.token_hex(8)


def size_of(path: Path) -> int:
    """In bytes."""
    return path.stat().st_size


async def both(sending: Coroutine[Any, Any, Answer], receiving: Coroutine[Any, Any, Answer]) -> tuple[Answer, Answer]:
    """Both answers. When one side fails nobody waits for the other, which is of no use any more then."""
    tasks = [asyncio.create_task(sending), asyncio.create_task(receiving)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return tasks[0].result(), tasks[1].result()


async def finish(source: Path, sent: Answer | None, received: Answer, arrived: Path) -> Trip:
    """The trip that both answers tell of."""
    if size_of(arrived) != size_of(source):
        raise RuntimeError(f"{size_of(arrived)} of {size_of(source)} bytes arrived")
    await asyncio.to_thread(arrived.unlink)
    sides = {"receiver": received} | ({} if sent is None else {"sender": sent})
    begun, ended = (sent or received).begun, max(side.ended for side in sides.values())
    figures: dict[str, float] = {}
    for name, side in sides.items():
        figures |= {f"{name} cpu": side.cpu, f"{name} peak": side.peak_mib}
        figures |= {f"{name} lag {key}": value for key, value in side.lag.items()}
    return Trip(ended - begun, figures)


async def carry_many(sender: Remote, receiver: Remote, to: str, sources: list[Path], at_once: int) -> Trip:
    """Have `sender` carry all, so many at once."""
    sent, received = await both(
        sender.call("send_many", to=to, paths=list(map(str, sources)), at_once=at_once),
        receiver.call("receive_many", count=len(sources)),
    )
    return Trip(max(sent.ended, received.ended) - sent.begun)


class Raw(Way):
    title = "TCP, sendfile"
    inside = "connecting, flush; nothing is hashed"

    async def open(self) -> None:
        self._sender, self._receiver = await asyncio.gather(self.side("raw"), self.side("raw"))

    async def carry(self, source: Path) -> Trip:
        target, address = self.target(), self._receiver.ready["address"]
        sent, received = await both(
            self._sender.call("send", path=str(source), address=address),
            self._receiver.call("receive", path=str(target)),
        )
        return await finish(source, sent, received, target)


class Engine(Way):
    """:param settings: libtorrent's, beyond those of slixmpp_bt."""

    title = "libtorrent alone, our settings"
    inside = "connecting, verification, flush; the source was hashed before, there is nothing to agree on"

    def __init__(
        self,
        places: Places,
        settings: Mapping[str, Any] | None = None,
        piece: int = 0,
        prefixes: tuple[tuple[str, ...], tuple[str, ...]] = ((), ()),
        hosts: tuple[str, str] = ("127.0.0.1", "127.0.0.1"),
    ) -> None:
        super().__init__(places)
        self._settings, self._piece, self._prefixes, self._hosts = dict(settings or {}), piece, prefixes, hosts

    async def open(self) -> None:
        self._torrents: dict[Path, Path] = {}

    async def carry(self, source: Path) -> Trip:
        """The sides are made anew each time: libtorrent has no good way to send the same torrent twice."""
        piece = self._piece or piece_length_for(size_of(source))
        target, torrent = self.target(), self.target()
        async with AsyncExitStack() as stack:
            sender, receiver = [
                await stack.enter_async_context(
                    remote("engine", self.folder, {"settings": self._settings, "piece": piece, "host": host}, prefix)
                )
                for prefix, host in zip(self._prefixes, self._hosts, strict=True)
            ]
            await sender.call("make", path=str(source), torrent=str(torrent))
            await sender.call("seed", path=str(source), torrent=str(torrent))
            address = sender.ready["address"]
            received = await receiver.call("fetch", path=str(target), torrent=str(torrent), address=address)
        return await finish(source, None, received, target)


class BestEngine(Engine):
    title = "libtorrent alone, best settings known"

    def __init__(self, places: Places) -> None:
        super().__init__(places, BEST)


class Plugin(Way):
    """:param server: the XMPP server's name.
    :param mode: ``private`` or ``sealed``.
    :param hashed: whether the source's hashes are in the state directory already.
    """

    def __init__(self, places: Places, server: str, mode: str, *, hashed: bool) -> None:
        super().__init__(places)
        self._server, self._mode, self._hashed = server, mode, hashed
        self.title = f"slixmpp_bt, {mode}, {'already hashed' if hashed else 'hashing too'}"
        before = "the source was hashed before" if hashed else "hashing"
        self.inside = f"{before}; agreement, connecting, verification, flush, confirmation"
        self._known: set[Path] = set()

    async def open(self) -> None:
        sender, receiver = await self.places.accounts(self._server, "laptop", "phone")
        state = {"state_dir": str(self.folder / "state")} if self._hashed else {}
        inbox = self.places.new_folder("inbox")
        limits = {"max_size": 1 << 40, "max_transfers": 1000, "max_offers_per_peer": 10_000}
        accepting = {"download_dir": str(inbox), "auto_accept": True, "limits": limits}
        self._sender, self._receiver = await asyncio.gather(
            self.side("plugin", account=sender.config(), config={"mode": self._mode, **state}),
            self.side("plugin", account=receiver.config(), config=accepting),
        )
        await self._sender.call("see", jid=receiver.jid)
        self._to = receiver.jid

    async def carry(self, source: Path) -> Trip:
        if self._hashed and source not in self._known:
            await self._sender.call("hash", path=str(source))
            self._known.add(source)
        sent, received = await both(
            self._sender.call("send", to=self._to, path=str(source)), self._receiver.call("receive")
        )
        routes, said = sent.value["routes"], sent.value["stanza_bytes"] + received.value["stanza_bytes"]
        trip = await finish(source, sent, received, Path(received.value["path"]))
        trip.figures["stanza bytes"] = said
        if size_of(source) > 100_000 and set(routes) != {"swarm"}:
            raise RuntimeError(f"it went by {routes}")
        return trip

    async def carry_many(self, sources: list[Path], at_once: int) -> Trip:
        """Carry all, so many at once."""
        return await carry_many(self._sender, self._receiver, self._to, sources, at_once)

    async def round_trip(self, count: int) -> list[float]:
        """Seconds from one side to the other and back, over XMPP."""
        times: list[float] = (await self._sender.call("ping", jid=self._to, count=count)).value
        return times


class Xmpp(Way):
    """What uses slixmpp's own plugins."""

    module: str

    def __init__(self, places: Places, server: str) -> None:
        super().__init__(places)
        self._server = server
        self.title = f"{self.title}, {server}"

    def config(self) -> dict[str, Any]:
        """Of both sides."""
        return {"folder": str(self.folder)}

    async def open(self) -> None:
        accounts = await self.places.accounts(self._server, "laptop", "phone")
        self._sender, self._receiver = await asyncio.gather(
            *(self.side(self.module, account=account.config(), **self.config()) for account in accounts)
        )
        self._to = self._receiver.ready["jid"]
        await self._sender.call("see", jid=self._to)

    async def carry(self, source: Path) -> Trip:
        sent, received = await both(
            self._sender.call("send", to=self._to, path=str(source)), self._receiver.call("receive")
        )
        return await finish(source, sent, received, Path(received.value["path"]))

    async def carry_many(self, sources: list[Path], at_once: int) -> Trip:
        """Carry all, so many at once."""
        return await carry_many(self._sender, self._receiver, self._to, sources, at_once)


class InBand(Xmpp):
    title = "in-band (XEP-0047) of slixmpp"
    inside = "opening the stream, flush; nothing is hashed"
    module = "inband"
    #: Bytes a stanza, the fastest on each: Prosody holds back what does not fit one write.
    _BLOCKS: ClassVar = {"prosody": 4096, "ejabberd": 65_535}

    def config(self) -> dict[str, Any]:
        return {**super().config(), "block": self._BLOCKS[self._server]}


class Socks5(Xmpp):
    title = "SOCKS5 (XEP-0065) of slixmpp through proxy65"
    inside = "agreement, connecting, flush; the proxy was known, nothing is hashed"
    module = "socks5"

    def config(self) -> dict[str, Any]:
        return {}

    async def open(self) -> None:
        await super().open()
        await self._sender.call("find_proxy")

    async def carry(self, source: Path) -> Trip:
        target, size = self.target(), size_of(source)
        sent, received = await both(
            self._sender.call("send", to=self._to, path=str(source)),
            self._receiver.call("receive", path=str(target), size=size),
        )
        return await finish(source, sent, received, target)


class Upload(Xmpp):
    title = "HTTP upload and download (XEP-0363)"
    inside = "slot, upload, message, download, flush; the service was known, nothing is hashed"
    module = "upload"


class Wormhole(Way):
    title = "magic-wormhole"
    inside = "mailbox connection, key agreement, connecting, encryption, SHA-256 while it moves, flush"

    async def open(self) -> None:
        prefix, where = await self.places.wormhole()
        self._sides = [await self.side("wormhole", tuple(prefix), **where) for _ in range(2)]

    async def carry(self, source: Path) -> Trip:
        code, target = f"{secrets.randbelow(90_000) + 9_000}-benchmark-{secrets.token_hex(3)}", self.target()
        sent, received = await both(
            self._sides[0].call("send", code=code, path=str(source)),
            self._sides[1].call("receive", code=code, path=str(target)),
        )
        return await finish(source, sent, received, target)
