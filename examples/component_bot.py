"""The echo bot as a component (XEP-0114): whoever writes to any address of its domain gets their files back.

SLIXMPP_BT_PASSWORD=secret python component_bot.py --domain files.example.org --friend juliet@example.org
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Collection
from pathlib import Path
from typing import Any

import slixmpp

import slixmpp_bt


class ComponentBot(slixmpp.ComponentXMPP):
    """Accepts files from `friends` (bare JIDs) into `inbox`, and sends each back as ``echo@`` its domain."""

    def __init__(
        self, domain: str, secret: str, friends: Collection[str], inbox: Path, host: str | None = None,
        port: int | None = None, **config: Any,
    ) -> None:  # fmt: skip
        super().__init__(domain, secret, host, port)  # type: ignore[no-untyped-call]
        self.register_plugin("xep_bt", {"download_dir": inbox, "auto_accept": friends, **config})
        self.echo_jid = slixmpp.JID(f"echo@{domain}")
        self.add_event_handler("bt_transfer_end", self.echo)

    async def echo(self, transfer: slixmpp_bt.Transfer) -> None:
        """A component speaks for many addresses, so it says as which one (`ifrom`)."""
        if transfer.incoming and transfer.complete and transfer.path is not None:
            await slixmpp_bt.get_plugin(self).send_file(transfer.peer, transfer.path, ifrom=self.echo_jid)


async def main(options: argparse.Namespace) -> None:
    """Run the component until it is stopped or its connection is lost, and leave in good order."""
    config = {"listen": options.listen} if options.listen else {}
    bot = ComponentBot(
        options.domain, os.environ["SLIXMPP_BT_PASSWORD"], options.friend, options.inbox, options.host, options.port,
        **config,
    )  # fmt: skip
    # A component's stream has no TLS: the server is to be on the same machine.
    bot.enable_direct_tls = False
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    bot.add_event_handler("disconnected", lambda _: over.set())
    bot.connect()
    await over.wait()
    # While still connected, so that the other sides are told.
    await slixmpp_bt.get_plugin(bot).aclose()
    await bot.disconnect()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domain", required=True)
    parser.add_argument("--friend", action="append", required=True, help="a bare JID; may be repeated")
    parser.add_argument("--inbox", type=Path, default=Path("inbox"))
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5347)
    parser.add_argument("--listen", action="append", help="an address for BitTorrent; may be repeated")
    asyncio.run(main(parser.parse_args()))
