"""Whom the user blocks (XEP-0191) is refused by this side, too: a server blocks what comes from now on, not what has
come already, nor in what its own rules have no say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import pytest

from slixmpp_bt.testing.domain import Request

from ..servers import Loopback
from ..test_security import accept_of, set_up
from ..world import member, until
from .offers import small_offer
from .raw import condition, raw

BLOCKING = "{urn:xmpp:blocking}"


@pytest.fixture
async def loopback() -> AsyncIterator[Loopback]:
    async with Loopback() as view:
        yield view


def serve_blocklist(loopback: Loopback, *jids: str) -> None:
    """Let the server answer that these are blocked; it does not block anything."""

    def answer(request: Request) -> Element:
        found = Element(f"{BLOCKING}blocklist")
        for jid in jids:
            SubElement(found, f"{BLOCKING}item", {"jid": jid})
        return found

    loopback.server._domain.serve(f"{BLOCKING}blocklist", answer)


@pytest.mark.parametrize("form", ["{bare}", "{full}", "{domain}", "{domain}/{resource}"])
async def test_offer_of_who_is_blocked_is_never_shown(loopback: Loopback, tmp_path: Path, form: str) -> None:
    mallory = await raw(loopback, f"{await loopback.add_user('mallory')}/x")
    other = await raw(loopback, f"{await loopback.add_user('carol')}/y")
    jid = mallory.jid
    serve_blocklist(loopback, form.format(bare=jid.bare, full=jid.full, domain=jid.domain, resource=jid.resource))
    bob = await member(loopback, f"{await loopback.add_user('bob')}/phone", tmp_path / "bob")
    bob.xmpp.register_plugin("xep_0191")
    directory: Any = bob.bt._directory
    assert hasattr(directory, "learn_blocked")
    await directory.learn_blocked()
    mallory.tell(bob.jid, small_offer())
    if form != "{domain}":
        other.tell(bob.jid, small_offer())
        assert (await bob.expect_offer()).peer == other.jid
    else:
        await mallory.ask(bob.jid, accept_of(small_offer()))
    assert [offer.peer for offer in bob.told("bt_offer") if offer.peer == mallory.jid] == []


async def test_receiver_that_is_blocked_later_is_answered_as_about_an_unknown_offer(
    loopback: Loopback, tmp_path: Path
) -> None:
    scene = await set_up(loopback, tmp_path)
    alice: Any = scene.alice.xmpp
    alice.register_plugin("xep_0191")
    directory: Any = scene.alice.bt._directory

    def push(name: str, sender: str) -> Element:
        iq = Element("{jabber:client}iq", {"type": "set", "id": name, "from": sender, "to": alice.boundjid.full})
        SubElement(SubElement(iq, f"{BLOCKING}{name}"), f"{BLOCKING}item", {"jid": scene.bob.jid.bare})
        return iq

    def blocked() -> bool:
        return bool(directory.peer(scene.bob.jid, scene.alice.jid).blocked)

    session = loopback.server._domain.session(alice.boundjid)
    assert session is not None
    request = accept_of(scene.offer, scene.key)
    try:
        session.send(push("block", alice.boundjid.bare))
        session.send(push("unblock", "mallory@localhost/x"))  # which is not for others to say
        assert condition(await scene.bob.ask(scene.alice.jid, request)) == "item-not-found"
        assert blocked()
        session.send(push("unblock", alice.boundjid.bare))
        await until(lambda: not blocked())
        assert condition(await scene.bob.ask(scene.alice.jid, request)) is None
    finally:
        await scene.own.withdraw()
