"""The plugin as slixmpp's own: its registration, its end, and what it says to garbage and to strangers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
import slixmpp
from slixmpp.exceptions import IqError

import slixmpp_bt
from slixmpp_bt import ConfigError, PathError, PeerNotFound, SourceChanged, State, get_plugin
from slixmpp_bt.constants import NS

from .servers import Loopback, Server
from .world import LISTEN, Member, done, make_file, member, pair, until


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Loopback() as view:
        yield view


def test_wrong_configuration_leaves_the_client_usable(tmp_path: Path) -> None:
    async def main() -> None:
        xmpp = slixmpp.ClientXMPP("a@localhost", "x")
        with pytest.raises(ConfigError, match="did you mean 'download_dir'"):
            xmpp.register_plugin("xep_bt", {"downlod_dir": tmp_path})
        with pytest.raises(ConfigError, match="auto_accept"):
            xmpp.register_plugin("xep_bt", {"auto_accept": True})
        with pytest.raises(ConfigError, match="backend"):
            xmpp.register_plugin("xep_bt", {"backend": int})
        xmpp.register_plugin("xep_bt", {"download_dir": tmp_path}, module=slixmpp_bt)
        assert get_plugin(xmpp).settings.download_dir == tmp_path
        with pytest.raises(ConfigError, match="disable it"):
            get_plugin(xmpp).configure(backend="plain")
        with pytest.raises(ConfigError, match="max_size"):
            get_plugin(xmpp).configure(upload_limit=5, limits={"max_size": -1})
        assert get_plugin(xmpp).settings.upload_limit is None
        await get_plugin(xmpp).aclose()

    asyncio.run(main())


async def test_paths_that_cannot_be_offered_are_named(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(make_file(tmp_path / "file", 10))
    for name in ("missing", "pipe", "link"):
        with pytest.raises(PathError, match=name):
            await alice.bt.send_file(bob.jid, tmp_path / name)
    assert alice.bt.offers == ()


async def test_bad_arguments_raise_at_once(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path)
    source = make_file(tmp_path / "file", 10)
    with pytest.raises(ValueError, match="very device"):
        await alice.bt.send_file(alice.jid, source)
    with pytest.raises(ValueError, match="ifrom"):
        await alice.bt.send_file(bob.jid, source, ifrom="somebody@else.example")
    with pytest.raises(ValueError, match="desc"):
        await alice.bt.send_file(bob.jid, source, desc=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unheard"):
        await alice.bt.send_file(bob.jid, source, mode="unheard")
    with pytest.raises(ValueError, match="future"):
        await alice.bt.send_file(bob.jid, source, expires=-1)
    with pytest.raises(PeerNotFound, match="joined"):
        await alice.bt.offer("room@conference.localhost", source, mtype="groupchat")
    with pytest.raises(ValueError, match="delegate"):
        await alice.bt.offer(bob.jid, source, delegate=True)
    with pytest.raises(ValueError, match="occupant"):
        await alice.bt.offer("room@conference.localhost/bob", source, mtype="groupchat")
    with pytest.raises(ValueError, match="access"):
        await alice.bt.publish(source, access=())
    with pytest.raises(ValueError, match="node"):
        await alice.bt.publish(source, node="")
    assert alice.bt.offers == ()


async def test_source_changed_while_served_ends_both_sides_with_the_reason(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path)
    alice.bt.configure(upload_limit=200_000)
    source = make_file(tmp_path / "file", 10_000_000)
    sending = await alice.bt.send_file(bob.jid.bare, source)
    receiving = await bob.expect("bt_transfer_start")
    await until(lambda: receiving.progress.transferred > 0)
    with source.open("r+b") as file:
        file.write(b"other")
    for transfer in (sending, receiving):
        with pytest.raises(SourceChanged, match="file"):
            await done(transfer)
        assert transfer.state is State.FAILED
        await transfer.released()
    assert list(bob.inbox.iterdir()) == []


def _open_files(below: Path) -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115
        except OSError:
            continue
        if target.startswith(str(below)):
            found.append(target)
    return found


def _threads() -> int:
    """Threads of this process, but for those that asyncio keeps for ``to_thread`` once it has them."""
    kept = [thread for thread in threading.enumerate() if thread.name.startswith("asyncio_")]
    return len(os.listdir("/proc/self/task")) - len(kept)  # noqa: PTH208


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("how", ["disconnect", "disable", "aclose"])
async def test_leaving_in_mid_transfer_leaves_nothing_behind(server: Server, tmp_path: Path, how: str) -> None:
    # Whatever the resolver and others keep for themselves exists once one transfer has run.
    alice, bob = await pair(server, tmp_path / "first")
    await done(await alice.bt.send_file(bob.jid.bare, make_file(tmp_path / "warm", 10_000)))
    for one in (alice, bob):
        await one.bt.aclose()
        await one.xmpp.disconnect()
    threads = _threads()
    alice, bob = await pair(server, tmp_path / "second")
    alice.bt.configure(upload_limit=200_000)
    sending = await alice.bt.send_file(bob.jid.bare, make_file(tmp_path / "file", 10_000_000))
    receiving = await bob.expect("bt_transfer_start")
    await until(lambda: receiving.progress.transferred > 0)
    assert _open_files(tmp_path)
    for one in (alice, bob):
        if how == "disconnect":
            await one.xmpp.disconnect()
        elif how == "disable":
            one.disable()
        else:
            await asyncio.wait_for(one.bt.aclose(), 10)
            await one.bt.aclose()
    await until(lambda: sending.ended and receiving.ended)
    await until(lambda: not [t for t in asyncio.all_tasks() if t.get_name().startswith("slixmpp_bt")])
    await until(lambda: _threads() <= threads)
    assert _open_files(tmp_path) == []
    assert list(bob.inbox.iterdir()) == []


async def test_client_that_comes_back_goes_on(server: Server, tmp_path: Path) -> None:
    """A lost connection alone costs a transfer nothing: the swarm goes on, and the end is told afterwards."""
    alice, bob = await pair(server, tmp_path)
    alice.bt.configure(upload_limit=400_000)
    sending = await alice.bt.send_file(bob.jid.bare, make_file(tmp_path / "file", 2_000_000))
    receiving = await bob.expect("bt_transfer_start")
    await until(lambda: receiving.progress.transferred > 0)
    alice.xmpp.abort()
    alice.bt.configure(upload_limit=None)
    await done(receiving)
    assert not sending.ended
    alice.xmpp.connect(server.host, server.port)
    await until(lambda: alice.xmpp.is_connected() and alice.xmpp.boundjid.resource)
    alice.xmpp.send_presence()
    await done(sending)


def test_program_that_ends_in_mid_transfer_keeps_no_part_files(tmp_path: Path) -> None:
    """``asyncio.run`` cancels everything at the end of a program that just returns."""
    program = f"""
import asyncio, pathlib, sys
from tests.servers import Loopback
from tests.world import make_file, pair, until
async def main():
    home = pathlib.Path({str(tmp_path)!r})
    async with Loopback() as server:
        alice, bob = await pair(server, home)
        server._clients.clear()  # nobody tidies up for this program
        alice.bt.configure(upload_limit=200_000)
        await alice.bt.send_file(bob.jid.bare, make_file(home / "file", 10_000_000))
        receiving = await bob.expect("bt_transfer_start")
        await until(lambda: receiving.progress.transferred > 0)
        assert list(bob.inbox.iterdir())
        print("leaving", flush=True)
asyncio.run(main())
"""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=60
    )
    assert "leaving" in done.stdout, done.stderr
    assert time.monotonic() - started < 50
    assert list((tmp_path / "bob" / "inbox").iterdir()) == []


GARBAGE = [
    ("set", f"<accept xmlns='{NS}'/>", "bad-request"),
    ("set", f"<accept xmlns='{NS}' id='x' transfer='y'><candidate address='x' port='1'/></accept>", "bad-request"),
    ("set", f"<accept xmlns='{NS}' id='unknown' transfer='y'/>", "item-not-found"),
    ("get", f"<meta xmlns='{NS}' id='unknown' transfer='y' offset='0' length='5'/>", "item-not-found"),
    ("set", f"<end xmlns='{NS}' id='unknown' kind='cancel' reason='cancel' transfer='t'/>", "item-not-found"),
    ("set", f"<peers xmlns='{NS}' id='unknown' transfer='t'/>", "item-not-found"),
    ("set", f"<report xmlns='{NS}' id='unknown' transfer='t' had='1' total='2'/>", "item-not-found"),
    ("set", f"<end xmlns='{NS}' id='unknown' kind='explode' reason='cancel'/>", "bad-request"),
]


@pytest.mark.parametrize(("kind", "payload", "condition"), GARBAGE)
async def test_garbage_gets_an_error_with_its_condition(
    server: Server, tmp_path: Path, kind: Any, payload: str, condition: str
) -> None:
    alice, bob = await pair(server, tmp_path)
    iq = alice.xmpp.make_iq(ito=bob.jid, itype=kind)
    iq.append(fromstring(payload))
    with pytest.raises(IqError) as caught:
        await iq.send(timeout=10)
    assert caught.value.condition == condition


async def test_offer_is_answered_only_to_who_was_invited(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path, auto_accept=False)
    offer = await alice.bt.offer(bob.jid.bare, make_file(tmp_path / "file", 10))
    await bob.expect_offer()
    stranger = await member(server, f"{await server.add_user('mallory')}/x", tmp_path / "mallory")
    conditions = []
    for id in (offer.id, "no-such-offer"):
        iq = stranger.xmpp.make_iq(ito=alice.jid, itype="set")
        iq.append(fromstring(f"<accept xmlns='{NS}' id='{id}' transfer='t'><route>swarm</route></accept>"))
        with pytest.raises(IqError) as caught:
            await iq.send(timeout=10)
        conditions.append((caught.value.condition, caught.value.text))
    assert conditions[0] == conditions[1]
    assert conditions[0][0] == "item-not-found"
    await offer.withdraw()


async def test_raising_handlers_break_nothing(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path)

    def explode(_: object) -> None:
        raise RuntimeError("a handler of the application")

    for name in ("bt_transfer_start", "bt_progress", "bt_transfer_end"):
        for one in (alice, bob):
            one.xmpp.add_event_handler(name, explode)
    await done(await alice.bt.send_file(bob.jid.bare, make_file(tmp_path / "file", 300_000)))


async def test_presence_is_left_to_the_application(server: Server, tmp_path: Path) -> None:
    """A client that has not sent presence stays invisible, and can still be asked what it supports."""
    a, b = await server.add_user("alice"), await server.add_user("bob")
    await server.subscribe(a, b)
    alice = await member(server, f"{a}/x", tmp_path / "alice")
    bob = Member(server.client(f"{b}/y"), tmp_path / "bob")
    sent: list[Any] = []

    def note(stanza: Any) -> Any:
        sent.append(stanza)
        return stanza

    bob.xmpp.add_filter("out", note)
    bob.register()
    await server.connect(bob.xmpp, presence=False)
    assert await alice.bt.supports(bob.jid) is True
    assert not [stanza for stanza in sent if isinstance(stanza, slixmpp.Presence)]


async def test_component_announces_every_name_it_uses(server: Server, tmp_path: Path) -> None:
    bot = server.component("bot")
    bot.register_plugin("xep_bt", {"download_dir": tmp_path / "in", "listen": LISTEN})
    await server.connect(bot)
    alice = await member(server, f"{await server.add_user('alice')}/x", tmp_path / "alice")
    assert await alice.bt.supports(bot.boundjid.bare) is True
    await get_plugin(bot).send_file(alice.jid, make_file(tmp_path / "f", 5), ifrom=f"clerk@{bot.boundjid.bare}/desk")
    assert await alice.bt.supports(f"clerk@{bot.boundjid.bare}/desk") is True
