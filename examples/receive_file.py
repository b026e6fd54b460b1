"""Wait for a file from somebody, draw its progress, print where it is, and leave.

SLIXMPP_BT_PASSWORD=secret python receive_file.py --jid juliet@example.org --from romeo@example.org
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
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

import slixmpp_bt


class Receiver(slixmpp.ClientXMPP):
    """Accepts one file from `sender`. :attr:`outcome` ends with its path, or with what went wrong."""

    def __init__(self, jid: str, password: str, sender: str, inbox: Path, **config: Any) -> None:
        super().__init__(jid, password)
        # It stays until it is done, so there is nothing to go on with another time (`state_dir`).
        self.register_plugin("xep_bt", {"download_dir": inbox, "auto_accept": [sender], "state_dir": None, **config})
        self.outcome: asyncio.Future[Path] = asyncio.get_running_loop().create_future()
        self.add_event_handler("session_start", lambda _: self.send_presence())
        self.add_event_handler("bt_transfer_start", self.watch)
        self.add_event_handler("failed_all_auth", lambda _: self.fail(PermissionError("the server refuses us")))
        self.add_event_handler("disconnected", lambda why: self.fail(ConnectionError(f"connection lost: {why}")))

    async def watch(self, transfer: slixmpp_bt.Transfer) -> None:
        """It begins: draw it until it has ended."""
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, TimeRemainingColumn()) as bars:
            # The name is the sender's choice: safe as a file name, but not markup to obey.
            bar = bars.add_task(escape(transfer.name), total=transfer.size)
            async for now in transfer:
                bars.update(bar, total=now.total, completed=now.transferred)
        try:
            path = await transfer.wait()
        except slixmpp_bt.BTError as error:
            self.fail(error)
        else:
            await transfer.released()
            if not self.outcome.done():
                self.outcome.set_result(path)

    def fail(self, error: Exception) -> None:
        """It has come to nothing, unless it has ended already."""
        if not self.outcome.done():
            self.outcome.set_exception(error)


async def main(options: argparse.Namespace) -> None:
    """Receive, and disconnect whatever comes of it."""
    config = {"listen": options.listen} if options.listen else {}
    xmpp = Receiver(options.jid, os.environ["SLIXMPP_BT_PASSWORD"], options.sender, options.inbox, **config)
    if options.ca_certs is not None:
        xmpp.ca_certs = options.ca_certs
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, xmpp.fail, InterruptedError("stopped"))
    xmpp.connect(options.host, options.port)
    try:
        print(await xmpp.outcome)
    finally:
        await slixmpp_bt.get_plugin(xmpp).aclose()
        await xmpp.disconnect()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jid", default=os.environ.get("SLIXMPP_BT_JID"))
    parser.add_argument("--from", dest="sender", required=True, metavar="JID", help="accept from this account")
    parser.add_argument("--inbox", type=Path, default=Path("inbox"))
    parser.add_argument("--host", help="where the server is, if DNS does not say")
    parser.add_argument("--port", type=int, default=5222)
    parser.add_argument("--ca-certs", type=Path, help="a PEM file to trust instead of the system's authorities")
    parser.add_argument("--listen", action="append", help="an address for BitTorrent; may be repeated")
    try:
        asyncio.run(main(parser.parse_args()))
    except (slixmpp_bt.BTError, OSError) as error:
        raise SystemExit(f"not received: {error}") from None
