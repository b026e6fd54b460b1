"""A seed that somebody else keeps open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from slixmpp_bt.backends import Admission, PeerConnected
from slixmpp_bt.constants import Mode
from slixmpp_bt.errors import BackendClosed
from slixmpp_bt.lending import Lent
from slixmpp_bt.manifest import make
from slixmpp_bt.messages import Candidate

from .fakes import ScriptedBackend, ScriptedSeed

WHO = Candidate(ip_address("127.0.0.2"), 6881)


@pytest.fixture
async def seed(tmp_path: Path) -> AsyncIterator[ScriptedSeed]:
    backend = ScriptedBackend(6881)
    source = tmp_path / "file"
    source.write_bytes(bytes(100_000))
    made = await make(source, salt=bytes(16))
    await backend.open_seed(made.manifest, made.paths, Admission(Mode.PRIVATE))
    yield backend.seeds[0]
    await backend.aclose()


async def test_lent_seed_given_back_stays_open(seed: ScriptedSeed) -> None:
    returned: list[bool] = []
    lent = Lent(seed, lambda: returned.append(True))
    lent.add_candidates([WHO])
    await lent.pause()
    assert not seed.dialled.paused
    await lent.aclose()
    assert returned == [True]
    assert not seed.dialled.closed
    assert seed.dialled.candidates == [WHO]
    lent.remove_candidates([WHO])
    assert seed.dialled.candidates == []


async def test_lent_seed_tells_what_its_owner_passes_on_until_it_is_given_back(seed: ScriptedSeed) -> None:
    lent = Lent(seed, lambda: None)
    lent.tell(PeerConnected(WHO))
    await lent.aclose()
    lent.tell(PeerConnected(WHO))
    assert [event async for event in lent.events] == [PeerConnected(WHO)]


async def test_lent_seed_counts_what_was_uploaded_since(seed: ScriptedSeed) -> None:
    seed.dialled.uploaded = 70
    lent = Lent(seed, lambda: None)
    assert lent.status().uploaded == 0
    seed.dialled.uploaded, seed.dialled.peers = 100, 2
    assert (lent.status().uploaded, lent.status().peers) == (30, 2)


async def test_lent_seed_that_its_owner_has_closed_is_closed(seed: ScriptedSeed) -> None:
    lent = Lent(seed, lambda: None)
    await seed.aclose()
    with pytest.raises(BackendClosed):
        await lent.resume()
