"""One side of a transfer as a process of its own: ``python -m tests.peer``.

It prints ``ready`` once it is online, with ``--follow`` one JSON object for each thing that changes, and one JSON
object when it is done.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import resource
import socket
import sys
import time
from pathlib import Path
from typing import Any

import slixmpp

from slixmpp_bt import Transfer
from slixmpp_bt.backends.libtorrent import LibtorrentBackend
from slixmpp_bt.constants import Mode
from slixmpp_bt.messages import Candidate

from .servers import PASSWORD
from .world import Member


class Unreachable(LibtorrentBackend):
    """Names a port where nobody listens, so that only this side can dial."""

    async def candidates(self, mode: Mode) -> tuple[Candidate, ...]:
        return tuple(
            Candidate(candidate.address, _deaf.getsockname()[1]) for candidate in await super().candidates(mode)
        )


#: Bound, so that nobody else can listen there.
_deaf = socket.socket()
_deaf.bind(("127.0.0.1", 0))


class Lag:
    """How late the event loop wakes up, in seconds, sampled every 5 ms."""

    def __init__(self) -> None:
        self.samples: list[float] = []
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0.005)
            self.samples.append(loop.time() - before - 0.005)

    async def stop(self) -> dict[str, float]:
        self._task.cancel()
        await asyncio.wait([self._task])
        ordered = sorted(self.samples) or [0.0]
        return {
            "p50": ordered[len(ordered) // 2],
            "p99": ordered[len(ordered) * 99 // 100],
            "max": ordered[-1],
        }


def _answer(message: slixmpp.Message) -> None:
    if message["body"].startswith("ping "):
        message.reply(message["body"].replace("ping", "pong")).send()


class Chat:
    """Chat messages to the other side while the transfer runs, and how long each answer took, in seconds."""

    def __init__(self, xmpp: slixmpp.ClientXMPP, to: str) -> None:
        self.sent = 0
        self.answers: list[float] = []
        self._xmpp, self._to = xmpp, slixmpp.JID(to)
        self._waiting: dict[str, float] = {}
        xmpp.add_event_handler("message", self._hear)
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            self._waiting[f"pong {self.sent}"] = time.monotonic()
            self._xmpp.send_message(self._to, f"ping {self.sent}")
            self.sent += 1

    def _hear(self, message: slixmpp.Message) -> None:
        asked = self._waiting.pop(message["body"], None)
        if asked is not None:
            self.answers.append(time.monotonic() - asked)

    async def stop(self) -> dict[str, float]:
        self._task.cancel()
        for _ in range(100):  # what is under way arrives
            if len(self.answers) == self.sent:
                break
            await asyncio.sleep(0.02)
        ordered = sorted(self.answers) or [0.0]
        return {
            "sent": self.sent,
            "answered": len(self.answers),
            "p50": ordered[len(ordered) // 2],
            "max": ordered[-1],
        }


async def _follow(transfer: Transfer) -> Path:
    """Print what changes, each time that it does, until the transfer has ended."""
    end, before = asyncio.create_task(transfer.wait()), None
    while not end.done():
        now = {"state": transfer.state, "diagnosis": transfer.diagnosis, **dataclasses.asdict(transfer.progress)}
        if now != before:
            print(json.dumps({"at": time.time(), **now}), flush=True)
        before = now
        await asyncio.wait([end], timeout=0.1)
    return await end


async def main(options: argparse.Namespace) -> dict[str, Any]:
    xmpp = slixmpp.ClientXMPP(options.jid, PASSWORD)
    xmpp.ca_certs, xmpp.enable_direct_tls = options.ca_certs, False
    me = Member(xmpp, options.home)
    config: dict[str, Any] = {"limits": {"max_size": 1 << 40}, "auto_accept": options.to is None, **options.config}
    if options.unreachable:
        config["backend"] = Unreachable
    bt = me.register(**config)
    xmpp.add_event_handler("message", _answer)
    bye = asyncio.Event()
    xmpp.add_event_handler("message", lambda message: bye.set() if message["body"] == "bye" else None)
    if options.keepalive:
        xmpp.register_plugin("xep_0199", {"keepalive": True, "interval": options.keepalive, "timeout": 2})
    online = asyncio.Event()

    async def appear(_: object) -> None:
        await xmpp.get_roster()
        xmpp.send_presence()
        online.set()

    xmpp.add_event_handler("session_start", appear)
    xmpp.connect(options.host, options.port)
    await asyncio.wait_for(online.wait(), 60)
    print("ready", flush=True)
    lag, begun = Lag(), time.monotonic()
    chat = Chat(xmpp, options.to) if options.to else None
    if options.to:
        transfer = await bt.send_file(options.to, options.path)
    else:
        transfer = await me.expect("bt_transfer_start")
    path = await (_follow(transfer) if options.follow else transfer.wait())
    await transfer.released()
    outcome = {
        "path": str(path),
        "seconds": time.monotonic() - begun,
        "lag": await lag.stop(),
        "chat": await chat.stop() if chat else None,
        "stanza_bytes": me.stanza_bytes,
        "routes": transfer.routes,
        "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "dials": options.unreachable,
    }
    if options.to is None:
        await asyncio.wait_for(bye.wait(), 60)
    else:
        xmpp.send_message(slixmpp.JID(options.to), "bye")
    await bt.aclose()
    await xmpp.disconnect()
    return outcome


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--jid", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca-certs", type=Path, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--to")
    parser.add_argument("--path", type=Path)
    parser.add_argument("--unreachable", action="store_true")
    parser.add_argument("--config", type=json.loads, default={}, help="more of the plugin's configuration, in JSON")
    parser.add_argument("--keepalive", type=int, help="ping the server every so many seconds; reconnect without answer")
    parser.add_argument("--follow", action="store_true")
    print(json.dumps(asyncio.run(main(parser.parse_args()))), flush=True)
    sys.exit(0)
