"""Everything this library raises.

::

    BTError
    ├── ConfigError (also ValueError)      a configuration that cannot be used
    ├── PathError (also OSError)           a path that cannot be offered or written to
    ├── NotSupported                       this side or the other cannot do that
    ├── PeerNotFound                       no such account, or nobody there to ask
    ├── BackendUnavailable                 the engine is not installed or does not start
    ├── BackendClosed                      a handle of a backend was used after its end
    ├── StateError                         the state database is locked or newer than this version
    ├── ProtocolError (.condition)         the other side broke, or refused by, the protocol
    └── TransferError (.reason)            how a transfer ended, if not with the file
        ├── Declined
        ├── Cancelled
        ├── Expired
        ├── NoRoute (.reasons)             no way between the two is left, and why, route by route
        ├── PeerGone
        ├── SourceChanged
        ├── StorageError
        ├── IntegrityError
        └── LimitExceeded

``TransferError.reason`` is a word of XEP-0166 section 7.4; ``ProtocolError.condition`` a defined condition of
RFC 6120 section 8.3.3.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import ClassVar

from .constants import Route


class BTError(Exception):
    """Base class of all errors of this library."""


class ConfigError(BTError, ValueError):
    """A configuration that cannot be used; the message names the key and, for a misspelt one, the nearest."""


class PathError(BTError, OSError):
    """A path that cannot be offered or written to; the message names it."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else "path error"


class NotSupported(BTError):
    """This side or the other one cannot do what was asked."""


class PeerNotFound(BTError):
    """There is no such account, or its server cannot be reached."""


class BackendUnavailable(BTError):
    """The engine that moves the pieces is not installed or does not start."""


class BackendClosed(BTError):
    """A backend, seed or download was used after it was closed."""


class StateError(BTError):
    """The state database cannot be used: locked by another process, or of a newer version."""


class ProtocolError(BTError):
    """The other side sent what the protocol does not allow, or refused a request.

    :ivar condition: the defined condition of RFC 6120 section 8.3.3 that was, or is to be, sent.
    :ivar reason: with ``gone``: how it ended, a word of XEP-0166 section 7.4.
    """

    def __init__(self, message: str, condition: str = "bad-request", reason: str | None = None) -> None:
        super().__init__(message)
        self.condition = condition
        self.reason = reason


class TransferError(BTError):
    """How a transfer ended, if it did not end with the file.

    :ivar reason: a word of XEP-0166 section 7.4, as it is told to the other side.
    """

    reason: ClassVar[str] = "general-error"


class Declined(TransferError):
    """The receiver did not want it."""

    reason = "decline"


class Cancelled(TransferError):
    """One of the two sides stopped it, or the sender withdrew the offer."""

    reason = "cancel"


class Expired(TransferError):
    """Nobody accepted in time, or the transfer outlived ``transfer_ttl``."""

    reason = "expired"


class NoRoute(TransferError):
    """No way between the two sides is left.

    :ivar reasons: for each route, in words, why it could not be used.
    """

    reason = "connectivity-error"

    def __init__(self, message: str, reasons: Mapping[Route, str] | None = None) -> None:
        super().__init__(message)
        self.reasons: dict[Route, str] = dict(reasons or {})


class PeerGone(TransferError):
    """The other side is not there any more."""

    reason = "gone"


class SourceChanged(TransferError):
    """The file was changed, moved or deleted after it was offered."""

    reason = "media-error"


#: What may pass: somebody makes room, or mounts or permits something.
_TEMPORARY = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE}
)


class StorageError(TransferError):
    """The disk is full, not writable or failing.

    :ivar code: of the system (:mod:`errno`), if it is the system that said no.
    :ivar temporary: whether it may pass, as lack of room does: a transfer that runs waits for that.
    """

    reason = "failed-application"

    def __init__(self, message: str = "", code: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.temporary = code in _TEMPORARY


class IntegrityError(TransferError):
    """What arrived is not what was offered."""

    reason = "security-error"


class LimitExceeded(TransferError):
    """A configured limit forbids it."""

    reason = "general-error"


#: The error with which a transfer ends when the other side gives this reason of XEP-0166.
BY_REASON: Mapping[str, type[TransferError]] = {
    error.reason: error
    for error in (Declined, Cancelled, Expired, NoRoute, PeerGone, SourceChanged, StorageError, IntegrityError)
}
