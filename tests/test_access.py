"""Whom a catalogue lets in: read, kept and judged."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slixmpp import JID

from slixmpp_bt.access import Access
from slixmpp_bt.policy import Peer, lets_in

OWNER = JID("alice@a.example/laptop")
ROMEO = "romeo@montague.example"
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("presence", Access("presence")),
        ("open", Access("open")),
        (ROMEO, Access("whitelist", frozenset({ROMEO}))),
        (JID(ROMEO), Access("whitelist", frozenset({ROMEO}))),
        (["Romeo@Montague.example", "capulet.example"], Access("whitelist", frozenset({ROMEO, "capulet.example"}))),
        ("group:Friends", Access("group", frozenset({"Friends"}))),
        ({"group:Friends", "group:Old friends"}, Access("group", frozenset({"Friends", "Old friends"}))),
    ],
)
def test_access_is_read_as_users_write_it(given: object, expected: Access) -> None:
    assert Access.parse(given) == expected
    assert Access.restore(str(expected)) == expected


@pytest.mark.parametrize(
    "wrong", [None, 5, "", [], (), {}, f"{ROMEO}/orchard", "group:", [ROMEO, "group:Friends"], "@", ["x@y"] * 501]
)
def test_access_that_makes_no_sense_raises(wrong: object) -> None:
    with pytest.raises(ValueError, match="access"):
        Access.parse(wrong)


@given(st.frozensets(names, min_size=1, max_size=10))
def test_groups_of_any_name_are_kept(groups: frozenset[str]) -> None:
    access = Access.parse([f"group:{name}" for name in groups])
    assert access.names == groups
    assert Access.restore(str(access)) == access


@given(st.one_of(st.none(), st.text(), st.recursive(st.none() | st.integers(), st.lists, max_leaves=5).map(json.dumps)))
def test_what_cannot_be_understood_any_more_lets_nobody_in(text: str | None) -> None:
    access = Access.restore(text)
    if access.model == "whitelist":
        assert not lets_in(Access("whitelist"), Peer(JID("x@y/z"), JID("x@y"), "both"), OWNER)
    assert access == Access("whitelist") or Access.restore(str(access)) == access


def peer(**known: Any) -> Peer:
    return Peer(**{"jid": JID(f"{ROMEO}/orchard"), "bare": JID(ROMEO), **known})


@pytest.mark.parametrize("subscription", ["none", "to", "from", "both"])
@pytest.mark.parametrize("groups", [frozenset(), frozenset({"Friends"}), frozenset({"Others"})])
def test_lets_in_whom_the_model_says(subscription: str, groups: frozenset[str]) -> None:
    one = peer(subscription=subscription, groups=groups)
    sees_presence = subscription in ("from", "both")
    assert lets_in(Access("open"), one, OWNER)
    assert lets_in(Access("presence"), one, OWNER) == sees_presence
    assert lets_in(Access("group", frozenset({"Friends"})), one, OWNER) == (sees_presence and "Friends" in groups)
    assert lets_in(Access("whitelist", frozenset({ROMEO})), one, OWNER)
    assert not lets_in(Access("whitelist", frozenset({"juliet@capulet.example"})), one, OWNER)


@pytest.mark.parametrize("access", [Access("presence"), Access("open"), Access("whitelist", frozenset({ROMEO}))])
def test_nobody_who_is_blocked_or_in_a_room_is_let_in_and_the_account_always(access: Access) -> None:
    assert not lets_in(access, peer(subscription="both", blocked=True), OWNER)
    room = JID("room@conference.example")
    assert not lets_in(access, peer(bare=None, room=room), OWNER)
    assert not lets_in(access, peer(subscription="both", room=room), OWNER)
    own = Peer(JID("alice@a.example/backup"), JID("alice@a.example"), "both")
    assert lets_in(access, own, OWNER)
