"""Rooms: the same on the loopback server, Prosody and ejabberd."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import pytest
from slixmpp import JID
from slixmpp.exceptions import IqError

from slixmpp_bt.testing import LoopbackServer
from slixmpp_bt.testing.muc_room import HISTORY

from .servers import Server
from .testing_tools import PATIENCE, Inbox, settle, until

USER = "{http://jabber.org/protocol/muc#user}"
OCCUPANT_ID = "{urn:xmpp:occupant-id:0}occupant-id"
DELAY = "{urn:xmpp:delay}delay"


class Guest:
    """A client that goes to rooms."""

    def __init__(self, client: Any) -> None:
        self.client: Any = client
        for plugin in ("xep_0030", "xep_0045", "xep_0199", "xep_0410"):
            client.register_plugin(plugin)
        self.muc: Any = client.plugin["xep_0045"]
        self.inbox = Inbox(client)

    async def join(self, room: str, nick: str, **options: Any) -> Any:
        return await self.muc.join_muc_wait(JID(room), nick, timeout=PATIENCE, **options)

    async def is_refused(self, room: str, nick: str) -> str:
        """Why the room does not let this client in. (slixmpp waits for Prosody's errors in vain: they have no x.)"""
        self.client.send_raw(f"<presence to='{room}/{nick}'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
        error = (await self.sees(f"{room}/{nick}", "error")).find("{jabber:client}error")
        assert error is not None
        return str(error[0].tag.rpartition("}")[2])

    async def unlock(self, room: str, **fields: str) -> None:
        """Make a new room one that all may enter, configured in this way."""
        form = self.client.plugin["xep_0004"].make_form(ftype="submit")
        form.add_field("FORM_TYPE", "hidden", value="http://jabber.org/protocol/muc#roomconfig")
        for name, value in fields.items():
            form.add_field(f"muc#roomconfig_{name}", value=value)
        await self.muc.set_room_config(room, form, timeout=PATIENCE)

    async def sees(self, who: str, word: str | None = None) -> Element:
        await until(lambda: self.inbox.select("presence", from_=who, type=word))
        return self.inbox.select("presence", from_=who, type=word)[-1]

    async def hears(self, body: str) -> Element:
        await until(lambda: body in self.inbox.bodies())
        return next(m for m in self.inbox.select("message") if m.findtext("{jabber:client}body") == body)


def codes(stanza: Element) -> set[str]:
    return {status.get("code", "") for status in stanza.iter(f"{USER}status")}


def item(stanza: Element) -> Element:
    found = stanza.find(f"{USER}x/{USER}item")
    assert found is not None
    return found


async def party(server: Server, *nicks: str, **config: str) -> tuple[str, list[Guest]]:
    """A new room with these occupants; the first owns it."""
    room = f"r{secrets.token_hex(4)}@{server.conference}"
    guests: list[Guest] = []
    for nick in nicks:
        guest = Guest(server.client(f"{await server.add_user(nick)}/x"))
        await server.connect(guest.client)
        await guest.join(room, nick)
        if not guests:
            await guest.unlock(room, **config)
        guests.append(guest)
    return room, guests


async def test_join_new_room_is_made_and_owned(server: Server) -> None:
    room, (erin,) = await party(server, "erin")
    presence = await erin.sees(f"{room}/erin")
    assert {"110", "201"} <= codes(presence)
    assert (item(presence).get("affiliation"), item(presence).get("role")) == ("owner", "moderator")


async def test_join_occupants_see_each_other(server: Server) -> None:
    room, (erin, frank) = await party(server, "erin", "frank")
    assert "110" in codes(await frank.sees(f"{room}/frank"))
    assert "110" not in codes(await frank.sees(f"{room}/erin"))
    assert "110" not in codes(await erin.sees(f"{room}/frank"))


async def test_join_nick_in_use_conflicts(server: Server) -> None:
    room, _ = await party(server, "erin")
    frank = Guest(server.client(f"{await server.add_user('frank')}/x"))
    await server.connect(frank.client)
    assert await frank.is_refused(room, "erin") == "conflict"


async def test_message_to_all_is_reflected_to_all(server: Server) -> None:
    room, (erin, frank) = await party(server, "erin", "frank")
    payload = "<p xmlns='urn:p'><q xmlns='urn:q' a='1'/></p>"
    erin.client.send_raw(f"<message to='{room}' type='groupchat' id='m1'><body>hi all</body>{payload}</message>")
    for guest in (erin, frank):
        message = await guest.hears("hi all")
        assert (message.get("from"), message.get("id")) == (f"{room}/erin", "m1")
        assert message.find("{urn:p}p/{urn:q}q[@a='1']") is not None


async def test_message_from_outside_is_refused(server: Server) -> None:
    room, (erin,) = await party(server, "erin")
    alice = Guest(server.client("alice/a"))
    await server.connect(alice.client)
    alice.client.send_message(room, "let me in", mtype="groupchat")
    await until(lambda: alice.inbox.select("message", type="error"))
    assert erin.inbox.bodies() == []


async def test_message_to_one_is_heard_by_one(server: Server) -> None:
    room, (erin, frank, gina) = await party(server, "erin", "frank", "gina")
    erin.client.send_message(f"{room}/frank", "psst", mtype="chat")
    assert (await frank.hears("psst")).get("from") == f"{room}/erin"
    await settle(erin.client, gina.client)
    assert gina.inbox.bodies() == []


async def test_request_to_an_occupant_is_answered(server: Server) -> None:
    room, (erin, frank) = await party(server, "erin", "frank")
    await settle(erin.client, f"{room}/frank")
    await settle(frank.client, f"{room}/erin")


async def test_request_to_nobody_in_the_room_is_not_found(server: Server) -> None:
    room, (erin,) = await party(server, "erin")
    with pytest.raises(IqError) as caught:
        await settle(erin.client, f"{room}/nobody")
    assert caught.value.condition == "item-not-found"


async def test_request_from_outside_is_not_acceptable(server: Server) -> None:
    room, _ = await party(server, "erin")
    alice = Guest(server.client("alice/a"))
    await server.connect(alice.client)
    with pytest.raises(IqError) as caught:
        await settle(alice.client, f"{room}/erin")
    assert caught.value.condition == "not-acceptable"


async def test_ping_of_oneself_tells_who_is_in(server: Server) -> None:
    room, (erin,) = await party(server, "erin")
    await settle(erin.client, f"{room}/erin")


async def test_history_is_told_with_its_age(server: Server) -> None:
    room, (erin,) = await party(server, "erin")
    for number in range(3):
        erin.client.send_message(room, f"m{number}", mtype="groupchat")
    await erin.hears("m2")
    frank = Guest(server.client(f"{await server.add_user('frank')}/x"))
    await server.connect(frank.client)
    await frank.join(room, "frank")
    assert frank.inbox.bodies() == ["m0", "m1", "m2"]
    told = await frank.hears("m0")
    assert told.find(DELAY) is not None
    assert told.get("from") == f"{room}/erin"


async def test_history_not_wanted_is_not_told(server: Server) -> None:
    room, (erin,) = await party(server, "erin")
    erin.client.send_message(room, "old", mtype="groupchat")
    await erin.hears("old")
    frank = Guest(server.client(f"{await server.add_user('frank')}/x"))
    await server.connect(frank.client)
    await frank.join(room, "frank", maxstanzas=0)
    assert frank.inbox.bodies() == []


async def test_leave_is_told_to_all(server: Server) -> None:
    room, (erin, frank) = await party(server, "erin", "frank")
    frank.muc.leave_muc(room, "frank")
    await erin.sees(f"{room}/frank", "unavailable")
    assert "110" in codes(await frank.sees(f"{room}/frank", "unavailable"))


async def test_leave_by_dropped_connection_is_told_to_all(server: Server) -> None:
    room, (erin, frank) = await party(server, "erin", "frank")
    frank.client.abort()
    await erin.sees(f"{room}/frank", "unavailable")


async def test_nick_change_is_told_to_all(server: Server) -> None:
    room, (erin, frank) = await party(server, "erin", "frank")
    frank.client.send_presence(pto=f"{room}/francis")
    for guest in (erin, frank):
        gone = await guest.sees(f"{room}/frank", "unavailable")
        assert "303" in codes(gone)
        assert item(gone).get("nick") == "francis"
        await guest.sees(f"{room}/francis")


async def test_kick_makes_an_occupant_go(server: Server) -> None:
    room, (erin, frank) = await party(server, "erin", "frank")
    await erin.muc.set_role(JID(room), "frank", "none", timeout=PATIENCE)
    for guest in (erin, frank):
        assert "307" in codes(await guest.sees(f"{room}/frank", "unavailable"))


async def test_kick_by_somebody_lower_is_refused(server: Server) -> None:
    room, (_, frank) = await party(server, "erin", "frank")
    with pytest.raises(IqError) as caught:
        await frank.muc.set_role(JID(room), "erin", "none", timeout=PATIENCE)
    assert caught.value.condition in ("forbidden", "not-allowed")


async def test_ban_makes_an_occupant_go_and_stay_away(server: Server) -> None:
    room, (erin, frank) = await party(server, "erin", "frank")
    bare = JID(frank.client.boundjid.bare)
    await erin.muc.set_affiliation(JID(room), "outcast", jid=bare, timeout=PATIENCE)
    assert "301" in codes(await frank.sees(f"{room}/frank", "unavailable"))
    assert await frank.is_refused(room, "frank") == "forbidden"


def _role_is(shown: Callable[[], list[Element]], role: str) -> bool:
    return item(shown()[-1]).get("role") == role


def _stands(shown: Callable[[], list[Element]], affiliation: str) -> bool:
    return item(shown()[-1]).get("affiliation") == affiliation


async def test_role_given_is_told_to_all(server: Server) -> None:
    room, (erin, frank) = await party(server, "erin", "frank")
    await erin.muc.set_role(JID(room), "frank", "moderator", timeout=PATIENCE)
    for guest in (erin, frank):
        shown = partial(guest.inbox.select, "presence", from_=f"{room}/frank")
        await until(partial(_role_is, shown, "moderator"))


async def test_affiliation_given_taken_and_listed(server: Server) -> None:
    room, (erin, frank) = await party(server, "erin", "frank")
    bare = frank.client.boundjid.bare
    for affiliation in ("admin", "member", "none"):
        await erin.muc.set_affiliation(JID(room), affiliation, jid=JID(bare), timeout=PATIENCE)
        listed = await erin.muc.get_affiliation_list(JID(room), "admin", timeout=PATIENCE)
        assert (bare in listed) == (affiliation == "admin")
        shown = partial(frank.inbox.select, "presence", from_=f"{room}/frank")
        await until(partial(_stands, shown, affiliation))
        assert (item(shown()[-1]).get("role") == "moderator") == (affiliation == "admin")


async def test_affiliation_lost_in_a_members_only_room_makes_an_occupant_go(server: Server) -> None:
    room, (erin,) = await party(server, "erin", membersonly="1")
    frank = Guest(server.client(f"{await server.add_user('frank')}/x"))
    await server.connect(frank.client)
    bare = JID(frank.client.boundjid.bare)
    await erin.muc.set_affiliation(JID(room), "member", jid=bare, timeout=PATIENCE)
    await frank.join(room, "frank")
    await erin.muc.set_affiliation(JID(room), "none", jid=bare, timeout=PATIENCE)
    assert "321" in codes(await frank.sees(f"{room}/frank", "unavailable"))


async def test_roles_listed_are_those_of_the_room(server: Server) -> None:
    room, (erin, _) = await party(server, "erin", "frank")
    assert await erin.muc.get_roles_list(JID(room), "participant", timeout=PATIENCE) == ["frank"]


async def test_configuration_is_shown_to_the_owner_alone(server: Server) -> None:
    room, (erin, frank) = await party(server, "erin", "frank", whois="anyone", roomname="Den")
    values = (await erin.muc.get_room_config(room, timeout=PATIENCE)).get_values()
    assert values["muc#roomconfig_whois"] == "anyone"
    assert values["muc#roomconfig_roomname"] == "Den"
    with pytest.raises(IqError) as caught:
        await frank.muc.get_room_config(room, timeout=PATIENCE)
    assert caught.value.condition == "forbidden"


async def test_status_changed_is_told_to_all(server: Server) -> None:
    room, (erin, frank) = await party(server, "erin", "frank")
    frank.client.send_presence(pto=f"{room}/frank", pshow="away")
    await until(lambda: any(p.findtext("{jabber:client}show") == "away" for p in erin.inbox.select("presence")))


async def test_join_again_is_briefed_again(server: Server) -> None:
    room, (_, frank) = await party(server, "erin", "frank")
    frank.inbox.stanzas.clear()
    await frank.join(room, "frank")
    await frank.sees(f"{room}/erin")


async def test_nick_change_to_one_in_use_conflicts(server: Server) -> None:
    room, (_, frank) = await party(server, "erin", "frank")
    frank.client.send_presence(pto=f"{room}/erin")
    error = (await frank.sees(f"{room}/erin", "error")).find("{jabber:client}error")
    assert error is not None
    assert error[0].tag.endswith("}conflict")


async def test_subject_set_by_a_participant_is_refused(server: Server) -> None:
    if server.name == "ejabberd":
        pytest.skip("by default ejabberd lets every participant set it")
    room, (_, frank) = await party(server, "erin", "frank")
    frank.client.send_raw(f"<message to='{room}' type='groupchat'><subject>tea</subject></message>")
    await until(lambda: frank.inbox.select("message", type="error"))


async def test_real_jids_are_seen_by_moderators_only_if_the_room_hides_them(server: Server) -> None:
    room, (erin, frank, gina) = await party(server, "erin", "frank", "gina", whois="moderators")
    assert item(await erin.sees(f"{room}/gina")).get("jid") == gina.client.boundjid.full
    assert item(await frank.sees(f"{room}/gina")).get("jid") is None


async def test_real_jids_are_seen_by_all_if_the_room_shows_them(server: Server) -> None:
    room, (erin, frank) = await party(server, "erin", "frank", whois="anyone")
    assert item(await frank.sees(f"{room}/erin")).get("jid") == erin.client.boundjid.full
    assert "100" in codes(await frank.sees(f"{room}/frank"))
    info = await frank.client.plugin["xep_0030"].get_info(room, timeout=PATIENCE)
    assert "muc_nonanonymous" in info["disco_info"]["features"]


async def test_occupant_id_is_the_same_in_all_that_an_account_sends(server: Server) -> None:
    if server.name == "ejabberd":
        pytest.skip("ejabberd 23.01 has no occupant ids")
    room, (erin, frank) = await party(server, "erin", "frank")
    erin.client.send_message(room, "all", mtype="groupchat")
    erin.client.send_message(f"{room}/frank", "one", mtype="chat")
    forged = "<occupant-id xmlns='urn:xmpp:occupant-id:0' id='forged'/>"
    erin.client.send_raw(f"<message to='{room}' type='groupchat'><body>forged</body>{forged}</message>")
    frank.client.send_message(room, "other", mtype="groupchat")
    ids = {}
    for body in ("all", "one", "forged", "other"):
        found = (await frank.hears(body)).findall(OCCUPANT_ID)
        ids[body] = [element.get("id") for element in found]
    presence = (await frank.sees(f"{room}/erin")).find(OCCUPANT_ID)
    assert presence is not None
    if server.name == "loopback":  # Prosody 0.12 has it in presence and groupchat only.
        assert ids["one"] == ids["all"]
    assert ids["all"] == ids["forged"] == [presence.get("id")]
    assert ids["other"] != ids["all"]


async def test_subject_set_is_told_to_who_comes(server: Server) -> None:
    room, (erin,) = await party(server, "erin")
    erin.client.send_raw(f"<message to='{room}' type='groupchat'><subject>tea</subject></message>")
    await until(lambda: any(m.findtext("{jabber:client}subject") == "tea" for m in erin.inbox.select("message")))
    frank = Guest(server.client(f"{await server.add_user('frank')}/x"))
    await server.connect(frank.client)
    assert (await frank.join(room, "frank"))[1]["subject"] == "tea"


async def test_password_is_asked_for(server: Server) -> None:
    room, _ = await party(server, "erin", passwordprotectedroom="1", roomsecret="sesame")
    frank = Guest(server.client(f"{await server.add_user('frank')}/x"))
    await server.connect(frank.client)
    assert await frank.is_refused(room, "frank") == "not-authorized"
    await frank.join(room, "frank", password="sesame")


async def test_members_only_room_lets_members_in(server: Server) -> None:
    room, (erin,) = await party(server, "erin", membersonly="1")
    frank = Guest(server.client(f"{await server.add_user('frank')}/x"))
    await server.connect(frank.client)
    assert await frank.is_refused(room, "frank") == "registration-required"
    bare = JID(frank.client.boundjid.bare)
    await erin.muc.set_affiliation(JID(room), "member", jid=bare, timeout=PATIENCE)
    await frank.join(room, "frank")


async def test_room_left_by_all_is_gone_unless_persistent(server: Server) -> None:
    for persistent in ("0", "1"):
        room, (erin,) = await party(server, "erin", persistentroom=persistent)
        erin.muc.leave_muc(room, "erin")
        await erin.sees(f"{room}/erin", "unavailable")
        alice = Guest(server.client("alice/a"))
        await server.connect(alice.client)
        presence, *_ = await alice.join(room, "alice")
        assert ("201" in codes(presence.xml)) == (persistent == "0")
        await alice.client.disconnect()


async def test_destroyed_room_is_left_by_all(server: Server) -> None:
    room, (erin, frank) = await party(server, "erin", "frank")
    await erin.muc.destroy(JID(room), timeout=PATIENCE)
    await frank.sees(f"{room}/frank", "unavailable")


async def test_create_room_is_as_configured() -> None:
    async with LoopbackServer(users={"alice": "secret", "bob": "secret"}) as server:
        room = server.create_room("den", anonymous=False, owner="alice")
        with pytest.raises(ValueError, match="den"):
            server.create_room("den")
        guests = [Guest(server.client(jid)) for jid in ("alice/a", "bob/b")]
        for guest in guests:
            await server.connect(guest.client)
            await guest.join(room, guest.client.boundjid.user)
        presence = await guests[1].sees(f"{room}/alice")
        assert item(presence).get("jid") == "alice@localhost/a"
        assert item(presence).get("affiliation") == "owner"
        assert "201" not in codes(await guests[0].sees(f"{room}/alice"))


@pytest.mark.parametrize(
    ("history", "told"),
    [
        ("", HISTORY),
        ("<history maxstanzas='3'/>", 3),
        ("<history maxstanzas='1000'/>", HISTORY),
        ("<history maxstanzas='-1'/>", HISTORY),
        ("<history maxchars='0'/>", 0),
        ("<history seconds='3600'/>", HISTORY),
        ("<history since='2001-01-01T00:00:00Z'/>", HISTORY),
        ("<history since='2901-01-01T00:00:00'/>", 0),
        ("<history since='yesterday' seconds='x' maxchars='²'/>", HISTORY),
    ],
)
async def test_history_is_told_as_far_as_wanted(history: str, told: int) -> None:
    async with LoopbackServer(users={"alice": "secret", "bob": "secret"}, tls=False) as server:
        room = server.create_room("den")
        alice, bob = Guest(server.client("alice/a")), Guest(server.client("bob/b"))
        for guest in (alice, bob):
            await server.connect(guest.client)
        await alice.join(room, "alice")
        for number in range(HISTORY + 5):
            alice.client.send_message(room, str(number), mtype="groupchat")
        await alice.hears(str(HISTORY + 4))
        muc = f"<x xmlns='http://jabber.org/protocol/muc'>{history}</x>"
        bob.client.send_raw(f"<presence to='{room}/bob'>{muc}</presence>")
        await bob.sees(f"{room}/bob")
        await until(lambda: bob.inbox.select("message"))
        await settle(bob.client, "localhost")
        assert bob.inbox.bodies() == [str(number) for number in range(HISTORY + 5 - told, HISTORY + 5)]


@pytest.mark.parametrize(
    ("xml", "condition"),
    [
        ("<presence to='{room}' id='e'><x xmlns='http://jabber.org/protocol/muc'/></presence>", "jid-malformed"),
        ("<presence to='{room}/out' id='e'/>", "not-acceptable"),
        ("<message to='{room}' id='e'><body>hm</body></message>", "bad-request"),
        ("<message to='{room}/alice' type='groupchat' id='e'><body>hm</body></message>", "bad-request"),
        ("<message to='no{room}' type='groupchat' id='e'><body>hm</body></message>", "item-not-found"),
        ("<message to='conference.localhost' id='e'><body>hm</body></message>", "service-unavailable"),
        ("<iq to='{room}' id='e' type='get'><x xmlns='urn:x'/></iq>", "service-unavailable"),
        ("<iq to='{room}' id='e' type='get'><query xmlns='http://jabber.org/protocol/muc#owner'/></iq>", "forbidden"),
        ("<iq to='{room}' id='e' type='set'><query xmlns='http://jabber.org/protocol/muc#admin'/></iq>", "bad-request"),
    ],
)
async def test_nonsense_is_refused(xml: str, condition: str) -> None:
    async with LoopbackServer(users={"alice": "secret", "bob": "secret"}, tls=False) as server:
        room = server.create_room("den")
        alice, bob = Guest(server.client("alice/a")), Guest(server.client("bob/b"))
        for guest in (alice, bob):
            await server.connect(guest.client)
        await alice.join(room, "alice")
        bob.client.send_raw(xml.format(room=room))
        await settle(bob.client, "localhost")
        error = next(stanza for stanza in bob.inbox.stanzas if stanza.get("id") == "e")
        assert error.find(f".//{{urn:ietf:params:xml:ns:xmpp-stanzas}}{condition}") is not None


async def test_invitation_is_passed_on() -> None:
    async with LoopbackServer(users={"alice": "secret", "bob": "secret"}, tls=False) as server:
        alice, bob = Guest(server.client("alice/a")), Guest(server.client("bob/b"))
        for guest in (alice, bob):
            await server.connect(guest.client)
            guest.client.send_presence()
        await server.wait_available("bob")
        room = server.create_room("den", password="sesame")
        await alice.join(room, "alice", password="sesame")
        alice.muc.invite(JID(room), JID("bob@localhost"), reason="tea")
        await until(lambda: bob.inbox.select("message", from_=room))
        invitation = bob.inbox.select("message", from_=room)[0]
        assert invitation.findtext(f"{USER}x/{USER}password") == "sesame"
        invite = invitation.find(f"{USER}x/{USER}invite")
        assert invite is not None
        assert (invite.get("from"), invite.findtext(f"{USER}reason")) == ("alice@localhost", "tea")


async def test_error_from_an_occupant_makes_it_go() -> None:
    async with LoopbackServer(users={"alice": "secret", "bob": "secret"}, tls=False) as server:
        room = server.create_room("den")
        alice, bob = Guest(server.client("alice/a")), Guest(server.client("bob/b"))
        for guest in (alice, bob):
            await server.connect(guest.client)
            await guest.join(room, guest.client.boundjid.user)
        bob.client.send_raw(f"<message to='{room}' type='error'/>")
        assert "333" in codes(await alice.sees(f"{room}/bob", "unavailable"))


async def test_admin_nonsense_is_refused() -> None:
    async with LoopbackServer(users={"alice": "secret", "bob": "secret"}, tls=False) as server:
        room = server.create_room("den", owner="alice")
        alice = Guest(server.client("alice/a"))
        await server.connect(alice.client)
        await alice.join(room, "alice")
        for attributes, condition in (
            ("nick='nobody' role='none'", "item-not-found"),
            ("nick='alice' role='king'", "bad-request"),
            ("jid='bob@localhost' affiliation='king'", "bad-request"),
            ("jid='@' affiliation='member'", "jid-malformed"),
        ):
            query = f"<query xmlns='http://jabber.org/protocol/muc#admin'><item {attributes}/></query>"
            iq = alice.client.make_iq_set(ito=room)
            iq.append(fromstring(query))
            with pytest.raises(IqError) as caught:
                await iq.send()
            assert caught.value.condition == condition


async def test_admin_lower_one_cannot_touch_a_higher_one() -> None:
    async with LoopbackServer(users={"alice": "secret", "bob": "secret"}, tls=False) as server:
        room = server.create_room("den", owner="alice")
        alice, bob = Guest(server.client("alice/a")), Guest(server.client("bob/b"))
        for guest in (alice, bob):
            await server.connect(guest.client)
            await guest.join(room, guest.client.boundjid.user)
        await alice.muc.set_affiliation(JID(room), "admin", jid=JID("bob@localhost"))
        for attempt in (
            bob.muc.set_role(JID(room), "alice", "none"),
            bob.muc.set_affiliation(JID(room), "none", jid=JID("alice@localhost")),
        ):
            with pytest.raises(IqError) as caught:
                await attempt
            assert caught.value.condition == "not-allowed"


async def test_restart_components_users_have_left_too() -> None:
    async with LoopbackServer(components={"bot.localhost": "x"}, users={"alice": "secret"}, tls=False) as server:
        room = server.create_room("den")
        bot, alice = server.component("bot.localhost"), Guest(server.client("alice/a"))
        inbox = Inbox(bot)
        await server.connect(bot)
        join = (
            f"<presence from='u@bot.localhost/r' to='{room}/bot'><x xmlns='http://jabber.org/protocol/muc'/></presence>"
        )
        bot.send_raw(join)
        await until(lambda: inbox.select("presence", from_=f"{room}/bot"))
        await server.stop()
        await server.start()
        await server.connect(alice.client)
        await alice.join(room, "alice")
        assert alice.inbox.select("presence", from_=f"{room}/bot") == []


async def test_restart_empties_rooms_and_keeps_persistent_ones() -> None:
    async with LoopbackServer(users={"alice": "secret"}, tls=False) as server:
        rooms = server.create_room("kept"), "lost@conference.localhost"
        alice = Guest(server.client("alice/a"))
        await server.connect(alice.client)
        for room in rooms:
            await alice.join(room, "alice")
        await server.stop()
        await server.start()
        await until(lambda: not alice.client.is_connected())
        await server.connect(alice.client)
        items = await alice.client.plugin["xep_0030"].get_items("conference.localhost")
        assert {jid for jid, _, _ in items["disco_items"]["items"]} == {rooms[0]}
        items = await alice.client.plugin["xep_0030"].get_items(rooms[0])
        assert items["disco_items"]["items"] == set()


async def test_visitor_of_a_moderated_room_may_listen_and_ask(server: Server) -> None:
    room, (erin,) = await party(server, "erin", moderatedroom="1")
    frank = Guest(server.client(f"{await server.add_user('frank')}/x"))
    await server.connect(frank.client)
    await frank.join(room, "frank")
    await erin.muc.set_role(room, "frank", "visitor", timeout=PATIENCE)
    frank.client.send_message(room, "let me speak", mtype="groupchat")
    await until(lambda: frank.inbox.select("message", from_=room, type="error"))
    [error] = frank.inbox.select("message", from_=room, type="error")[0].findall("{jabber:client}error")
    assert error[0].tag.endswith("}forbidden")
    await settle(frank.client, f"{room}/erin")
    assert "let me speak" not in erin.inbox.bodies()


async def test_moderated_room_lets_strangers_enter_as_visitors() -> None:
    async with LoopbackServer(users={"alice": "x", "bob": "x"}) as server:
        room = server.create_room("den", owner="alice", moderated=True)
        guests = [Guest(server.client(name)) for name in ("alice", "bob")]
        for guest in guests:
            await server.connect(guest.client)
            await guest.join(room, guest.client.boundjid.user)
        roles = [item(await guests[0].sees(f"{room}/{nick}")).get("role") for nick in ("alice", "bob")]
        assert roles == ["moderator", "visitor"]
        info = await guests[0].client.plugin["xep_0030"].get_info(room)
        assert "muc_moderated" in info["disco_info"]["features"]


async def test_room_without_occupant_ids_passes_on_forged_ones() -> None:
    async with LoopbackServer(users={"alice": "x", "bob": "x"}) as server:
        room = server.create_room("den", occupant_ids=False)
        guests = [Guest(server.client(name)) for name in ("alice", "bob")]
        for guest in guests:
            await server.connect(guest.client)
            await guest.join(room, guest.client.boundjid.user)
        assert (await guests[0].sees(f"{room}/alice")).find(OCCUPANT_ID) is None
        forged = "<occupant-id xmlns='urn:xmpp:occupant-id:0' id='forged'/>"
        guests[1].client.send_raw(f"<message to='{room}' type='groupchat'><body>hi</body>{forged}</message>")
        found = (await guests[0].hears("hi")).find(OCCUPANT_ID)
        assert found is not None
        assert found.get("id") == "forged"
