"""``slixmpp-bt receive``: wait for offers and fetch those that are wanted."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal

from ..errors import BTError
from ..incoming import IncomingOffer
from ..tasks import Tasks
from ..transfer import Transfer
from .account import Account
from .again import what
from .bars import Bars
from .failures import DONE, FAILED, USAGE, Failure, plain
from .keeping import Keep
from .options import Command, config_of
from .session import Client, session


def run(options: argparse.Namespace) -> Command:
    """Find the account; then the command can run.

    :raises Failure: there is no account, nobody who could say what is wanted, or nowhere to put it.
    """
    asks = not (options.friends or options.anybody)
    if asks and not sys.stdin.isatty():
        raise Failure("nobody is there to ask: say --from JID, or --anybody", USAGE)
    _check_directory(options.dir)
    return _run(options, Account.of(options), asks)


def _check_directory(path: Path) -> None:
    """Look whether files can be put there. It is made when the first one comes, so its parents may have to do."""
    try:
        existing = next(p for p in (path, *path.absolute().parents) if p.exists())
    except OSError as error:
        raise Failure(f"{path} cannot be used: {error.strerror}", USAGE) from None
    if not existing.is_dir():
        raise Failure(f"{path} cannot be used: {existing} is not a directory", USAGE)
    if not os.access(existing, os.W_OK | os.X_OK):
        raise Failure(f"{path} cannot be used: {existing} is not writable", USAGE)


async def _run(options: argparse.Namespace, account: Account, asks: bool) -> int:
    config = config_of(options) | {"download_dir": options.dir, "auto_accept": options.friends or options.anybody}
    if options.max_size:
        config["limits"] = {"max_size": options.max_size}
    with (
        await asyncio.to_thread(Keep.hold, options, account.jid, "receive") as keep,
        Bars(Console(stderr=True)) as bars,
    ):
        client = Client(account, config, keep)
        tasks = Tasks()
        receiver = _Receiver(client, bars, tasks, asks=asks, once=options.once)
        async with session(client, options, asks=asks):
            try:
                if keep.why_not:
                    bars.say(f"slixmpp-bt: nothing is kept: {keep.why_not}")
                bars.say(f"waiting for files as {client.boundjid}")
                await receiver.take_up()
                return await receiver.outcome
            finally:
                receiver.leave()
                await tasks.aclose()


class _Receiver:
    """Takes the plugin's events; what follows from them runs in `tasks`.

    :ivar outcome: the exit code, once there is one.
    """

    def __init__(self, client: Client, bars: Bars, tasks: Tasks, *, asks: bool, once: bool) -> None:
        self.outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._client = client
        self._bars = bars
        self._tasks = tasks
        self._asks = asks
        self._once = once
        self._one_question = asyncio.Lock()
        self._questions: dict[IncomingOffer, asyncio.Task[None]] = {}
        self._followed: set[Transfer] = set()
        self._leaving = False
        for event, handler in self._handlers().items():
            client.add_event_handler(event, handler)

    async def take_up(self) -> None:
        """Follow what earlier commands have begun, and say what cannot be gone on with."""
        for offer, why in (await self._client.bt.restored()).items():
            self._bars.say(f"kept, but not gone on with: {offer.name} from {offer.sender or offer.peer}: {why}")
        for transfer in self._client.bt.transfers:
            if transfer.incoming:
                self._bars.say(f"going on with {what(transfer)}")
                self._started(transfer)

    def leave(self) -> None:
        """What does not end from now on with the file is for the session to speak of."""
        self._leaving = True

    def _handlers(self) -> dict[str, Any]:
        return {
            "bt_offer": self._offered,
            "bt_offer_end": self._offer_over,
            "bt_transfer_start": self._started,
            "bt_transfer_end": self._ended,
        }

    def _offered(self, offer: IncomingOffer) -> None:
        if self._asks:
            self._questions[offer] = self._tasks.spawn(self._ask(offer), f"ask about {offer.id}")
        else:
            # Not declined: who is not meant to send anything need not learn that somebody is here.
            self._bars.say(f"ignored: {_what(offer)}")

    def _offer_over(self, offer: IncomingOffer) -> None:
        question = self._questions.pop(offer, None)
        if question is not None:
            question.cancel()
            self._bars.say(f"withdrawn: {_what(offer)}")

    def _started(self, transfer: Transfer) -> None:
        if transfer.incoming and not (self.outcome.done() or self._leaving or transfer in self._followed):
            self._followed.add(transfer)
            self._tasks.spawn(self._follow(transfer), f"follow {transfer.id}")

    def _ended(self, transfer: Transfer) -> None:
        """An end that nobody follows: it had no beginning, or this command is about to leave."""
        if transfer.incoming and transfer not in self._followed:
            self._report(transfer)

    async def _ask(self, offer: IncomingOffer) -> None:
        async with self._one_question:
            with self._bars.hidden():
                yes = await question(f"Accept {_what(offer)}?")
        self._questions.pop(offer, None)
        try:
            if yes:
                await offer.accept()
            else:
                await offer.decline()
        except BTError as error:
            self._bars.say(f"slixmpp-bt: {offer.name}: {error}")

    async def _follow(self, transfer: Transfer) -> None:
        try:
            await self._bars.follow(transfer, f"{transfer.name} from {transfer.peer.bare}")
            await transfer.released()
        except asyncio.CancelledError:
            self._followed.discard(transfer)
            if transfer.ended:
                self._report(transfer)
            raise
        self._followed.discard(transfer)
        self._report(transfer)

    def _report(self, transfer: Transfer) -> None:
        if transfer.complete:
            sys.stdout.write(f"{transfer.path}\n")
            sys.stdout.flush()
        elif not self._leaving:
            self._bars.say(f"slixmpp-bt: {transfer.name}: {transfer.error}")
        if self._once and not self.outcome.done():
            self.outcome.set_result(DONE if transfer.complete else FAILED)


def _what(offer: IncomingOffer) -> str:
    words = f"{offer.name} ({decimal(offer.size)}) from {offer.sender or offer.peer}"
    return f'{words}, "{offer.desc}"' if offer.desc else words


async def question(text: str) -> bool:
    """Ask on the terminal; whether the answer is yes. Cancelling it leaves the question unanswered."""
    sys.stderr.write(f"{plain(text)} [y/N] ")
    sys.stderr.flush()
    return (await _line()).strip().lower() in ("y", "yes")


async def _line() -> str:
    """A line from the terminal, empty at its end. Unlike a thread in ``input()`` it can be cancelled."""
    loop = asyncio.get_running_loop()
    typed: asyncio.Future[str] = loop.create_future()
    terminal = sys.stdin.fileno()

    def read() -> None:
        # A terminal gives whole lines. It may be gone.
        line = b""
        with suppress(OSError):
            line = os.read(terminal, 4096)
        if not typed.done():
            typed.set_result(line.decode(errors="replace"))

    loop.add_reader(terminal, read)
    try:
        return await typed
    finally:
        loop.remove_reader(terminal)
