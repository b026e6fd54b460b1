"""Clients with the plugin, for the scenarios: two or more slixmpp clients on one server, loopback addresses only."""

from __future__ import annotations

import asyncio
import hashlib
import random
from pathlib import Path
from typing import Any

import slixmpp
from slixmpp.xmlstream.stanzabase import StanzaBase

from slixmpp_bt import XEP_BT, IncomingOffer, Transfer, get_plugin
from slixmpp_bt.constants import NS

from .servers import Server

LISTEN = ["127.0.0.1", "[::1]"]
#: Seconds until a scenario gives up.
PATIENCE = 12.0
EVENTS = ("bt_offer", "bt_offer_end", "bt_transfer_start", "bt_progress", "bt_transfer_end")


class Member:
    """A client with the plugin, its directories, and what its application was told."""

    def __init__(self, xmpp: slixmpp.ClientXMPP | slixmpp.ComponentXMPP, home: Path) -> None:
        self.xmpp = xmpp
        self.home = home
        self.inbox = home / "inbox"
        self.inbox.mkdir(parents=True, exist_ok=True)
        self.events: list[tuple[str, Any]] = []
        self.stanza_bytes = 0
        #: What a test wants to use again in another run.
        self.settings: dict[str, Any] = {}
        for name in EVENTS:
            xmpp.add_event_handler(name, self._recorder(name))
        xmpp.add_filter("out", self._count)

    def register(self, **config: Any) -> XEP_BT:
        """Register the plugin, listening on loopback and receiving into :attr:`inbox`."""
        settings = {"download_dir": self.inbox, "listen": LISTEN, "state_dir": None, **config}
        self.xmpp.register_plugin("xep_bt", settings)
        return self.bt

    def disable(self) -> None:
        """Unload the plugin."""
        manager: Any = self.xmpp.plugin
        manager.disable("xep_bt")

    @property
    def bt(self) -> XEP_BT:
        return get_plugin(self.xmpp)

    @property
    def jid(self) -> slixmpp.JID:
        return self.xmpp.boundjid

    async def expect(self, name: str, count: int = 1) -> Any:
        """Wait until the application was told `name` for the `count`-th time; its data."""
        async with asyncio.timeout(PATIENCE):
            while len(self.told(name)) < count:
                await asyncio.sleep(0.005)
        return self.told(name)[count - 1]

    async def expect_offer(self, count: int = 1) -> IncomingOffer:
        offer: IncomingOffer = await self.expect("bt_offer", count)
        return offer

    def told(self, name: str) -> list[Any]:
        return [data for event, data in self.events if event == name]

    def leftovers(self) -> list[Path]:
        """What is in the inbox but was not published."""
        return [path for path in self.inbox.rglob("*") if path.name.startswith(".")]

    def _recorder(self, name: str) -> Any:
        return lambda data: self.events.append((name, data))

    def _count(self, stanza: StanzaBase) -> StanzaBase:
        text = str(stanza)
        if NS in text and "disco#info" not in text and not isinstance(stanza, slixmpp.Presence):
            self.stanza_bytes += len(text.encode())
        return stanza


async def member(server: Server, jid: slixmpp.JID | str, home: Path, **config: Any) -> Member:
    """A connected client with the plugin registered before connecting."""
    one = Member(server.client(jid), home)
    one.register(**config)
    await server.connect(one.xmpp)
    return one


async def pair(server: Server, tmp_path: Path, **receiver: Any) -> tuple[Member, Member]:
    """A sender and a receiver who see each other's presence; the receiver accepts everything unless told otherwise."""
    a, b = await server.add_user("alice"), await server.add_user("bob")
    await server.subscribe(a, b)
    alice = await member(server, f"{a}/laptop", tmp_path / "alice")
    bob = await member(server, f"{b}/phone", tmp_path / "bob", **{"auto_accept": True, **receiver})
    await visible(alice, bob)
    return alice, bob


async def visible(watcher: Member, other: Member) -> None:
    """Wait until `watcher` sees the presence of `other`."""
    resources = watcher.xmpp.roster[watcher.jid.bare][other.jid.bare].resources
    async with asyncio.timeout(PATIENCE):
        while other.jid.resource not in resources:
            await asyncio.sleep(0.005)


async def done(*transfers: Transfer) -> list[Path]:
    """Wait for the end of all."""
    async with asyncio.timeout(PATIENCE):
        return [await transfer.wait() for transfer in transfers]


async def until(condition: Any) -> None:
    """Wait until `condition()` is true."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


def make_file(path: Path, size: int, seed: int = 1) -> Path:
    """A file of random bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(random.Random(f"{seed} {size}").randbytes(size))
    return path


def digest(path: Path) -> dict[str, str]:
    """Every file below `path`, or itself, by its SHA-256; directories by their names alone."""
    if path.is_file():
        return {"": _sha256(path)}
    return {str(p.relative_to(path)): _sha256(p) if p.is_file() else "directory" for p in sorted(path.rglob("*"))}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
