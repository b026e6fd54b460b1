"""``slixmpp-bt send``: offer files to somebody and stay until they have them."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from rich.console import Console

from ..errors import BTError
from ..sources import check_path
from ..transfer import Transfer
from .account import Account
from .bars import Bars
from .earlier import Earlier
from .failures import DONE, FAILED, plain
from .keeping import Keep
from .options import Command, config_of
from .session import Client, session

#: So many files are offered at the same time; a receiver bounds the unanswered offers of one peer.
_AT_ONCE = 8


def run(options: argparse.Namespace) -> Command:
    """Look at the files and find the account; then the command can run.

    :raises PathError: a file cannot be read.
    :raises Failure: there is no account.
    """
    for path in options.paths:
        check_path(path)
    return _run(options, Account.of(options))


async def _run(options: argparse.Namespace, account: Account) -> int:
    config = config_of(options) | {"receive": False} | ({"mode": options.mode} if options.mode else {})
    with await asyncio.to_thread(Keep.hold, options, account.jid, "send") as keep, Bars(Console(stderr=True)) as bars:
        client = Client(account, config, keep)
        earlier = Earlier(client)
        async with session(client, options):
            if keep.why_not:
                bars.say(f"slixmpp-bt: nothing is kept: {keep.why_not}")
            await client.meet(options.to)
            sender = _Sender(client, options, bars, earlier)
            return await sender.send_all()


class _Sender:
    def __init__(self, client: Client, options: argparse.Namespace, bars: Bars, earlier: Earlier) -> None:
        self._client = client
        self._options = options
        self._bars = bars
        self._earlier = earlier
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._waiting = [path.name for path in options.paths]

    async def send_all(self) -> int:
        """Send what is asked for; the exit code."""
        self._earlier.load()
        options = self._options
        kept = [await asyncio.to_thread(self._earlier.take, options.to, path, options.mode) for path in options.paths]
        if others := self._earlier.others():
            self._bars.say(f"meanwhile {others} kept {'offer is' if others == 1 else 'offers are'} served as well")
        try:
            results = await asyncio.gather(*map(self._send, options.paths, kept))
        finally:
            if self._waiting:
                names = plain(", ".join(self._waiting))
                self._client.keep.note([f"not offered yet: {names}; to go on: the same command again"])
        return DONE if all(results) else FAILED

    async def _send(self, path: Path, kept: Transfer | None) -> bool:
        """Offer one file, or go on with what is kept of it, and see it through; whether it arrived."""
        options = self._options
        async with self._places:
            self._waiting.remove(path.name)
            try:
                if kept is not None and await self._goes_on(kept):
                    return True
                transfer = await self._client.bt.send_file(options.to, path, desc=options.desc, expires=options.expires)
                await self._follow(transfer)
            except BTError as error:
                self._bars.say(f"slixmpp-bt: {path.name}: {error}")
                return False
        return True

    async def _goes_on(self, kept: Transfer) -> bool:
        """See a kept transfer through; whether it arrived. False: it is to be offered anew.

        :raises BTError: it has ended otherwise.
        """
        offer = f"offer of {kept.name} to {self._options.to.bare}"
        why = await self._earlier.hindrance(kept, self._options.to)
        if why is None:
            if not kept.ended:
                self._bars.say(f"going on with the kept {offer}")
            try:
                await self._follow(kept)
            except BTError as error:
                if not self._earlier.ended_before(kept):
                    raise
                why = str(error)
            else:
                return True
        self._bars.say(f"the kept {offer} has ended: {why}; it is offered anew")
        return False

    async def _follow(self, transfer: Transfer) -> None:
        await self._bars.follow(transfer, f"{transfer.name} to {self._options.to.bare}")
        await transfer.wait()
