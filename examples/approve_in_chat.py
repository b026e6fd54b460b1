"""A bot that asks its owner, in a chat, before it accepts a file.

SLIXMPP_BT_PASSWORD=secret python approve_in_chat.py --jid bot@example.org --owner juliet@example.org
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import re
import signal
from pathlib import Path
from typing import Any

import slixmpp

import slixmpp_bt


class ApprovalBot(slixmpp.ClientXMPP):
    """Fetches into `inbox` what the account `owner` says yes to within `patience` seconds."""

    def __init__(
        self, jid: str, password: str, owner: str, inbox: Path, *, patience: float = 600, **config: Any
    ) -> None:
        super().__init__(jid, password)
        self.owner = slixmpp.JID(owner)
        self.patience = patience
        self._numbers = itertools.count(1)
        self._questions: dict[int, asyncio.Future[bool]] = {}
        self.register_plugin("xep_bt", {"download_dir": inbox, **config})
        self.add_event_handler("session_start", lambda _: self.send_presence())
        self.add_event_handler("bt_offer", self.ask)
        self.add_event_handler("bt_transfer_end", self.tell)
        self.add_event_handler("message", self.answer)

    async def ask(self, offer: slixmpp_bt.IncomingOffer) -> None:
        """Somebody offers something, and nothing was decided yet."""
        number, answer = next(self._numbers), asyncio.get_running_loop().create_future()
        self._questions[number] = answer
        # The JID is the server's word, name and size are the sender's; their description might talk the owner into it.
        self.say(f"#{number}: accept {offer.name} ({offer.size:,} bytes) from {offer.sender or offer.peer}? yes/no")
        try:
            async with asyncio.timeout(self.patience):
                accepted = await answer
            await (offer.accept() if accepted else offer.decline())
        except TimeoutError:
            await offer.decline("nobody answered")
            self.say(f"#{number}: declined, since there was no answer")
        except slixmpp_bt.BTError as error:  # withdrawn meanwhile, for example
            self.say(f"#{number}: {error}")
        finally:
            del self._questions[number]

    def answer(self, message: slixmpp.Message) -> None:
        """``yes 2`` or ``no 2``; without a number only while there is one question."""
        if message["type"] not in ("chat", "normal") or message["from"].bare != self.owner.bare:
            return
        found = re.fullmatch(r"\s*(yes|no)\s*#?([0-9]{1,9})?\s*", message["body"], re.IGNORECASE)
        open_ones = [number for number, answer in self._questions.items() if not answer.done()]
        if found is None:
            return
        number = int(found[2]) if found[2] else open_ones[0] if len(open_ones) == 1 else None
        if number not in open_ones:
            self.say("which one? " + (", ".join(f"#{n}" for n in open_ones) or "there is none"))
            return
        self._questions[number].set_result(found[1].lower() == "yes")

    def tell(self, transfer: slixmpp_bt.Transfer) -> None:
        """A transfer is over."""
        self.say(f"{transfer.name}: {transfer.path if transfer.complete else transfer.error}")

    def say(self, text: str) -> None:
        """Tell the owner, wherever they are."""
        self.send_message(self.owner, text, mtype="chat")


async def main(options: argparse.Namespace) -> None:
    """Run the bot until it is stopped or its connection is lost, and leave in good order."""
    config = {"listen": options.listen} if options.listen else {}
    bot = ApprovalBot(options.jid, os.environ["SLIXMPP_BT_PASSWORD"], options.owner, options.inbox, **config)
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
    parser.add_argument("--owner", required=True, help="the bare JID that decides")
    parser.add_argument("--inbox", type=Path, default=Path("inbox"))
    parser.add_argument("--host", help="where the server is, if DNS does not say")
    parser.add_argument("--port", type=int, default=5222)
    parser.add_argument("--ca-certs", type=Path, help="a PEM file to trust instead of the system's authorities")
    parser.add_argument("--listen", action="append", help="an address for BitTorrent; may be repeated")
    asyncio.run(main(parser.parse_args()))
