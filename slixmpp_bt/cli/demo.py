"""``slixmpp-bt demo``: a server, an echo bot and somebody who sends it a file, in one process and on loopback only."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import slixmpp
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..errors import PathError
from ..plugin import get_plugin
from ..sources import check_path
from ..testing import LoopbackServer
from ..transfer import Transfer
from .bars import Bars
from .failures import DONE, FAILED, USAGE, Failure, plain
from .ledger import Ledger, Share
from .options import Command

_SIZE = 64 * 1024**2
_CHUNK = 1024**2
#: Seconds within which the bot begins to send back what it has.
_PATIENCE = 60.0
#: The picture's width in characters: the README is read on narrow screens too.
_WIDTH = 88


class EchoFileBot(slixmpp.ClientXMPP):
    """Sends every file that arrives back to where it came from. examples/echo_file_bot.py is one to build upon."""

    def __init__(self, jid: str, password: str, **config: Any) -> None:
        super().__init__(jid, password)
        self.register_plugin("xep_bt", config)
        self.add_event_handler("session_start", lambda _: self.send_presence())
        self.add_event_handler("bt_transfer_end", self.echo)

    async def echo(self, transfer: Transfer) -> None:
        """What came in goes back."""
        if transfer.incoming and transfer.complete and transfer.path is not None:
            await get_plugin(self).send_file(transfer.peer, transfer.path)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What there is to tell in the end."""

    there: Transfer
    back: Transfer
    equal: bool
    digest: str
    seconds: float

    @property
    def code(self) -> int:
        """The exit code."""
        return DONE if self.equal else FAILED


def run(options: argparse.Namespace) -> Command:
    """Look at the file, if one was named; then the demonstration can run.

    :raises PathError: it is not a file, or cannot be read.
    """
    if options.file is not None:
        check_path(options.file)
        if options.file.is_dir():
            raise PathError(f"{options.file} is a directory; the demo sends one file")
    return _run(options.file, options.svg)


async def _run(file: Path | None, svg: Path | None) -> int:
    console = Console()
    with TemporaryDirectory(prefix="slixmpp-bt-demo-") as name:
        home = Path(name)
        if file is None:
            file = await asyncio.to_thread(make_file, home / "random.bin", _SIZE)
        async with stage(home, file.stat().st_size) as (server, alice, bot):
            scene = f"A server on {server.host}, an echo bot, and alice, who sends it {file.name}."
            ledger = Ledger(server)
            with Bars(console) as bars:
                bars.say(scene)
                outcome = await play(alice, bot, file, bars)
            report = _report(outcome, ledger, alice.boundjid, bot.boundjid)
    console.print(report)
    if svg is not None:
        picture = draw(Group(Text(plain(scene)), bars.picture(), report))
        try:
            await asyncio.to_thread(svg.write_text, picture)
        except OSError as error:
            raise Failure(f"{svg} cannot be written: {error.strerror}", USAGE) from None
    return outcome.code


@asynccontextmanager
async def stage(
    home: Path, size: int, bot: type[EchoFileBot] = EchoFileBot
) -> AsyncIterator[tuple[LoopbackServer, slixmpp.ClientXMPP, EchoFileBot]]:
    """The server and the two clients, logged in.

    :param home: for what they receive, files of at most `size` bytes.
    """
    config = {"listen": ["127.0.0.1", "::1"], "state_dir": None, "limits": {"max_size": max(size, 1)}}
    async with LoopbackServer(users={"alice": secrets.token_hex(8), "echo": secrets.token_hex(8)}) as server:
        echo = server.client(
            "echo/bot", bot, download_dir=home / "bot", auto_accept=[f"alice@{server.domain}"], **config
        )
        alice = server.client("alice/laptop")
        alice.register_plugin(
            "xep_bt", {"download_dir": home / "alice", "auto_accept": [f"echo@{server.domain}"], **config}
        )
        async with AsyncExitStack() as stack:
            for client in (echo, alice):
                stack.push_async_callback(get_plugin(client).aclose)
                await server.connect(client)
            yield server, alice, echo


async def play(alice: slixmpp.ClientXMPP, bot: EchoFileBot, file: Path, bars: Bars) -> Outcome:
    """Send the file, and wait for it to come back."""
    echo: asyncio.Future[Transfer] = asyncio.get_running_loop().create_future()

    def begins(transfer: Transfer) -> None:
        if transfer.incoming and not echo.done():
            echo.set_result(transfer)

    for event in ("bt_transfer_start", "bt_transfer_end"):
        alice.add_event_handler(event, begins)
    before = time.monotonic()
    there = await get_plugin(alice).send_file(bot.boundjid, file)
    await bars.follow(there, "there", keep=True)
    await there.wait()
    try:
        back = await asyncio.wait_for(echo, _PATIENCE)
    except TimeoutError:
        raise Failure("the bot sends nothing back", FAILED) from None
    await bars.follow(back, "and back", keep=True)
    path = await back.wait()
    seconds = time.monotonic() - before
    sent, received = await asyncio.gather(asyncio.to_thread(sha256, file), asyncio.to_thread(sha256, path))
    return Outcome(there, back, sent == received, received, seconds)


def _report(outcome: Outcome, ledger: Ledger, alice: slixmpp.JID, bot: slixmpp.JID) -> RenderableType:
    table = Table(title="What travelled, in bytes", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("")
    table.add_column("to the bot", justify="right")
    table.add_column("back to alice", justify="right")
    for route in sorted({*outcome.there.routes, *outcome.back.routes}):
        table.add_row(f"file, by {route}", *(f"{t.routes.get(route, 0):,}" for t in (outcome.there, outcome.back)))
    rows = (("XMPP, for the two transfers", ledger.transfers), ("XMPP, all else", ledger.rest))
    for title, share in rows:
        table.add_row(title, *(_bytes(share(jid)) for jid in (bot, alice)))
    verdict = "the echo is equal" if outcome.equal else "THE ECHO DIFFERS"
    end = Text(f"\nSHA-256 {outcome.digest}\n{verdict}; both ways took {outcome.seconds:.2f} s")
    return Group(Text(), table, end)


def _bytes(share: Share) -> str:
    return f"{share.size:,} in {share.stanzas} stanzas"


def make_file(path: Path, size: int) -> Path:
    """A file of random bytes; blocks."""
    with path.open("wb") as file:
        for start in range(0, size, _CHUNK):
            file.write(secrets.token_bytes(min(_CHUNK, size - start)))
    return path


def sha256(path: Path) -> str:
    """The file's SHA-256; blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def draw(screen: RenderableType) -> str:
    """`screen` as SVG."""
    console = Console(width=_WIDTH, record=True, force_terminal=True, file=io.StringIO(), color_system="truecolor")
    console.print(screen)
    svg = console.export_svg(title="slixmpp-bt demo", unique_id="demo")
    # Whoever looks at a picture does not ask for fonts from somebody else's server.
    svg = re.sub(r"@font-face\s*\{[^}]*\}|<!--.*?-->", "", svg, flags=re.DOTALL)
    return "".join(f"{line.rstrip()}\n" for line in svg.splitlines() if line.strip())
