"""Hand a file to everybody in a room, and show how far each of them is.

SLIXMPP_BT_PASSWORD=secret python room_drop.py --jid bot@example.org garden@rooms.example.org letter.txt
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


class RoomDrop(slixmpp.ClientXMPP):
    """Enters `room` as `nick` and offers one file there, for as long as it stays.

    :attr:`outcome` ends when the offer has, or with what went wrong; :attr:`served` has who got the file.
    """

    def __init__(self, jid: str, password: str, room: str, nick: str, path: Path, **config: Any) -> None:
        super().__init__(jid, password)
        self.register_plugin("xep_0045")
        self.register_plugin("xep_bt", config)
        self.outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.served: list[str] = []
        self._offer: slixmpp_bt.OutgoingOffer | None = None
        self._withdrawing: asyncio.Task[None] | None = None
        self._room = slixmpp.JID(room)
        self._nick = nick
        self._path = path
        self.add_event_handler("session_start", self.start)
        self.add_event_handler("failed_all_auth", lambda _: self.fail(PermissionError("the server refuses us")))
        self.add_event_handler("disconnected", lambda why: self.fail(ConnectionError(f"connection lost: {why}")))

    async def start(self, _: object) -> None:
        """Online: enter the room."""
        self.send_presence()
        try:
            await self.plugin["xep_0045"].join_muc_wait(self._room, self._nick, timeout=60)
            await self.serve()
        except (slixmpp_bt.BTError, OSError) as error:
            self.fail(error)
        except slixmpp.exceptions.PresenceError as error:
            self.fail(PermissionError(f"the room does not let us in: {error.condition}"))

    async def serve(self) -> None:
        """Offer the file, and see each through who fetches it."""
        offer = self._offer = await slixmpp_bt.get_plugin(self).offer(self._room, self._path, mtype="groupchat")
        with Progress() as bars:
            async with asyncio.TaskGroup() as watching:
                async for transfer in offer:
                    watching.create_task(self.watch(transfer, bars))
        if offer.error is not None and offer.state is not slixmpp_bt.State.CANCELLED:
            raise offer.error
        if not self.outcome.done():
            self.outcome.set_result(None)

    async def watch(self, transfer: slixmpp_bt.Transfer, bars: Progress) -> None:
        """One occupant's bar."""
        nick = transfer.peer.resource
        bar = bars.add_task(escape(nick), total=transfer.size)
        async for now in transfer:
            bars.update(bar, total=now.total, completed=now.transferred)
        if transfer.complete:
            self.served.append(nick)
        bars.update(bar, description=escape(f"{nick}: {transfer.error or 'has it'}"))

    def stop(self) -> None:
        """Take the offer back; who is fetching it is told."""
        if self._offer is None:
            self.fail(InterruptedError("stopped"))
        else:
            self._withdrawing = asyncio.get_running_loop().create_task(self._offer.withdraw())

    def fail(self, error: Exception) -> None:
        """It is over, unless it was before."""
        if not self.outcome.done():
            self.outcome.set_exception(error)


async def main(options: argparse.Namespace) -> None:
    """Stay in the room until it is stopped, and leave in good order."""
    # What is offered here is offered as long as this runs.
    config: dict[str, Any] = {"state_dir": None, **({"listen": options.listen} if options.listen else {})}
    bot = RoomDrop(
        options.jid, os.environ["SLIXMPP_BT_PASSWORD"], options.room, options.nick, options.path, **config
    )  # fmt: skip
    if options.ca_certs is not None:
        bot.ca_certs = options.ca_certs
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, bot.stop)
    bot.connect(options.host, options.port)
    try:
        await bot.outcome
        print(f"{len(bot.served)} got it: {', '.join(sorted(bot.served))}")
    finally:
        await slixmpp_bt.get_plugin(bot).aclose()
        await bot.disconnect()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("room", help="the room's JID")
    parser.add_argument("path", type=Path)
    parser.add_argument("--nick", default="file bot")
    parser.add_argument("--jid", default=os.environ.get("SLIXMPP_BT_JID"))
    parser.add_argument("--host", help="where the server is, if DNS does not say")
    parser.add_argument("--port", type=int, default=5222)
    parser.add_argument("--ca-certs", type=Path, help="a PEM file to trust instead of the system's authorities")
    parser.add_argument("--listen", action="append", help="an address for BitTorrent; may be repeated")
    try:
        asyncio.run(main(parser.parse_args()))
    except (slixmpp_bt.BTError, OSError) as error:
        raise SystemExit(f"not offered: {error}") from None
