"""Send a file or a directory, draw its progress, and leave when the other side has it.

SLIXMPP_BT_PASSWORD=secret python send_file.py --jid romeo@example.org juliet@example.org letter.txt
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import slixmpp
from rich.markup import escape
from rich.progress import Progress

import slixmpp_bt


class Sender(slixmpp.ClientXMPP):
    """Sends one file as soon as it is online. :attr:`outcome` ends with the source, or with what went wrong."""

    def __init__(self, jid: str, password: str, to: str, path: Path, **config: Any) -> None:
        super().__init__(jid, password)
        # It stays until it is done, so there is nothing to go on with another time.
        self.register_plugin("xep_bt", {"state_dir": None, **config})
        self.outcome: asyncio.Future[Path] = asyncio.get_running_loop().create_future()
        self._to = to
        self._path = path
        self.add_event_handler("session_start", self.start)
        self.add_event_handler("failed_all_auth", lambda _: self.fail(PermissionError("the server refuses us")))
        self.add_event_handler("disconnected", lambda why: self.fail(ConnectionError(f"connection lost: {why}")))

    async def start(self, _: object) -> None:
        """Online: offer the file and see it through."""
        self.send_presence()
        try:
            transfer = await slixmpp_bt.get_plugin(self).send_file(self._to, self._path)
            with Progress() as bars:
                bar = bars.add_task(escape(transfer.name), total=None)
                async for now in transfer:
                    bars.update(bar, total=now.total, completed=now.transferred)
            path = await transfer.wait()
        except slixmpp_bt.BTError as error:
            self.fail(error)
        else:
            if not self.outcome.done():
                self.outcome.set_result(path)

    def fail(self, error: Exception) -> None:
        """It has come to nothing, unless it has ended already."""
        if not self.outcome.done():
            self.outcome.set_exception(error)


async def main(options: argparse.Namespace) -> None:
    """Send, and disconnect whatever comes of it."""
    config = {"listen": options.listen} if options.listen else {}
    xmpp = Sender(options.jid, os.environ["SLIXMPP_BT_PASSWORD"], options.to, options.path, **config)
    if options.ca_certs is not None:
        xmpp.ca_certs = options.ca_certs
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, xmpp.fail, InterruptedError("stopped"))
    xmpp.connect(options.host, options.port)
    try:
        print(f"{options.to} has {await xmpp.outcome}")
    finally:
        await slixmpp_bt.get_plugin(xmpp).aclose()
        await xmpp.disconnect()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("to", help="an account or one device of it")
    parser.add_argument("path", type=Path)
    parser.add_argument("--jid", default=os.environ.get("SLIXMPP_BT_JID"))
    parser.add_argument("--host", help="where the server is, if DNS does not say")
    parser.add_argument("--port", type=int, default=5222)
    parser.add_argument("--ca-certs", type=Path, help="a PEM file to trust instead of the system's authorities")
    parser.add_argument("--listen", action="append", help="an address for BitTorrent; may be repeated")
    try:
        asyncio.run(main(parser.parse_args()))
    except (slixmpp_bt.BTError, OSError) as error:
        raise SystemExit(f"not sent: {error}") from None
