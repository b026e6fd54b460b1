"""How transfers end: what the other side's last word means here, what it may read of this side's, and what is kept."""

from __future__ import annotations

from .constants import Route, State
from .errors import (
    BY_REASON,
    BTError,
    Cancelled,
    Declined,
    Expired,
    IntegrityError,
    LimitExceeded,
    NoRoute,
    PeerGone,
    SourceChanged,
    StorageError,
    TransferError,
)
from .negotiation import Event

#: What a transfer ends with if nobody says why.
DEFAULT_ERRORS: dict[State, type[TransferError]] = {
    State.DECLINED: Declined,
    State.CANCELLED: Cancelled,
    State.EXPIRED: Expired,
    State.FAILED: TransferError,
}


def heard(kind: str, reason: str, text: str | None = None) -> tuple[Event, TransferError | None]:
    """What the other side's last word means here; `kind` and `reason` as in :class:`~slixmpp_bt.messages.End`."""
    if kind == "complete":
        return Event.PEER_COMPLETE, None
    if kind == "decline":
        return Event.PEER_DECLINE, Declined(text or "the receiver declined")
    words = text or f"ended by the other side ({reason})"
    cause = BY_REASON.get(reason, TransferError)
    if cause in (Cancelled, Declined):
        return Event.PEER_CANCEL, Cancelled(words)
    error = NoRoute(words, {Route.SWARM: words}) if cause is NoRoute else cause(words)
    return (Event.PEER_EXPIRED if isinstance(error, Expired) else Event.PEER_FAIL), error


def tellable(error: BTError | None) -> str | None:
    """What the other side may read of why it ended: nothing of this side's paths and disks."""
    if isinstance(error, StorageError):
        return "it cannot be read or stored on this side"
    harmless = (Cancelled, Declined, Expired, IntegrityError, LimitExceeded, NoRoute, PeerGone, SourceChanged)
    return str(error) if isinstance(error, harmless) else None


def saved_ending(error: BTError | None) -> tuple[str | None, str | None]:
    """How it ended, as it is kept."""
    return (None, None) if error is None else (getattr(error, "reason", "general-error"), str(error))


def ending(state: State, reason: str | None, text: str | None) -> BTError | None:
    """The error that :func:`saved_ending` took apart."""
    if state is State.COMPLETE:
        return None
    kind = BY_REASON.get(reason or "", DEFAULT_ERRORS[state])
    return kind(text or str(state))
