"""The namespace, its features, and the three vocabularies of the public API."""

from __future__ import annotations

from enum import StrEnum

#: The protocol's namespace and main feature. XEP-0053 keeps ``urn:xmpp:`` for the XSF.
NS = "https://slixmpp-bt.readthedocs.io/protocol/0"

FEATURE_SEALED = NS + "#sealed"
FEATURE_RELAY = NS + "#relay"
FEATURE_IN_BAND = NS + "#in-band"

#: The largest stanza sent, in bytes as serialised. Servers accept 10,000 (RFC 6120 section 13.12) and add attributes.
STANZA_BUDGET = 9_000


class Mode(StrEnum):
    """How private an offer is."""

    SEALED = "sealed"
    PRIVATE = "private"


class Route(StrEnum):
    """A way by which bytes travelled."""

    INLINE = "inline"
    SWARM = "swarm"
    RELAY = "relay"
    IN_BAND = "in-band"


class State(StrEnum):
    """Where a transfer or an offer stands. The last five are terminal."""

    PREPARING = "preparing"
    OFFERED = "offered"
    CONNECTING = "connecting"
    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    COMPLETE = "complete"
    DECLINED = "declined"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    FAILED = "failed"

    @property
    def terminal(self) -> bool:
        """Whether nothing comes after this state."""
        return self in _TERMINAL


_TERMINAL = frozenset({State.COMPLETE, State.DECLINED, State.CANCELLED, State.EXPIRED, State.FAILED})
