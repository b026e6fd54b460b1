"""Commands and examples as processes with their real command line, and a client at the other end of them."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import slixmpp

from slixmpp_bt import XEP_BT, State, Transfer, get_plugin
from slixmpp_bt.testing import LoopbackServer

from .world import LISTEN

PASSWORD = "secret"
#: Seconds until a test gives up.
PATIENCE = 60.0
#: The program ``slixmpp-bt``.
CLI = ("-m", "slixmpp_bt.cli")


@asynccontextmanager
async def friends() -> AsyncIterator[LoopbackServer]:
    """A server with alice and bob, who see each other's presence, and carol, whom nobody knows."""
    async with LoopbackServer(users=dict.fromkeys(("alice", "bob", "carol"), PASSWORD)) as server:
        server.subscribe("alice", "bob")
        yield server


def account(server: LoopbackServer, name: str) -> list[str]:
    """The options that say who and where we are."""
    return [
        *("--jid", f"{name}@{server.domain}", "--host", server.host, "--port", str(server.port)),
        *("--ca-certs", str(server.ca_certs), "--listen", LISTEN[0], "--listen", LISTEN[1]),
    ]


@asynccontextmanager
async def running(
    *arguments: str, home: Path, password: str = PASSWORD, stdin: int = DEVNULL, background: bool = False
) -> AsyncIterator[Process]:
    """A Python process; killed if it is still there in the end.

    :param home: its home and working directory.
    :param background: begin with SIGINT ignored, as a shell's script does with ``command &``.
    """
    home.mkdir(exist_ok=True)  # noqa: ASYNC240
    settings = {"HOME": str(home), "SLIXMPP_BT_PASSWORD": password, "COLUMNS": "200"}
    shell = ("sh", "-c", 'trap "" INT; exec "$@"', "sh") if background else ()
    process = await asyncio.create_subprocess_exec(
        *shell, sys.executable, *arguments, stdin=stdin, stdout=PIPE, stderr=PIPE, cwd=home, env=os.environ | settings
    )
    try:
        async with asyncio.timeout(PATIENCE):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def finish(process: Process) -> tuple[int, str, str]:
    """Its exit code, and what is left of its output and its errors."""
    out, error = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), error.decode()


async def ran(*arguments: str, home: Path, password: str = PASSWORD) -> tuple[int, str, str]:
    """As :func:`finish`, of a process from its beginning."""
    async with running(*arguments, home=home, password=password) as process:
        return await finish(process)


async def stop(process: Process, how: signal.Signals = signal.SIGINT) -> tuple[int, str, str]:
    """As :func:`finish`, of a process that is told to end."""
    process.send_signal(how)
    return await finish(process)


def to_go_on(error: str, *, kept: str) -> list[str]:
    """The command line that `error` names for going on with `kept`, a regular expression, as a shell reads it."""
    (found,) = re.findall(rf"^kept: {kept}; to go on: slixmpp-bt (.*)$", error, re.MULTILINE)
    read = subprocess.run(["bash", "-c", f"printf '%s\\0' {found}"], capture_output=True, check=True)
    return [*CLI, *read.stdout.decode().split("\0")[:-1]]


async def error_until(process: Process, words: str) -> str:
    """Read its standard error up to and with `words`."""
    assert process.stderr is not None
    return (await process.stderr.readuntil(words.encode())).decode()


class Peer:
    """A client with the plugin at the other end of a command."""

    def __init__(self, xmpp: slixmpp.ClientXMPP, inbox: Path) -> None:
        self.xmpp = xmpp
        self.inbox = inbox
        self._told: dict[str, asyncio.Queue[Any]] = {}
        for event in ("bt_offer", "bt_offer_end", "bt_transfer_start", "bt_transfer_end"):
            queue = self._told[event] = asyncio.Queue()
            xmpp.add_event_handler(event, queue.put_nowait)

    @property
    def bt(self) -> XEP_BT:
        return get_plugin(self.xmpp)

    async def told(self, event: str) -> Any:
        return await asyncio.wait_for(self._told[event].get(), PATIENCE)


@asynccontextmanager
async def peer(
    server: LoopbackServer, name: str, home: Path, *, device: str = "peer", **config: Any
) -> AsyncIterator[Peer]:
    xmpp = server.client(f"{name}/{device}")
    inbox = home / f"inbox of {name}"
    xmpp.register_plugin("xep_bt", {"listen": LISTEN, "state_dir": None, "download_dir": inbox, **config})
    one = Peer(xmpp, inbox)
    xmpp.add_event_handler("session_start", lambda _: xmpp.send_presence())
    await server.connect(xmpp)
    await server.wait_available(f"{name}/{device}")
    try:
        yield one
    finally:
        await one.bt.aclose()


async def moving(transfer: Transfer, least: int = 1) -> None:
    """Wait until so many bytes have moved."""
    async for now in transfer:
        if now.transferred >= least and transfer.state is State.RUNNING:
            return
    raise AssertionError(f"{transfer} has ended: {transfer.error}")


class Terminal:
    """The other end of a terminal that a command has as its standard input."""

    def __init__(self) -> None:
        self._own, self.theirs = pty.openpty()

    def type(self, line: str) -> None:
        os.write(self._own, f"{line}\n".encode())

    def close(self) -> None:
        os.close(self._own)
        os.close(self.theirs)


@contextmanager
def terminal() -> Iterator[Terminal]:
    """A terminal with nobody at it but the test."""
    one = Terminal()
    try:
        yield one
    finally:
        one.close()
