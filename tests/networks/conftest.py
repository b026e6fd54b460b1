"""Fixtures for the tests in networks: an internet, and Prosody in it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ..servers import started
from . import namespaces
from .internet import Internet
from .server import CoreProsody


@pytest.fixture(scope="session")
def _allowed() -> None:
    """Networks can be made here. If not the test is skipped or, where nothing may be (.ci/run), fails."""
    try:
        namespaces.require()
    except namespaces.Unavailable as missing:
        if os.environ.get("SLIXMPP_BT_REQUIRE_SERVERS") == "1":
            pytest.fail(f"SLIXMPP_BT_REQUIRE_SERVERS=1, but {missing}")
        pytest.skip(str(missing))


@pytest.fixture
def internet(_allowed: None) -> Iterator[Internet]:
    """An internet of this test's own."""
    with Internet() as net:
        yield net


@pytest.fixture
def prosody(internet: Internet) -> Iterator[CoreProsody]:
    """Prosody in the core of :func:`internet`."""
    with started(CoreProsody(internet)) as server:
        yield server
