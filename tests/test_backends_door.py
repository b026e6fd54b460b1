"""Who begins a handshake and does not finish it costs a descriptor for seconds, not for ever."""

from __future__ import annotations

import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from slixmpp_bt.backends import PeerConnected
from slixmpp_bt.backends._libtorrent import door
from slixmpp_bt.backends.libtorrent import LibtorrentBackend
from slixmpp_bt.constants import Mode
from slixmpp_bt.testing._material import event, material, running, until
from slixmpp_bt.testing._swarming import fetched

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the table of descriptors is Linux's")


def hung_up(stranger: socket.socket) -> bool:
    stranger.setblocking(False)
    try:
        return stranger.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


async def test_strangers_who_say_nothing_are_hung_up_on_and_members_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "PATIENCE", 0.5)
    given = await material(tmp_path, 300_000, mode=Mode.SEALED)
    async with running(LibtorrentBackend) as sender, running(LibtorrentBackend) as receiver:
        seed = await sender.open_seed(given.manifest, given.paths, given.admission())
        candidates = await sender.candidates(Mode.SEALED)
        download = await receiver.open_download(given.manifest, given.parts, given.admission())
        download.claim(range(given.manifest.piece_count))
        download.add_candidates(candidates)
        await event(seed, PeerConnected)
        with ExitStack() as stack:
            where = str(candidates[0].address), candidates[0].port
            strangers = [stack.enter_context(socket.create_connection(where)) for _ in range(door.MOST * 2)]
            await until(lambda: all(map(hung_up, strangers)), "all of them being hung up on")
        assert len(seed.status().connected) == 1
        download.release(range(given.manifest.piece_count))
        await fetched(download)
    assert given.arrived()
