"""A bot that sends every file back that a friend of its sends it.

SLIXMPP_BT_PASSWORD=secret python echo_file_bot.py --jid echo@example.org --friend juliet@example.org
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from collections.abc import Collection
from pathlib import Path
from typing import Any

import slixmpp

import slixmpp_bt

log = logging.getLogger(__name__)


class EchoFileBot(slixmpp.ClientXMPP):
    """Accepts files from `friends` (bare JIDs) into `inbox`, and sends each back to the device that it came from."""

    def __init__(self, jid: str, password: str, friends: Collection[str], inbox: Path, **config: Any) -> None:
        super().__init__(jid, password)
        # An echo that was sent to ourselves would come back for ever.
        others = [friend for friend in friends if slixmpp.JID(friend).bare != self.requested_jid.bare]
        self.register_plugin("xep_bt", {"download_dir": inbox, "auto_accept": others, **config})
        self.add_event_handler("session_start", self.start)
        self.add_event_handler("bt_transfer_end", self.echo)

    async def start(self, _: object) -> None:
        """Become available: offers to an account go to its devices that are."""
        self.send_presence()
        await self.get_roster()

    async def echo(self, transfer: slixmpp_bt.Transfer) -> None:
        """A transfer is over, in whatever direction and however it went."""
        if not transfer.complete:
            log.warning("%s, %s: %s", transfer.peer, transfer.name, transfer.error)
        elif transfer.incoming and transfer.path is not None:
            try:
                await slixmpp_bt.get_plugin(self).send_file(transfer.peer, transfer.path, desc="your file, sent back")
            except slixmpp_bt.BTError as error:
                log.warning("%s does not get %s back: %s", transfer.peer, transfer.name, error)


async def main(options: argparse.Namespace) -> None:
    """Run the bot until it is stopped or its connection is lost, and leave in good order."""
    config = {"listen": options.listen} if options.listen else {}
    bot = EchoFileBot(options.jid, os.environ["SLIXMPP_BT_PASSWORD"], options.friend, options.inbox, **config)
    if options.ca_certs is not None:
        bot.ca_certs = options.ca_certs
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    bot.add_event_handler("disconnected", lambda _: over.set())
    bot.connect(options.host, options.port)
    await over.wait()
    # While still connected, so that the other sides are told.
    await slixmpp_bt.get_plugin(bot).aclose()
    await bot.disconnect()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jid", default=os.environ.get("SLIXMPP_BT_JID"))
    parser.add_argument("--friend", action="append", required=True, help="a bare JID; may be repeated")
    parser.add_argument("--inbox", type=Path, default=Path("inbox"))
    parser.add_argument("--host", help="where the server is, if DNS does not say")
    parser.add_argument("--port", type=int, default=5222)
    parser.add_argument("--ca-certs", type=Path, help="a PEM file to trust instead of the system's authorities")
    parser.add_argument("--listen", action="append", help="an address for BitTorrent; may be repeated")
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main(parser.parse_args()))
