"""Policy: the rules of the protocol's section "Identity", as tables."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slixmpp import JID

from slixmpp_bt import policy
from slixmpp_bt.config import Config, Limits
from slixmpp_bt.constants import Mode
from slixmpp_bt.errors import Declined, LimitExceeded
from slixmpp_bt.manifest import Manifest, make
from slixmpp_bt.messages import Accept, End, Meta, Offer, Peers, Report, Request
from slixmpp_bt.policy import MAX_DEVICES, Agreement, Counts, Peer, Verdict

OFFER = Offer("o", Mode.PRIVATE, datetime(2026, 11, 28, tzinfo=UTC), "name", 1_000, bytes(32), 150)
ROMEO = JID("romeo@montague.lit/orchard")
JULIET = JID("juliet@capulet.lit/balcony")
ROOM = JID("garden@rooms.capulet.lit")

stranger = Peer(JULIET, JID(JULIET.bare))
contact = replace(stranger, subscription="from")
hidden = Peer(JID(f"{ROOM}/juliet"), None, room=ROOM)
known_occupant = Peer(JID(f"{ROOM}/juliet"), JID(JULIET.bare), subscription="both", room=ROOM)


async def consult(offer: object) -> bool:
    return True


def config(auto_accept: Any, **changes: Any) -> Config:
    return Config.parse({"download_dir": Path.cwd(), "auto_accept": auto_accept, **changes})


VERDICTS: list[tuple[Any, Peer, str]] = [
    (False, contact, "ask"),
    (True, stranger, "accept"),
    (True, hidden, "accept"),
    ("roster", stranger, "ask"),
    ("roster", replace(contact, subscription="to"), "ask"),
    ("roster", replace(contact, subscription="remove"), "ask"),
    ("roster", contact, "accept"),
    ("roster", replace(contact, subscription="both"), "accept"),
    ("roster", replace(contact, subscription="both", auto_authorize=True), "ask"),
    ("roster", hidden, "ask"),
    ("roster", replace(hidden, subscription="both"), "ask"),
    ("roster", known_occupant, "accept"),
    (["juliet@capulet.lit"], stranger, "accept"),
    (["juliet@capulet.lit"], replace(stranger, auto_authorize=True), "accept"),
    (["juliet@capulet.lit"], replace(stranger, bare=JID("nurse@capulet.lit")), "ask"),
    (["capulet.lit"], stranger, "ask"),
    (["juliet@capulet.lit"], hidden, "ask"),
    (["juliet@capulet.lit"], known_occupant, "accept"),
    ([ROOM], hidden, "ask"),
    ([ROOM], replace(hidden, bare=ROOM), "ask"),
    ([ROOM, JULIET.bare], known_occupant, "accept"),
    ([], contact, "ask"),
    (consult, hidden, "consult"),
]


@pytest.mark.parametrize(("auto_accept", "peer", "kind"), VERDICTS)
def test_decide_by_auto_accept_gives_the_verdict(auto_accept: Any, peer: Peer, kind: str) -> None:
    assert policy.decide(OFFER, peer, config(auto_accept), Counts()) == Verdict(kind)  # type: ignore[arg-type]


@pytest.mark.parametrize("auto_accept", [False, True, "roster", ["juliet@capulet.lit"], consult])
def test_decide_about_a_blocked_peer_declines(auto_accept: Any) -> None:
    verdict = policy.decide(OFFER, replace(contact, blocked=True), config(auto_accept), Counts())
    assert verdict.kind == "decline"
    assert isinstance(verdict.error, Declined)


@pytest.mark.parametrize("auto_accept", [False, True, "roster", ["juliet@capulet.lit"], consult])
def test_decide_about_an_offer_beyond_a_limit_declines_before_anybody_is_asked(auto_accept: Any) -> None:
    verdict = policy.decide(OFFER, contact, config(auto_accept, limits={"max_size": 999}), Counts())
    assert verdict.kind == "decline"
    assert isinstance(verdict.error, LimitExceeded)
    assert "1000" in str(verdict.error)
    assert "999" in str(verdict.error)


@pytest.fixture
async def two_files(tmp_path: Path) -> Manifest:
    """The manifest of a directory with two files of 500 bytes."""
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(500))
    return (await make(tmp_path, salt=bytes(16))).manifest


LIMITS: list[tuple[Limits, Offer, Counts, str | None]] = [
    (Limits(max_size=1_000), OFFER, Counts(), None),
    (Limits(max_size=999), OFFER, Counts(), "max_size"),
    (Limits(max_files=1), OFFER, Counts(), None),
    (Limits(max_manifest_size=150), OFFER, Counts(), None),
    (Limits(max_manifest_size=149), OFFER, Counts(), "max_manifest_size"),
    (Limits(max_offers_per_peer=3), OFFER, Counts(offers=2), None),
    (Limits(max_offers_per_peer=3), OFFER, Counts(offers=3), "max_offers_per_peer"),
    (Limits(max_transfers=3), OFFER, Counts(transfers=2), None),
    (Limits(max_transfers=3), OFFER, Counts(transfers=3), "max_transfers"),
]


@pytest.mark.parametrize(("limits", "offer", "counts", "name"), LIMITS)
def test_limits_exceeded_at_the_border_names_the_limit(
    limits: Limits, offer: Offer, counts: Counts, name: str | None
) -> None:
    exceeded = policy.limits_exceeded(offer, None, limits, counts)
    assert exceeded is None if name is None else f"{name} is" in str(exceeded)


async def test_limits_exceeded_with_a_manifest_judges_what_it_says_too(two_files: Manifest) -> None:
    length = len(two_files.info)
    understated = replace(OFFER, size=0, info_length=1)
    for limits in (Limits(max_size=1_000), Limits(max_files=2), Limits(max_manifest_size=length)):
        assert policy.limits_exceeded(understated, two_files, limits) is None
    for limits, name in (
        (Limits(max_size=999), "max_size"),
        (Limits(max_files=1), "max_files"),
        (Limits(max_manifest_size=length - 1), "max_manifest_size"),
    ):
        assert f"{name} is" in str(policy.limits_exceeded(understated, two_files, limits))
    overstated = replace(OFFER, size=2_000)
    assert "max_size is" in str(policy.limits_exceeded(overstated, two_files, Limits(max_size=1_500)))


REVEALED = [
    ("invited", stranger, True),
    ("invited", hidden, True),
    ("roster", stranger, False),
    ("roster", contact, True),
    ("roster", replace(contact, auto_authorize=True), False),
    ("roster", hidden, False),
    ("never", contact, False),
]


@pytest.mark.parametrize(("setting", "peer", "told"), REVEALED)
def test_reveals_address_by_setting_tells_only_who_may_know(setting: str, peer: Peer, told: bool) -> None:
    assert policy.reveals_address(peer, Config.parse({"reveal_address": setting})) is told


jids = st.sampled_from([JID("a@x"), JID("b@x"), JID("a@y"), ROOM])
peers = st.builds(
    Peer,
    st.just(JULIET),
    st.none() | jids,
    st.sampled_from(["none", "to", "from", "both", "remove"]),
    st.booleans(),
    st.booleans(),
    st.none() | st.just(ROOM),
)
rules = st.booleans() | st.just("roster") | st.lists(jids)


@given(peers, rules, st.integers(0, 2_000), st.integers(0, 3))
@settings(deadline=None)
def test_decide_accepts_only_known_peers_within_limits(peer: Peer, rule: Any, size: int, offers: int) -> None:
    limits = {"max_size": 1_000, "max_offers_per_peer": 2}
    verdict = policy.decide(replace(OFFER, size=size), peer, config(rule, limits=limits), Counts(offers))
    assert (verdict.kind == "decline") == (peer.blocked or size > 1_000 or offers >= 2) == (verdict.error is not None)
    if verdict.kind == "accept" and rule is not True:
        assert peer.bare is not None
        assert peer.bare != peer.room
        assert peer.contact if rule == "roster" else peer.bare in rule


@pytest.mark.parametrize(
    ("peer", "may_know"),
    [(stranger, False), (replace(stranger, subscription="to"), False), (contact, True), (hidden, True),
     (known_occupant, True), (replace(contact, auto_authorize=True), True)],
)  # fmt: skip
def test_may_know_of_a_peer_is_for_who_sees_this_side_anyway(peer: Peer, may_know: bool) -> None:
    assert peer.may_know is may_know


INVITED: list[tuple[str, str, str, bool]] = [
    ("juliet@capulet.lit/balcony", "chat", "juliet@capulet.lit/balcony", True),
    ("juliet@capulet.lit/balcony", "chat", "juliet@capulet.lit/chamber", False),
    ("juliet@capulet.lit/balcony", "chat", "juliet@capulet.lit", False),
    ("juliet@capulet.lit/balcony", "chat", "nurse@capulet.lit/balcony", False),
    ("juliet@capulet.lit", "chat", "juliet@capulet.lit/balcony", True),
    ("juliet@capulet.lit", "normal", "juliet@capulet.lit/chamber", True),
    ("juliet@capulet.lit", "chat", "nurse@capulet.lit/balcony", False),
    ("juliet@capulet.lit", "chat", "juliet@capulet.lit.example/balcony", False),
    ("echo.capulet.lit", "chat", "echo.capulet.lit", True),
    ("garden@rooms.capulet.lit", "groupchat", "garden@rooms.capulet.lit/juliet", True),
    ("garden@rooms.capulet.lit", "groupchat", "garden@rooms.capulet.lit", False),
    ("garden@rooms.capulet.lit", "groupchat", "juliet@capulet.lit/balcony", False),
    ("garden@rooms.capulet.lit", "groupchat", "orchard@rooms.capulet.lit/juliet", False),
    ("garden@rooms.capulet.lit/juliet", "chat", "garden@rooms.capulet.lit/juliet", True),
    ("garden@rooms.capulet.lit/juliet", "chat", "garden@rooms.capulet.lit/nurse", False),
]


@pytest.mark.parametrize(("to", "mtype", "peer", "yes"), INVITED)
def test_invited_by_an_address_admits_only_who_is_meant(to: str, mtype: str, peer: str, yes: bool) -> None:
    assert policy.invited(JID(to), mtype, JID(peer)) is yes


def test_invited_of_an_account_admits_so_many_devices_and_those_again() -> None:
    devices = [JID(f"juliet@capulet.lit/{n}") for n in range(MAX_DEVICES)]
    to = JID(JULIET.bare)
    assert policy.invited(to, "chat", JULIET, admitted=devices[:-1])
    assert not policy.invited(to, "chat", JULIET, admitted=devices)
    assert policy.invited(to, "chat", devices[0], admitted=devices)


def test_invited_of_a_room_admits_any_number() -> None:
    occupants = [JID(f"{ROOM}/{n}") for n in range(50)]
    assert policy.invited(ROOM, "groupchat", JID(f"{ROOM}/juliet"), admitted=occupants)


AGREEMENT = Agreement("o", "t", sender=ROMEO, receiver=JULIET)
BY_RECEIVER: list[Request] = [
    Meta("o", "t", 0, 10), Report("o", "t", 0, 10), End("o", "complete", "success", "t"),
    End("o", "cancel", "cancel", "t"), End("o", "decline", "decline", "t"),
]  # fmt: skip
BY_SENDER: list[Request] = [Peers("o", "t"), End("o", "cancel", "cancel", "t"), End("o", "decline", "decline", "t")]
BY_NOBODY: list[Request] = [Accept("o", "t"), End("o", "decline", "decline")]
REQUESTS = [*BY_RECEIVER, *BY_SENDER, *BY_NOBODY]


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_may_between_the_two_of_an_accept_follows_the_direction(request_: Request) -> None:
    assert policy.may(request_, JULIET, ROMEO, AGREEMENT) is (request_ in BY_RECEIVER)
    assert policy.may(request_, ROMEO, JULIET, AGREEMENT) is (request_ in BY_SENDER)


STRANGERS = [JID(t) for t in ("juliet@capulet.lit", "juliet@capulet.lit/chamber", "nurse@capulet.lit/balcony",
                              "romeo@montague.lit", "romeo@montague.lit/street")]  # fmt: skip


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_may_from_or_to_any_other_jid_is_no(request_: Request) -> None:
    for peer, own in itertools.product([*STRANGERS, ROMEO, JULIET], repeat=2):
        if {peer, own} != {ROMEO, JULIET}:
            assert not policy.may(request_, peer, own, AGREEMENT)


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
@pytest.mark.parametrize("agreement", [None, replace(AGREEMENT, id="p"), replace(AGREEMENT, transfer="u")])
def test_may_without_the_agreement_is_no(request_: Request, agreement: Agreement | None) -> None:
    assert not policy.may(request_, JULIET, ROMEO, agreement)
    assert not policy.may(request_, ROMEO, JULIET, agreement)


OWN = JID("juliet@capulet.lit/chamber")
DEVICE = Peer(JULIET, JID(JULIET.bare), subscription="both")
OCCUPANT = replace(hidden, occupant=f"{ROOM} id:1")


@pytest.mark.parametrize(
    ("peer", "room", "may"),
    [
        (DEVICE, None, True),
        (replace(DEVICE, jid=OWN), None, False),
        (DEVICE, ROOM, False),
        (Peer(ROMEO, JID(ROMEO.bare), subscription="both"), None, False),
        (OCCUPANT, ROOM, True),
        (replace(OCCUPANT, bare=JID(JULIET.bare)), ROOM, True),
        (hidden, ROOM, False),  # a nick that nobody has
        (OCCUPANT, None, False),
        (replace(OCCUPANT, bare=JID(JULIET.bare)), None, False),
        (OCCUPANT, JID("other@rooms.capulet.lit"), False),
        (replace(OCCUPANT, blocked=True), ROOM, False),
    ],
)
def test_those_who_share_the_invitation_may_stand_in(peer: Peer, room: JID | None, may: bool) -> None:
    assert policy.may_stand_in(peer, room, OWN) is may


@pytest.mark.parametrize(
    ("peer", "own", "may"),
    [
        (contact, ROMEO, True),
        (replace(contact, jid=JID("juliet@capulet.lit/chamber")), JID("romeo@montague.lit/garden"), True),
        (Peer(OWN, JID("nurse@capulet.lit")), ROMEO, False),
        (known_occupant, ROMEO, False),
        (contact, JID("benvolio@montague.lit/orchard"), False),
        (replace(contact, blocked=True), ROMEO, False),
    ],
)
def test_leave_to_admit_others_comes_from_who_sent_it(peer: Peer, own: JID, may: bool) -> None:
    assert policy.may_delegate(peer, own, JULIET.bare, ROMEO) is may
