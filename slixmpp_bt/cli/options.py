"""What can be said on the command line."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from slixmpp import JID
from slixmpp.jid import InvalidJID

from .. import __version__
from ..config import Config
from ..constants import Route
from ..plugin import MODES

#: A command that is about to run, and its exit code.
Command = Coroutine[Any, Any, int]

_EXITS = (
    "Exit codes: 0 done; 1 a transfer failed; 2 wrong usage or configuration; 3 cannot connect or log in; 130 stopped."
)
_SIZES = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments. ``run(options)`` of the result checks what can be checked before anything is started, and
    returns the coroutine that does what they ask for.

    :raises SystemExit: they make no sense (2), or help was asked for (0).
    """
    parser = argparse.ArgumentParser(
        prog="slixmpp-bt", description="Send files over XMPP; BitTorrent carries them.", epilog=_EXITS
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what the libraries log")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_send(commands)
    _add_receive(commands)
    _add_cancel(commands)
    _add_demo(commands)
    options = parser.parse_args(argv)
    if getattr(options, "port", None) is not None and options.host is None:
        parser.error("--port needs --host")
    return options


def _add_send(commands: Any) -> None:
    parser = commands.add_parser("send", help="send files or directories", epilog=_EXITS)
    parser.add_argument("to", type=jid, metavar="JID", help="whom to send to: an account, or one device of it")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files or directories")
    parser.add_argument("--desc", help="words about them, shown to the receiver")
    parser.add_argument(
        "--mode", choices=sorted(map(str, MODES)), help=f"how private the offer is (default: {Config().mode})"
    )
    parser.add_argument(
        "--expires",
        type=duration,
        metavar="TIME",
        help="until when it can be accepted: 90s, 15m, 12h, 7d (default: 7d)",
    )
    _add_keeping(parser)
    _add_account(parser)
    parser.set_defaults(run=_later("send"))


def _add_receive(commands: Any) -> None:
    parser = commands.add_parser("receive", help="receive files", epilog=_EXITS)
    parser.add_argument("--dir", type=Path, default=Path(), help="where the files go (default: here)")
    who = parser.add_mutually_exclusive_group()
    who.add_argument(
        "--from", dest="friends", nargs="+", action="extend", type=bare_jid, metavar="JID",
        help="accept from these accounts (bare JIDs) without asking, and from nobody else",
    )  # fmt: skip
    who.add_argument("--anybody", action="store_true", help="accept from everybody without asking")
    parser.add_argument("--once", action="store_true", help="exit after the first transfer")
    parser.add_argument(
        "--max-size", type=size, metavar="SIZE", help="refuse what is larger: 500M, 4G (default: 1 GiB)"
    )
    _add_keeping(parser)
    _add_account(parser)
    parser.set_defaults(run=_later("receive"))


def _add_cancel(commands: Any) -> None:
    parser = commands.add_parser("cancel", help="give up what stopped commands have kept", epilog=_EXITS)
    _add_state_dir(parser)
    _add_account(parser)
    parser.set_defaults(run=_later("cancel"))


def _add_demo(commands: Any) -> None:
    parser = commands.add_parser("demo", help="send a file to an echo bot, all on this machine", epilog=_EXITS)
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="(default: 64 MiB of random bytes)")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="save the last screen as a picture")
    parser.set_defaults(run=_later("demo"))


def _add_keeping(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    _add_state_dir(where)
    where.add_argument(
        "--no-keep", dest="keep", action="store_false", help="when stopped, cancel what is unfinished and keep nothing"
    )


def _add_state_dir(parser: Any) -> None:
    parser.add_argument(
        "--state-dir", type=Path, metavar="DIRECTORY",
        help="where what is unfinished is kept (default: the user's state directory)",
    )  # fmt: skip


def _add_account(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "account", "Without a password in a file or in the environment it is asked for, if there is somebody to ask."
    )
    group.add_argument("--jid", type=jid, default=os.environ.get("SLIXMPP_BT_JID"), help="(default: $SLIXMPP_BT_JID)")
    password = group.add_mutually_exclusive_group()
    password.add_argument("--password-file", type=Path, metavar="FILE", help="its first line is the password")
    password.add_argument(
        "--password-env", default="SLIXMPP_BT_PASSWORD", metavar="NAME",
        help="the environment variable with the password (default: SLIXMPP_BT_PASSWORD)",
    )  # fmt: skip
    group.add_argument("--host", help="the server's name or address (default: found by the JID's domain)")
    group.add_argument("--port", type=port, help="(default: 5222)")
    group.add_argument("--ca-certs", type=Path, metavar="FILE", help="trust the certificates in this PEM file")
    group.add_argument(
        "--listen", action="append", metavar="ADDRESS",
        help="where BitTorrent listens: host or host:port; may be repeated (default: everywhere, any port)",
    )  # fmt: skip
    group.add_argument(
        "--route", dest="routes", action="append", choices=[str(route) for route in Route], metavar="ROUTE",
        help=f"a way that bytes may take: {', '.join(Route)}; may be repeated (default: all of them)",
    )  # fmt: skip


def config_of(options: argparse.Namespace) -> dict[str, Any]:
    """What the options of the account say to the plugin."""
    given = {"listen": options.listen, "routes": options.routes}
    return {key: value for key, value in given.items() if value}


def _later(command: str) -> Callable[[argparse.Namespace], Command]:
    """The command's ``run``, imported when it is called: only then rich is needed."""

    def run(options: argparse.Namespace) -> Command:
        coroutine: Command = import_module(f".{command}", __package__).run(options)
        return coroutine

    return run


def jid(text: str) -> JID:
    """An address with an account in it."""
    try:
        address = JID(text)
    except InvalidJID:
        address = JID()
    if not address.local:
        raise argparse.ArgumentTypeError(f"{text!r} is not a JID such as juliet@example.org")
    return address


def bare_jid(text: str) -> str:
    """The address of an account. One with a device is refused, as the configuration refuses it: whoever names a device
    must not be given the whole account.
    """
    address = jid(text)
    if address.resource:
        raise argparse.ArgumentTypeError(f"{text!r} names one device; give the account, {address.bare}")
    return str(address.bare)


def port(text: str) -> int:
    """A TCP port."""
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


def duration(text: str) -> timedelta:
    """A time span such as ``15m``; a bare number is seconds."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    if not found or not int(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90s, 15m, 12h or 7d")
    return timedelta(seconds=int(found[1]) * _TIMES[found[2] or "s"])


def size(text: str) -> int:
    """A number of bytes such as ``500M``."""
    found = re.fullmatch(r"([0-9]{1,12})([KMGT]?)B?", text.upper())
    if not found or not int(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 500M or 4G")
    return int(found[1]) * _SIZES[found[2]]
