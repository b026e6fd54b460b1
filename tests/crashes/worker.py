"""One client that can be killed at any moment: ``python -m tests.crashes.worker``.

It connects, and again whenever the connection is lost, takes up what its last life left, and says what happens as one
JSON object a line. With ``--path`` its first life sends a file. It lives until its standard input ends; until then it
takes commands from there, one a line: ``pause``, ``resume``, ``cancel``, ``counts`` (say how things are), ``fill`` and
``free`` (the disk of the inbox).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import slixmpp

from slixmpp_bt import OutgoingOffer, State, Transfer
from slixmpp_bt.backends._libtorrent.download import TorrentDownload
from slixmpp_bt.receiving import Receiving
from slixmpp_bt.storage import Landing

from ..servers import PASSWORD
from ..world import PATIENCE, Member, digest


class Life:
    """What the process does between its start and its end."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._xmpp = slixmpp.ClientXMPP(options.jid, PASSWORD)
        self._xmpp.ca_certs, self._xmpp.enable_direct_tls = options.ca_certs, False
        self._me = Member(self._xmpp, options.home)
        self._closing = False
        self._online = asyncio.Event()
        self._begun = time.monotonic()
        if options.die is not None:
            _die_at(options.die)
        _count_pieces(lambda size: self._say("piece", size=size))
        settings = {"auto_accept": options.path is None, "state_dir": options.home / "state", **options.config}
        self._bt = self._me.register(**settings)
        if options.sm:
            self._xmpp.register_plugin("xep_0198")
        if options.room is not None:
            self._xmpp.register_plugin("xep_0045")
        for event in ("session_start", "session_resumed"):
            self._xmpp.add_event_handler(event, self._appear)
        self._xmpp.add_event_handler("disconnected", self._again)
        self._xmpp.add_event_handler("bt_progress", lambda transfer: self._tell("progress", transfer))
        self._xmpp.add_event_handler("bt_transfer_end", self._ended)

    async def run(self) -> None:
        """Live until standard input ends."""
        loop = asyncio.get_running_loop()
        commands = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        self._connect()
        await self._online.wait()
        await self._bt._ready.wait()
        self._say("ready", seconds=time.monotonic() - self._begun, **self._counts())
        sent = self._options.home / "sent"
        if self._options.path is not None and not sent.exists():
            sent.touch()
            send: Any = self._bt.offer if self._options.many else self._bt.send_file
            await send(self._options.to, self._options.path)
        while command := (await commands.readline()).decode().strip():
            await self._do(command)
        self._closing = True
        await self._bt.aclose()
        await self._xmpp.disconnect()

    def _connect(self) -> None:
        self._xmpp.connect(self._options.host, self._options.port)

    def _again(self, _: object) -> None:
        if not self._closing:
            self._say("disconnected")
            asyncio.get_running_loop().call_later(0.1, self._connect)

    async def _appear(self, _: object) -> None:
        self._say("session")
        if not self._options.hidden:
            await self._xmpp.get_roster()
            self._xmpp.send_presence()
        if self._options.room is not None:
            muc: Any = self._xmpp.plugin["xep_0045"]
            await muc.join_muc_wait(slixmpp.JID(self._options.room), self._xmpp.boundjid.resource, timeout=PATIENCE)
        self._online.set()

    async def _do(self, command: str) -> None:
        if command == "counts":
            self._say("counts", **self._counts())
        elif command == "fill":
            _fill(self._filler)
            self._say("filled")
        elif command == "free":
            self._filler.unlink()
        else:
            for transfer in self._bt.transfers:
                await getattr(transfer, command)()
                self._tell(command, transfer)

    @property
    def _filler(self) -> Path:
        return self._me.inbox / "filler"

    def _counts(self) -> dict[str, Any]:
        backend: Any = self._bt._backend
        torrents = backend._session.engine.get_torrents() if backend._session is not None else ()
        why = [transfer.diagnosis for transfer in self._bt.transfers[:3]]
        usage = resource.getrusage(resource.RUSAGE_SELF)
        figures = {"rss_mib": usage.ru_maxrss / 1024, "cpu": usage.ru_utime + usage.ru_stime}
        offered = sum(offer.state is State.OFFERED for offer in self._bt.offers if isinstance(offer, OutgoingOffer))
        return {"offered": offered, "torrents": len(torrents), "why": why, **figures}

    async def _ended(self, transfer: Transfer) -> None:
        if self._closing:
            return
        error = str(transfer.error) if transfer.error else None
        whole = digest(transfer.path)[""] if transfer.complete and transfer.path is not None else None
        self._tell("end", transfer, path=str(transfer.path), sha256=whole, error=error)
        await transfer.released()
        self._say("released")

    def _tell(self, event: str, transfer: Transfer, **more: Any) -> None:
        progress = transfer.progress
        self._say(event, state=transfer.state, had=progress.transferred, total=progress.total, **more)

    def _say(self, event: str, **more: Any) -> None:
        print(json.dumps({"event": event, "at": time.time(), **more}), flush=True)


def _count_pieces(tell: Callable[[int], None]) -> None:
    """Tell the size of each piece as soon as it has arrived: a process that is killed has no time for a sum, and the
    engine's own figures are up to a second old."""
    engine: Any = TorrentDownload
    store = engine.piece_verified

    def piece_verified(download: TorrentDownload, piece: int) -> None:
        if piece not in download.have():
            tell(download._manifest.piece_size(piece))
        store(download, piece)

    engine.piece_verified = piece_verified


def _fill(path: Path) -> None:
    """Leave no room on the disk."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(64 * 1024)):
            pass


def _die_at(moment: str) -> None:
    """Be killed once the file is published: before that is noted down, or before the sender is told."""
    landings: Any = Landing
    receivers: Any = Receiving
    publish = landings.publish

    async def published(landing: Landing) -> Path:
        path: Path = await publish(landing)
        if moment == "published":
            os.kill(os.getpid(), signal.SIGKILL)
        return path

    def tell(side: Receiving, *_: Any) -> None:
        if moment == "noted":
            os.kill(os.getpid(), signal.SIGKILL)

    landings.publish = published
    receivers.tell = tell


async def main(options: argparse.Namespace) -> None:
    await Life(options).run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--jid", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca-certs", type=Path, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--to")
    parser.add_argument("--path", type=Path)
    parser.add_argument("--many", action="store_true", help="offer it to all devices")
    parser.add_argument("--config", type=json.loads, default={}, help="more of the plugin's configuration, in JSON")
    parser.add_argument("--sm", action="store_true", help="stream management (XEP-0198)")
    parser.add_argument("--die", choices=["published", "noted"], help="be killed at this moment")
    parser.add_argument("--room", help="a room to be in; the nick is the resource")
    parser.add_argument("--hidden", action="store_true", help="send no presence")
    asyncio.run(main(parser.parse_args()))
