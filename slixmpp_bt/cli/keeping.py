"""Where a command keeps what is unfinished, and as which device it goes on with that."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import re
import secrets
import sys
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

from slixmpp import JID

from ..config import Config
from .failures import USAGE, Failure

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Keep:
    """What one command of one account keeps, for as long as the command runs. A context manager: in the end it says
    what was noted, on standard error.

    It is the command's device, too: what was agreed with a device goes on only with the same one.

    :ivar directory: the plugin's ``state_dir``; None: nothing is kept.
    :ivar instance: the plugin's ``instance``.
    :ivar resource: the device's name.
    :ivar why_not: in words, why nothing is kept, if that is not what the user wanted.
    """

    def __init__(self, command: str, directory: Path | None = None) -> None:
        self.directory = directory
        self.instance = command
        self.resource = _new_name()
        self.why_not: str | None = None
        self._lock: int | None = None
        self._notes: list[str] = []

    @classmethod
    def hold(cls, options: argparse.Namespace, jid: JID, command: str) -> Self:
        """Keep, as `options` say. Where another process does so, or the disk does not let it, nothing is kept.

        Blocks for a moment.

        :raises Failure: the directory that was named cannot be used.
        """
        if not getattr(options, "keep", True):
            return cls(command)
        self = cls(command, _directory(options))
        try:
            self._take(jid)
        except BlockingIOError:
            self.why_not = f"another {command} of {jid.bare} is running"
        except OSError as error:
            self.why_not = f"{self.directory} cannot be used: {error.strerror}"
            if options.state_dir is not None:
                raise Failure(self.why_not, USAGE) from None
        if self.why_not:
            self.directory = None
        return self

    def _take(self, jid: JID) -> None:
        assert self.directory is not None
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(_file(self.directory, jid, self.instance), _FLAGS, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.resource = _name_in(self._lock)

    @staticmethod
    def is_known(options: argparse.Namespace, jid: JID, command: str) -> bool:
        """Whether a command of this name has ever kept anything for the account."""
        return _file(_directory(options), jid, command).exists()

    def fail(self) -> None:
        """The plugin could not open its state."""
        if self.directory is not None:
            self.why_not = f"what is kept in {self.directory} cannot be opened"
            self.directory = None

    def note(self, lines: Iterable[str]) -> None:
        """Say these in the end too, if anything is kept."""
        if self.directory is not None:
            self._notes += lines

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)
        if self.directory is None and kind in (asyncio.CancelledError, KeyboardInterrupt):
            words = "stopped. Nothing is kept: offers are withdrawn, what arrived only in part is deleted"
            sys.stderr.write(f"slixmpp-bt: {words}\n")
        sys.stderr.writelines(f"{line}\n" for line in self._notes)


def _directory(options: argparse.Namespace) -> Path:
    if options.state_dir is not None:
        return Path(options.state_dir)
    default = Config().state_dir
    assert default is not None
    return default


def _file(directory: Path, jid: JID, command: str) -> Path:
    """Held by who keeps, and holds the device's name."""
    return directory / f"{command}.{sha256(jid.bare.encode()).hexdigest()[:32]}.device"


def _name_in(file: int) -> str:
    """The name in `file`; a new one is written if there is none."""
    name = os.pread(file, 64, 0).decode("ascii", "replace")
    if not re.fullmatch("slixmpp-bt-[0-9a-f]{8}", name):
        name = _new_name()
        os.ftruncate(file, 0)
        os.pwrite(file, name.encode(), 0)
    return name


def _new_name() -> str:
    return f"slixmpp-bt-{secrets.token_hex(4)}"
