"""``slixmpp-bt cancel``: give up what stopped commands have kept."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator

from rich.console import Console

from ..incoming import IncomingOffer
from .account import Account
from .again import what
from .bars import Bars
from .failures import DONE, FAILED
from .keeping import Keep
from .options import Command, config_of
from .session import Client, session

_NO_LIMITS = dict.fromkeys(("max_size", "max_files", "max_manifest_size"), 2**62)


def run(options: argparse.Namespace) -> Command:
    """Find the account; then the command can run.

    :raises Failure: there is no account.
    """
    return _run(options, Account.of(options))


async def _run(options: argparse.Namespace, account: Account) -> int:
    code, quiet = DONE, True
    with Bars(Console(stderr=True)) as bars:
        for command in ("send", "receive"):
            if not await asyncio.to_thread(Keep.is_known, options, account.jid, command):
                continue
            with await asyncio.to_thread(Keep.hold, options, account.jid, command) as keep:
                if keep.directory is not None:
                    # It takes nothing new, and whatever was accepted under other limits is to be found.
                    config = config_of(options) | {"receive": False, "limits": _NO_LIMITS}
                    client = Client(account, config, keep)
                    async with session(client, options):
                        async for line in _cancel(client):
                            quiet = False
                            bars.say(line)
                if keep.why_not:
                    code, quiet = FAILED, False
                    bars.say(f"slixmpp-bt: {keep.why_not}: it is left as it is")
        if quiet:
            bars.say("nothing is kept")
    return code


async def _cancel(client: Client) -> AsyncIterator[str]:
    """End everything; what was done, line by line."""
    ended = set()
    for transfer in client.bt.transfers:
        words = f"{'withdrawn' if transfer.id is None else 'cancelled'}: {what(transfer)}"
        await transfer.cancel("it was given up")
        ended.add(transfer)
        yield words
    for offer in client.bt.offers:
        # A stranger is told nothing, not even that somebody is here; what it offers expires.
        if isinstance(offer, IncomingOffer) and not offer.answered and offer.from_known:
            await offer.decline()
            yield f"declined: offer of {offer.name} from {offer.peer.bare}"
    untold = await client.bt.untold()
    for peer in {transfer.peer.bare for transfer in ended if transfer.offer.id in untold}:
        yield f"{peer} could not be told yet: the next send or receive does that"
