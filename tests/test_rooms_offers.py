"""Offers in rooms, on the loopback server, Prosody and ejabberd: real clients, real libtorrent, real files.

Prosody gives occupants ids (XEP-0421), the ejabberd that is tried (23.01) does not, and the loopback server does both.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest
from slixmpp import JID

from slixmpp_bt import IncomingOffer, Route, State, Transfer

from .servers import Server
from .world import PATIENCE, Member, digest, make_file, member, until

MUC_CONFIG = "http://jabber.org/protocol/muc#roomconfig"


class Room:
    """A room, and its occupants by nick."""

    def __init__(self, server: Server, home: Path) -> None:
        self.jid = JID(f"r{secrets.token_hex(4)}@{server.conference}")
        self.members: dict[str, Member] = {}
        self._server = server
        self._home = home

    async def make(self, nick: str, *, config: dict[str, str] | None = None, **settings: Any) -> Member:
        """The first occupant, who owns the room and configures it."""
        owner = await self.enter(nick, **settings)
        form = owner.xmpp.plugin["xep_0004"].make_form(ftype="submit")
        form.add_field("FORM_TYPE", "hidden", value=MUC_CONFIG)
        for name, value in (config or {}).items():
            form.add_field(f"muc#roomconfig_{name}", value=value)
        await owner.xmpp.plugin["xep_0045"].set_room_config(self.jid, form, timeout=PATIENCE)
        return owner

    async def enter(self, nick: str, **settings: Any) -> Member:
        """A new member, of an account of its own, in the room."""
        account = await self._server.add_user("user")
        one = await member(self._server, f"{account}/device", self._home / nick, **settings)
        await self.let_in(one, nick)
        return one

    async def let_in(self, one: Member, nick: str) -> None:
        """Let a member enter (again); all who are there see it."""
        one.xmpp.register_plugin("xep_0045")
        await one.xmpp.plugin["xep_0045"].join_muc_wait(self.jid, nick, timeout=PATIENCE)
        self.members[nick] = one
        await self.seen(nick)

    async def leave(self, nick: str) -> Member:
        """Let a member leave; all who stay see it."""
        one = self.members.pop(nick)
        one.xmpp.plugin["xep_0045"].leave_muc(self.jid, nick)
        await until(lambda: not one.bt._rooms.joined(self.jid, one.jid))
        await self.unseen(nick)
        return one

    async def rename(self, old: str, new: str) -> None:
        """Let a member change the nick; all see it."""
        one = self.members.pop(old)
        await one.xmpp.plugin["xep_0045"].set_self_nick(self.jid, new, timeout=PATIENCE)
        self.members[new] = one
        await self.seen(new)
        await self.unseen(old)

    async def seen(self, nick: str) -> None:
        """Wait until all see that `nick` is there."""
        jid, who = self.at(nick), self.members[nick]
        others = [one for one in self.members.values() if one is not who]
        await until(lambda: all(one.bt._rooms.occupant(jid, one.jid) for one in others))

    async def unseen(self, nick: str) -> None:
        """Wait until nobody is seen as `nick`."""
        await until(lambda: not any(one.bt._rooms.occupant(self.at(nick), one.jid) for one in self.members.values()))

    def at(self, nick: str) -> JID:
        return JID(f"{self.jid}/{nick}")


@pytest.fixture
def room(server: Server, tmp_path: Path) -> Room:
    return Room(server, tmp_path)


HIDDEN, SHOWN = {"whois": "moderators"}, {"whois": "anyone"}


@pytest.mark.parametrize("config", [HIDDEN, SHOWN], ids=["hidden", "shown"])
async def test_three_occupants_get_a_file_by_swarm(room: Room, tmp_path: Path, config: dict[str, str]) -> None:
    alice = await room.make("Alice ☃", config=config)
    others = [await room.enter(nick, auto_accept=True) for nick in ("bob", "carol", "dave")]
    source = make_file(tmp_path / "file", 300_000)
    offer = await alice.bt.offer(room.jid, source, mtype="groupchat")
    for one in others:
        receiving: Transfer = await one.expect("bt_transfer_end")
        assert receiving.complete
        assert receiving.path is not None
        assert digest(receiving.path) == digest(source)
        assert receiving.routes == {Route.SWARM: 300_000}
        incoming = receiving.offer
        assert isinstance(incoming, IncomingOffer)
        assert (incoming.room, incoming.peer, receiving.peer) == (room.jid, *[room.at("Alice ☃")] * 2)
        # The owner of a room that hides JIDs sees them; others do not.
        assert incoming.sender == (JID(alice.jid.bare) if config is SHOWN else None)
    await until(lambda: sum(t.complete for t in offer.transfers) == 3)
    assert {t.peer for t in offer.transfers} == {room.at(nick) for nick in ("bob", "carol", "dave")}
    assert alice.told("bt_offer") == []
    assert offer.state is State.OFFERED
    await offer.withdraw()
