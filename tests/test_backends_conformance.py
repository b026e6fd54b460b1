"""The contract of backends/base.py, over both of ours."""

from __future__ import annotations

from slixmpp_bt.backends import Backend, RateLimits
from slixmpp_bt.backends.libtorrent import LibtorrentBackend
from slixmpp_bt.backends.plain import PlainBackend
from slixmpp_bt.config import Endpoint
from slixmpp_bt.testing.conformance import BackendConformance


class TestLibtorrent(BackendConformance):
    def make_backend(self, listen: tuple[Endpoint, ...], rates: RateLimits) -> Backend:
        return LibtorrentBackend(listen, rates)


class TestPlain(BackendConformance):
    def make_backend(self, listen: tuple[Endpoint, ...], rates: RateLimits) -> Backend:
        return PlainBackend(listen, rates)
