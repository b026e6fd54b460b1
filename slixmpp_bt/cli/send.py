"""``slixmpp-bt send``: offer files to somebody and stay until they have them."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from rich.console import Console

from ..errors import BTError
from ..sources import check_path
from .account import Account
from .bars import Bars
from .failures import DONE, FAILED
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
    config = config_of(options) | ({"mode": options.mode} if options.mode else {})
    with Bars(Console(stderr=True)) as bars:
        async with session(account, config) as client:
            await client.meet(options.to)
            sender = _Sender(client, options, bars)
            results = await asyncio.gather(*map(sender.send, options.paths))
    return DONE if all(results) else FAILED


class _Sender:
    def __init__(self, client: Client, options: argparse.Namespace, bars: Bars) -> None:
        self._client = client
        self._options = options
        self._bars = bars
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def send(self, path: Path) -> bool:
        """Offer one file and see it through; whether it arrived."""
        options = self._options
        async with self._places:
            try:
                transfer = await self._client.bt.send_file(options.to, path, desc=options.desc, expires=options.expires)
                await self._bars.follow(transfer, f"{transfer.name} to {options.to.bare}")
                await transfer.wait()
            except BTError as error:
                self._bars.say(f"slixmpp-bt: {path.name}: {error}")
                return False
        return True
