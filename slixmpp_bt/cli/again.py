"""What is unfinished, in words, and the command line that goes on with it."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from slixmpp import JID

from ..incoming import IncomingOffer
from ..plugin import XEP_BT
from ..transfer import Transfer
from .failures import plain

#: Options that matter for going on, in the order in which they are shown.
_OPTIONS = {
    "--dir": "dir", "--from": "friends", "--anybody": "anybody", "--once": "once", "--max-size": "max_size",
    "--state-dir": "state_dir", "--jid": "jid", "--password-file": "password_file", "--password-env": "password_env",
    "--host": "host", "--port": "port", "--ca-certs": "ca_certs", "--listen": "listen", "--route": "routes",
}  # fmt: skip


class Unfinished:
    """What has not ended in `bt` now. :meth:`lines` are to be asked for once `bt` is closed: what ends in the last
    moment is not kept.

    :param asks: whether offers that nobody has answered are a question to the user.
    """

    def __init__(self, bt: XEP_BT, options: argparse.Namespace, *, asks: bool = False) -> None:
        self._options = options
        self._transfers = bt.transfers
        self._offers = tuple(o for o in bt.offers if asks and isinstance(o, IncomingOffer) and not o.answered)

    def lines(self) -> Iterator[str]:
        """One for each thing that is kept, with the command that goes on with it."""
        for transfer in self._transfers:
            if not transfer.complete:
                command = again(self._options, "receive") if transfer.incoming else self._send(transfer)
                yield f"kept: {what(transfer)}; to go on: {command}"
        for offer in self._offers:
            words = f"offer of {plain(offer.name)} from {plain(offer.sender or offer.peer)}, not answered"
            yield f"kept: {words}; to go on: {again(self._options, 'receive')}"

    def _send(self, transfer: Transfer) -> str:
        """As the user has typed it, if it is this command that was asked for it."""
        to, path = JID(transfer.peer.bare), transfer.path or Path(transfer.name)
        typed = getattr(self._options, "to", None)
        if typed is not None and typed.bare == to.bare:
            to = typed
            path = next((one for one in self._options.paths if one.resolve() == path.resolve()), path)
        return again(self._options, "send", to, path)


def what(transfer: Transfer) -> str:
    """A transfer in words: what, from or to whom, how far."""
    name, peer = plain(transfer.name), plain(transfer.peer.bare)
    if not transfer.incoming and transfer.id is None:
        return f"offer of {name} to {peer}"
    percent = min(99, 100 * sum(transfer.routes.values()) // max(transfer.size, 1))
    return f"{name} {'from' if transfer.incoming else 'to'} {peer}, {percent} %"


def again(options: argparse.Namespace, command: str, *operands: object) -> str:
    """The command line that goes on with what `options` began, to be pasted into a shell."""
    words = ["slixmpp-bt", command, *map(str, operands)]
    defaults = {"--password-env": "SLIXMPP_BT_PASSWORD", "--jid": os.environ.get("SLIXMPP_BT_JID"), "--dir": "."}
    for flag, name in _OPTIONS.items():
        value = getattr(options, name, None)
        if value is True:
            words.append(flag)
        elif value and str(value) != defaults.get(flag):
            words += [word for one in (value if isinstance(value, list) else [value]) for word in (flag, str(one))]
    return " ".join(map(quoted, words))


def quoted(word: str) -> str:
    """`word` as a shell reads it, and without anything that a terminal would obey."""
    if word.isprintable():
        return shlex.quote(word)
    shown = (c if c.isprintable() and c not in "\\'" else "".join(f"\\x{b:02x}" for b in os.fsencode(c)) for c in word)
    return f"$'{''.join(shown)}'"
