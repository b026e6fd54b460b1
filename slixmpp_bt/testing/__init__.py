"""A real XMPP server in the test's own process, for those who test bots."""

from __future__ import annotations

from .faults import Fault, Faults, carries
from .server import LoopbackServer
from .traffic import Counters, Traffic

__all__ = ["Counters", "Fault", "Faults", "LoopbackServer", "Traffic", "carries"]
