"""Publish what is in a folder in the account's catalogue, or mirror what somebody publishes.

SLIXMPP_BT_PASSWORD=secret python dataset_mirror.py --jid data@example.org publish measurements
SLIXMPP_BT_PASSWORD=secret python dataset_mirror.py --jid juliet@example.org mirror data@example.org copies

Both stay until they are stopped, and go on where they were when they are started again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import slixmpp

import slixmpp_bt


class Client(slixmpp.ClientXMPP):
    """What the two have in common: :attr:`outcome` ends with what went wrong."""

    def __init__(self, jid: str, password: str, **config: Any) -> None:
        super().__init__(jid, password)
        self.register_plugin("xep_bt", config)
        self.bt = slixmpp_bt.get_plugin(self)
        self.outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.add_event_handler("session_start", self.start)
        self.add_event_handler("disconnected", self.lost)
        self.add_event_handler("bt_transfer_end", self.ended)
        self.add_event_handler("failed_all_auth", lambda _: self.fail(PermissionError("the server refuses us")))

    async def start(self, _: object) -> None:
        """Online: who may see this account's presence, which is who may fetch, is in the roster."""
        await self.get_roster()
        self.send_presence()

    def lost(self, _: object) -> None:
        """The connection is. Within five seconds nothing has to be begun anew."""
        asyncio.get_running_loop().call_later(1.0, self.come_back)

    def come_back(self) -> None:
        """Connect again, to where it was, unless it is over."""
        if not self.outcome.done():
            self.connect(*(self.custom_address or ()))

    def ended(self, transfer: slixmpp_bt.Transfer) -> None:
        """One file less to move."""
        way = "from" if transfer.incoming else "to"
        print(f"{transfer.name} {way} {transfer.peer.bare}: {transfer.error or 'done'}", flush=True)

    def stop(self) -> None:
        """Somebody says stop."""
        if not self.outcome.done():
            self.outcome.set_result(None)

    def fail(self, error: BaseException) -> None:
        """It has come to nothing, unless it has ended already."""
        if not self.outcome.done():
            self.outcome.set_exception(error)


class Publisher(Client):
    """Publishes every file and directory in `folder`, and looks every so many seconds what has changed there."""

    def __init__(self, jid: str, password: str, folder: Path, every: float = 10.0, **config: Any) -> None:
        super().__init__(jid, password, **config)
        self._folder = folder.absolute()
        self._every = every
        self._seen: dict[Path, int] = {}
        self._published: dict[Path, slixmpp_bt.OutgoingOffer] = {}
        self._said: dict[Path, str] = {}
        self._watching: asyncio.Task[None] | None = None

    async def start(self, event: object) -> None:
        """Online, perhaps not for the first time."""
        await super().start(event)
        if self._watching is None:
            self._watching = asyncio.create_task(self.watch())

    async def watch(self) -> None:
        """Keep the catalogue as the folder is."""
        known = False
        try:
            while True:
                with suppress(slixmpp_bt.PeerGone):  # it comes back
                    if not known:
                        await self.bt.catalogue()  # and so what was published before this start is in `offers`
                        known = True
                    await self.compare()
                await asyncio.sleep(self._every)
        except (slixmpp_bt.BTError, OSError) as error:
            self.fail(error)

    async def compare(self) -> None:
        """Publish what is new, and withdraw what is gone. What was changed is both; what the library has noticed by
        itself is withdrawn already."""
        offers = {o.path: o for o in self.bt.offers if isinstance(o, slixmpp_bt.OutgoingOffer) and o.node is not None}
        there = await asyncio.to_thread(changes, self._folder)
        for path in offers.keys() - there.keys():
            await offers[path].withdraw()
        for path, changed in sorted(there.items()):
            is_new = changed != self._seen.get(path, changed)
            if path in offers and is_new:
                await offers.pop(path).withdraw()
            if path not in offers and (is_new or not self.refused(path)):
                await self.publish(path)
        self._seen = there

    def refused(self, path: Path) -> bool:
        """Whether this entry cannot be published as it is: there is a link in it, say."""
        last = self._published.get(path)
        if last is not None and isinstance(last.error, slixmpp_bt.PathError):
            self.say(path, last.error)
        return path in self._said

    async def publish(self, path: Path) -> None:
        """Publish an entry. One that cannot be is tried again when it has changed."""
        self._said.pop(path, None)
        try:
            self._published[path] = await self.bt.publish(path)
        except slixmpp_bt.PathError as error:
            self.say(path, error)

    def say(self, path: Path, error: Exception) -> None:
        """Tell once why something is left out."""
        if path not in self._said:
            self._said[path] = str(error)
            print(f"{path.name} is left out: {error}", flush=True)

    async def close(self) -> None:
        """Look no more."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])


def changes(folder: Path) -> dict[Path, int]:
    """When each entry of a folder, or something in it, was changed last. What goes while it is looked at is gone."""
    found = {}
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            if not path.name.startswith("."):
                found[path] = max(p.lstat().st_mtime_ns for p in (path, *path.rglob("*")))
    return found


class Mirror(Client):
    """Fetches everything that `publisher` publishes, who has to be a contact, or the account itself: a backup."""

    def __init__(self, jid: str, password: str, publisher: str, inbox: Path, **config: Any) -> None:
        super().__init__(jid, password, auto_accept=[publisher], download_dir=inbox, **config)


async def main(options: argparse.Namespace) -> None:
    """Publish or mirror until somebody says stop."""
    config = {"listen": options.listen} if options.listen else {}
    password = os.environ["SLIXMPP_BT_PASSWORD"]
    xmpp: Publisher | Mirror
    if options.what == "publish":
        xmpp = Publisher(options.jid, password, options.folder, options.every, **config)
    else:
        xmpp = Mirror(options.jid, password, options.publisher, options.inbox, **config)
    if options.ca_certs is not None:
        xmpp.ca_certs = options.ca_certs
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, xmpp.stop)
    xmpp.connect(options.host, options.port)
    try:
        await xmpp.outcome
    finally:
        if isinstance(xmpp, Publisher):
            await xmpp.close()
        await xmpp.bt.aclose()
        await xmpp.disconnect()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jid", default=os.environ.get("SLIXMPP_BT_JID"))
    parser.add_argument("--host", help="where the server is, if DNS does not say")
    parser.add_argument("--port", type=int, default=5222)
    parser.add_argument("--ca-certs", type=Path, help="a PEM file to trust instead of the system's authorities")
    parser.add_argument("--listen", action="append", help="an address for BitTorrent; may be repeated")
    parts = parser.add_subparsers(dest="what", required=True)
    publish = parts.add_parser("publish", help="publish what is in a folder")
    publish.add_argument("folder", type=Path)
    publish.add_argument("--every", type=float, default=10.0, help="seconds between two looks at it")
    mirror = parts.add_parser("mirror", help="fetch everything that somebody publishes")
    mirror.add_argument("publisher", metavar="JID")
    mirror.add_argument("inbox", type=Path)
    try:
        asyncio.run(main(parser.parse_args()))
    except (slixmpp_bt.BTError, OSError) as error:
        raise SystemExit(f"stopped: {error}") from None
