"""The pluggable engines, and the contract that they fulfil."""

from ..errors import BackendClosed
from .admission import Admission
from .base import (
    UNLIMITED,
    AddressLearnt,
    Backend,
    Download,
    Event,
    EventStream,
    Finished,
    PeerConnected,
    PeerRefused,
    PieceStored,
    RateLimits,
    Seed,
    Status,
    StorageFailed,
    Swarm,
)

__all__ = [
    "UNLIMITED",
    "AddressLearnt",
    "Admission",
    "Backend",
    "BackendClosed",
    "Download",
    "Event",
    "EventStream",
    "Finished",
    "PeerConnected",
    "PeerRefused",
    "PieceStored",
    "RateLimits",
    "Seed",
    "Status",
    "StorageFailed",
    "Swarm",
]
