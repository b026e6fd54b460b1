"""slixmpp_bt, as an application uses it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

import slixmpp
from slixmpp.xmlstream.stanzabase import StanzaBase

from slixmpp_bt import IncomingOffer, OutgoingOffer, State, Transfer, get_plugin
from slixmpp_bt.backends import BackendClosed, Seed
from slixmpp_bt.backends.libtorrent import LibtorrentBackend

from . import memory, until
from .xmpp import XmppEnd

#: Seconds until the engine's figures are up to date.
_BEAT = 0.6

#: What all closed seeds have uploaded, in bytes.
_uploaded: list[int] = []


class CountingBackend(LibtorrentBackend):
    """libtorrent's, which asks each seed at its end what it has uploaded."""

    async def open_seed(self, *args: Any, **kwargs: Any) -> Seed:
        seed = await super().open_seed(*args, **kwargs)
        close = seed.aclose

        async def count_and_close() -> None:
            with suppress(BackendClosed):
                await asyncio.sleep(_BEAT)
                _uploaded.append(seed.status().uploaded)
            await close()

        seed.aclose = count_and_close  # type: ignore[method-assign]
        return seed


class Side(XmppEnd):
    """Either side.

    :param config: the plugin's configuration.
    :param counting: keep account of what is uploaded.
    """

    def __init__(self, account: dict[str, Any], config: dict[str, Any], *, counting: bool = False) -> None:
        super().__init__(account)
        self._config = {"listen": ["127.0.0.1"], "state_dir": None, **config}
        if counting:
            self._config["backend"] = CountingBackend
        self._begun: asyncio.Queue[Transfer] = asyncio.Queue()
        self._heard: asyncio.Queue[IncomingOffer] = asyncio.Queue()
        self._offers: list[OutgoingOffer] = []
        self._said = 0

    def register(self) -> None:
        self.xmpp.register_plugin("xep_bt", self._config)
        self.bt = get_plugin(self.xmpp)
        self.xmpp.add_event_handler("bt_transfer_start", self._note)
        self.xmpp.add_event_handler("bt_offer", self._heard.put_nowait)
        self.xmpp.add_filter("out", self._count)

    async def hash(self, path: str) -> None:
        """Have `path` hashed, and the hashes kept in the state directory, by an offer that nobody hears of."""
        offer = await self.bt.offer(f"nobody@{self.xmpp.boundjid.domain}", path)
        await until(lambda: offer.state is not State.PREPARING)
        await offer.withdraw()

    async def send(self, to: str, path: str, mode: str | None = None) -> dict[str, Any]:
        """Send, and return when the receiver has confirmed."""
        before = self._said
        transfer = await self.bt.send_file(to, path, mode=mode)
        await transfer.wait()
        return {"routes": transfer.routes, "stanza_bytes": self._said - before}

    async def receive(self) -> dict[str, Any]:
        """Wait for the transfer that comes next, and its end."""
        before = self._said
        transfer = await self._begun.get()
        path = await transfer.wait()
        ended = time.monotonic()
        return {"path": str(path), "stanza_bytes": self._said - before, "times": {"ended": ended}}

    async def offer(self, to: str, path: str, count: int) -> dict[str, Any]:
        """Offer to all devices of `to`, and wait until `count` of them have it."""
        offer = await self.bt.offer(to, path)
        self._offers.append(offer)
        transfers = []
        async for transfer in offer:
            transfers.append(transfer)
            if len(transfers) == count:
                break
        await asyncio.gather(*(transfer.wait() for transfer in transfers))
        ended = time.monotonic()
        await offer.withdraw()
        return {"uploaded": sum(_uploaded), "times": {"ended": ended}}

    async def send_many(self, to: str, paths: list[str], at_once: int) -> None:
        """Send all, so many at once."""
        free = asyncio.Semaphore(at_once)

        async def one(path: str) -> None:
            async with free:
                await (await self.bt.send_file(to, path)).wait()

        await asyncio.gather(*map(one, paths))

    async def receive_many(self, count: int) -> None:
        """Wait for `count` transfers to end."""
        ends = []
        for _ in range(count):
            ends.append(asyncio.create_task((await self._begun.get()).wait()))
        await asyncio.gather(*ends)

    async def offer_many(self, to: str, path: str, count: int) -> None:
        """Make `count` offers of the same file, which all stand until this side ends."""
        for _ in range(count):
            self._offers.append(await self.bt.offer(to, path))
        await until(lambda: all(offer.state is not State.PREPARING for offer in self._offers))

    async def hear_many(self, count: int) -> None:
        """Wait until the application was told of `count` offers."""
        for _ in range(count):
            await self._heard.get()

    async def restored(self, count: int) -> None:
        """Wait until `count` offers of an earlier run are back."""
        await until(lambda: len(self.bt.offers) >= count)

    async def idle(self, seconds: float) -> dict[str, float]:
        """Do nothing for so long; the memory in use, in MiB, afterwards."""
        await asyncio.sleep(seconds)
        return {"rss_mib": memory("VmRSS")}

    async def aclose(self) -> None:
        await self.bt.aclose()
        await super().aclose()

    def _note(self, transfer: Transfer) -> None:
        if transfer.incoming:
            self._begun.put_nowait(transfer)

    def _count(self, stanza: StanzaBase) -> StanzaBase:
        if not isinstance(stanza, slixmpp.Presence):
            self._said += len(str(stanza).encode())
        return stanza
