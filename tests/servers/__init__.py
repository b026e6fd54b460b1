"""Real XMPP servers for the tests, and one view of them and of the library's own loopback server.

A test takes the fixture ``server`` (tests/conftest.py), runs once on each, and sees a
:class:`~tests.servers.server.Server`. A test that needs a server in a special state starts one of its own::

    with started(Prosody(Options(rate_limits=True))) as process:
        async with Process(process) as server:
            ...
"""

from __future__ import annotations

from .ejabberd import Ejabberd
from .loopback import Loopback
from .process import USERS, Options, RealServer, joined, started
from .prosody import Prosody
from .server import PASSWORD, Process, Server

__all__ = [
    "PASSWORD",
    "USERS",
    "Ejabberd",
    "Loopback",
    "Options",
    "Process",
    "Prosody",
    "RealServer",
    "Server",
    "joined",
    "started",
]
