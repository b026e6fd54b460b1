"""Whose account the command uses, and where its password comes from."""

from __future__ import annotations

import argparse
import getpass
import os
import ssl
import sys
from dataclasses import dataclass, field
from pathlib import Path

from slixmpp import JID

from .failures import USAGE, Failure


@dataclass(frozen=True, slots=True)
class Account:
    """An account, and how to reach its server.

    :ivar host: None to look it up in DNS by the JID's domain.
    :ivar ca_certs: a PEM file to trust instead of the system's authorities.
    """

    jid: JID
    password: str = field(repr=False)
    host: str | None = None
    port: int = 5222
    ca_certs: Path | None = None

    @classmethod
    def of(cls, options: argparse.Namespace) -> Account:
        """The account that `options` and the environment name; blocks while the user types the password.

        :raises Failure: something is missing or cannot be read.
        """
        if options.jid is None:
            raise Failure("no account: give --jid, or set SLIXMPP_BT_JID", USAGE)
        if options.ca_certs is not None:
            _check_certificates(options.ca_certs)
        return cls(options.jid, _password(options), options.host, options.port or 5222, options.ca_certs)


def _password(options: argparse.Namespace) -> str:
    if options.password_file is not None:
        password = _read(options.password_file).partition("\n")[0].rstrip("\r")
        if not password:
            raise Failure(f"{options.password_file}: there is no password in its first line", USAGE)
        return password
    password = os.environ.get(options.password_env, "")
    if not password and sys.stdin.isatty():
        password = getpass.getpass(f"Password of {options.jid.bare}: ")
    if not password:
        raise Failure(f"no password: give --password-file, or set {options.password_env}", USAGE)
    return password


def _check_certificates(path: Path) -> None:
    _read(path)
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        raise Failure(f"{path} is no certificate in PEM form, or a damaged one", USAGE) from None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'not a text'}", USAGE) from None
