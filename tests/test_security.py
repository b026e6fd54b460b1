"""A stranger gets nothing of a sealed offer, though it has the offer's XML and the sender's address: end to end, with
real clients, engines and servers.

More of the threat model is in tests/security and tests/fuzz; docs/explanation/threat-model names the test of each row.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from slixmpp import JID

from slixmpp_bt import OutgoingOffer, stanza
from slixmpp_bt.backends import Admission
from slixmpp_bt.constants import Mode, Route
from slixmpp_bt.messages import Accept, Accepted, Candidate, End, Fetch, Meta, Offer, Report, Request
from slixmpp_bt.sealing import Authority, ReceiverKey
from slixmpp_bt.testing._sealed import expired, forged, of_another_offer, self_signed

from .security.leech import context, handshake, leech
from .security.raw import Raw, anonymous, condition, raw
from .servers import Loopback, Server
from .world import Member, make_file, member, until

KIB = 1024
SIZE = 300 * KIB + 77
ALL = frozenset(Route)


@dataclass
class Scene:
    """Alice has offered a file to Bob, who has accepted and fetches nothing, so that she waits for him.

    :ivar bob: speaks by hand.
    :ivar offer: as Bob has it, which strangers have too.
    :ivar accepted: what she has answered.
    """

    alice: Member
    bob: Raw
    own: OutgoingOffer
    offer: Offer
    source: Path
    key: ReceiverKey
    accepted: Accepted

    @property
    def authority(self) -> Authority:
        """The offer's, which only Alice has."""
        exchange: Any = self.alice.bt._exchange
        authority: Authority = exchange.registry.outgoing[self.own.id]._content.admitting.authority
        return authority

    def invited(self) -> Admission:
        """What Bob shows in the swarm."""
        assert self.accepted.certificate is not None
        authority = stanza_authority(self.offer)
        pem = self.key.accept(self.accepted.certificate, authority, self.own.expires)
        return Admission(Mode.SEALED, pem, self.key.key)

    def nothing_was_sent(self) -> bool:
        """Whether nobody was given a byte of the content."""
        seeding: Any = self.own.seeding
        return seeding.uploaded() == 0 and all(not transfer.routes for transfer in self.own.transfers)


def stanza_authority(offer: Offer) -> bytes:
    """The certificate authority that an offer names."""
    assert offer.info is not None
    start = offer.info.index(b"-----BEGIN CERTIFICATE-----")
    end = b"-----END CERTIFICATE-----\n"
    return offer.info[start : offer.info.index(end) + len(end)]


def accept_of(offer: Offer, key: ReceiverKey | None = None, transfer: str = "t-1") -> Accept:
    return Accept(offer.id, transfer, (), ALL, None, 0, (key or ReceiverKey.make()).request)


async def set_up(
    server: Server, tmp_path: Path, to: str | None = None, named: tuple[Candidate, ...] = (), **config: Any
) -> Scene:
    """Make a scene on `server`.

    :param to: ``device`` for an offer to Bob's device instead of his account.
    :param named: where Bob says that he listens.
    :param config: of Alice.
    """
    alice = await member(server, f"{await server.add_user('alice')}/laptop", tmp_path / "alice", **config)
    bob = await raw(server, f"{await server.add_user('bob')}/phone")
    source = make_file(tmp_path / "out" / "secret plans.bin", SIZE)
    own = await alice.bt.offer(bob.jid if to == "device" else bob.jid.bare, source, expires=86_400)
    offer = await bob.expect_offer()
    key = ReceiverKey.make()
    answer = await bob.ask(alice.jid, replace(accept_of(offer, key), candidates=named))
    accepted = stanza.find(type(bob.xmpp.make_iq())(xml=answer))
    assert isinstance(accepted, Accepted), stanza
    return Scene(alice, bob, own, offer, source, key, accepted)


@pytest.fixture
async def loopback() -> AsyncIterator[Loopback]:
    async with Loopback() as view:
        yield view


# The swarm


async def test_invited_member_by_hand_gets_the_first_block(loopback: Loopback, tmp_path: Path) -> None:
    """The measure of all that follow: with the certificate it works."""
    scene = await set_up(loopback, tmp_path)
    assert scene.offer.mode is Mode.SEALED
    for candidate in scene.accepted.candidates:
        _, block = await leech(candidate, scene.offer.info_hash, context(tmp_path / "bob", scene.invited()))
        assert block == scene.source.read_bytes()[: 16 * KIB]
    await scene.own.withdraw()


def nothing(authority: Authority) -> None:
    """No certificate at all."""


@pytest.mark.parametrize("shown", [nothing, self_signed, of_another_offer, forged, expired])
async def test_stranger_by_tls_gets_no_byte(
    loopback: Loopback, tmp_path: Path, shown: Callable[[Authority], Admission | None]
) -> None:
    scene = await set_up(loopback, tmp_path)
    tls = context(tmp_path / "stranger", shown(scene.authority))
    for candidate in scene.accepted.candidates:
        assert await leech(candidate, scene.offer.info_hash, tls) == (b"", b"")
    assert scene.nothing_was_sent()
    await scene.own.withdraw()


async def test_stranger_without_tls_gets_no_byte_on_any_port(loopback: Loopback, tmp_path: Path) -> None:
    scene = await set_up(loopback, tmp_path)
    backend: Any = scene.alice.bt._backend
    ports = [*scene.accepted.candidates, *await backend.candidates(Mode.PRIVATE)]
    assert len(ports) > len(scene.accepted.candidates)
    for candidate in ports:
        heard, block = await leech(candidate, scene.offer.info_hash)
        assert scene.offer.info_hash[:20] not in heard
        assert block == b""
    assert scene.nothing_was_sent()
    await scene.own.withdraw()


async def test_certificate_of_a_real_offer_of_the_same_sender_opens_no_other(
    loopback: Loopback, tmp_path: Path
) -> None:
    """Bob is invited to two; with the certificate of the one he asks for the other, under either name."""
    scene = await set_up(loopback, tmp_path)
    second = make_file(tmp_path / "out" / "other.bin", SIZE, 2)
    own = await scene.alice.bt.offer(scene.bob.jid.bare, second, expires=86_400)
    other = await scene.bob.expect_offer(2)
    assert condition(await scene.bob.ask(scene.alice.jid, accept_of(other, transfer="t-2"))) is None
    tls = context(tmp_path / "bob", scene.invited())
    for candidate in scene.accepted.candidates:
        assert await leech(candidate, other.info_hash, tls) == (b"", b"")
        heard = await asking_for_another(candidate, scene.offer.info_hash, other.info_hash, tls)
        assert other.info_hash[:20] not in heard
    assert scene.nothing_was_sent()
    for each in (scene.own, own):
        await each.withdraw()


async def asking_for_another(candidate: Candidate, named: bytes, wanted: bytes, tls: ssl.SSLContext) -> bytes:
    """What is heard by who is let in for one offer, and then asks for another."""
    reader, writer = await asyncio.open_connection(
        str(candidate.address), candidate.port, ssl=tls, server_hostname=named[:20].hex()
    )
    heard = b""
    with suppress(ssl.SSLError, ConnectionError):
        writer.write(handshake(wanted))
        async with asyncio.timeout(20):
            while data := await reader.read(4096):
                heard += data
    writer.close()
    return heard


# The negotiation


def requests(offer_id: str, transfer: str) -> list[tuple[str, Request]]:
    """Everything by which somebody could ask for something of an offer."""
    return [
        ("set", Accept(offer_id, transfer, (), ALL, None, 5_000, ReceiverKey.make().request)),
        ("set", Accept(offer_id, transfer, (), frozenset())),
        ("get", Meta(offer_id, transfer, 0, 6_000)),
        ("set", Fetch(offer_id, transfer, "sid", Route.IN_BAND, ((0, 3),))),
        ("set", Fetch(offer_id, transfer, "sid", Route.RELAY, ((0, 3),), ((0, 0),))),
        ("set", Report(offer_id, transfer, 1, 2)),
        ("set", End(offer_id, "complete", "success", transfer)),
        ("set", End(offer_id, "cancel", "cancel", transfer)),
        ("set", End(offer_id, "decline", "decline")),
    ]


async def refused_alike(scene: Scene, asking: Raw, ifrom: JID | None = None, words_of_ends: bool = False) -> None:
    """Each request of `asking` for the offer is answered as one for an offer that nobody has made.

    :param words_of_ends: whether the words that answer an End are compared, too.
    """
    states = [(transfer.state, transfer.peer) for transfer in scene.own.transfers]
    for transfer in ("t-1", "t-new"):
        real, made_up = (requests(id, transfer) for id in (scene.own.id, "nobody-made-this"))
        for (kind, about_it), (_, about_nothing) in zip(real, made_up, strict=True):
            answers = [
                await asking.ask(scene.alice.jid, request, kind=kind, ifrom=ifrom)
                for request in (about_it, about_nothing)
            ]
            assert condition(answers[0]) == "item-not-found", (transfer, about_it)
            if words_of_ends or not isinstance(about_it, End):
                assert anonymous(answers[0]) == anonymous(answers[1])
    assert [(transfer.state, transfer.peer) for transfer in scene.own.transfers] == states
    assert scene.nothing_was_sent()


async def test_stranger_is_answered_as_about_an_unknown_offer(server: Server, tmp_path: Path) -> None:
    scene = await set_up(server, tmp_path)
    await refused_alike(scene, await raw(server, f"{await server.add_user('mallory')}/phone"))
    await scene.own.withdraw()


async def test_stranger_who_ends_something_is_answered_as_about_an_unknown_offer(
    loopback: Loopback, tmp_path: Path
) -> None:
    scene = await set_up(loopback, tmp_path)
    try:
        await refused_alike(
            scene, await raw(loopback, f"{await loopback.add_user('mallory')}/phone"), words_of_ends=True
        )
    finally:
        await scene.own.withdraw()


async def test_another_resource_than_the_invited_device_is_answered_as_about_an_unknown_offer(
    server: Server, tmp_path: Path
) -> None:
    """But for the end of a transfer, whose id nobody can guess: a device's name changes when it connects again."""
    scene = await set_up(server, tmp_path, to="device")
    other = await raw(server, f"{scene.bob.jid.bare}/tablet")
    for kind, request in requests(scene.own.id, "t-new")[:-1]:
        assert condition(await other.ask(scene.alice.jid, request, kind=kind)) == "item-not-found", request
    known = [request for request in requests(scene.own.id, "t-1") if not isinstance(request[1], Accept | End)]
    for kind, request in known:
        assert condition(await other.ask(scene.alice.jid, request, kind=kind)) == "item-not-found", request
    assert scene.nothing_was_sent()
    await scene.own.withdraw()


async def test_another_resource_may_not_decline_what_a_device_has_accepted(loopback: Loopback, tmp_path: Path) -> None:
    scene = await set_up(loopback, tmp_path, to="device")
    other = await raw(loopback, f"{scene.bob.jid.bare}/tablet")
    try:
        answer = await other.ask(scene.alice.jid, End(scene.own.id, "decline", "decline"))
        assert condition(answer) == "item-not-found"
    finally:
        await scene.own.withdraw()


async def test_other_devices_of_the_account_may_not_speak_for_the_one_that_accepted(
    server: Server, tmp_path: Path
) -> None:
    scene = await set_up(server, tmp_path)
    other = await raw(server, f"{scene.bob.jid.bare}/tablet")
    for kind, request in requests(scene.own.id, "t-1"):
        if isinstance(request, Meta | Fetch | Report):
            assert condition(await other.ask(scene.alice.jid, request, kind=kind)) == "item-not-found"
    assert scene.nothing_was_sent()
    await scene.own.withdraw()


async def test_name_at_a_hostile_component_is_answered_as_about_an_unknown_offer(
    loopback: Loopback, tmp_path: Path
) -> None:
    """A server may speak for whom it likes at its own domain: also for who has the invited one's name there."""
    scene = await set_up(loopback, tmp_path)
    gateway = Raw(loopback.component("gateway"))
    await loopback.connect(gateway.xmpp)
    for name in (scene.bob.jid.user, "alice", ""):
        ifrom = JID(f"{name}@{gateway.jid.domain}/phone" if name else gateway.jid.domain)
        await refused_alike(scene, gateway, ifrom)
    await scene.own.withdraw()


async def test_ninth_device_of_an_account_gets_no_certificate(loopback: Loopback, tmp_path: Path) -> None:
    scene = await set_up(loopback, tmp_path)
    devices = [await raw(loopback, f"{scene.bob.jid.bare}/{number}") for number in range(8)]
    answers = [
        await one.ask(scene.alice.jid, accept_of(scene.offer, transfer=f"d{one.jid.resource}")) for one in devices
    ]
    assert [condition(answer) for answer in answers] == [None] * 7 + ["item-not-found"]
    await scene.own.withdraw()


# Rooms


async def occupant(server: Server, room: str, nick: str, client: Any) -> None:
    """Let a client enter a room."""
    client.register_plugin("xep_0045")
    async with asyncio.timeout(20):
        await client.plugin["xep_0045"].join_muc_wait(JID(room), nick, maxchars=0, timeout=20)


async def offer_in_a_room(server: Server, tmp_path: Path) -> tuple[Member, Raw, OutgoingOffer, Offer, str]:
    """Alice offers something to an occupant, which is Bob."""
    room = f"lab-{tmp_path.name[-8:]}@{server.conference}".lower()
    alice = await member(server, f"{await server.add_user('alice')}/laptop", tmp_path / "alice")
    bob = await raw(server, f"{await server.add_user('bob')}/phone")
    await occupant(server, room, "alice", alice.xmpp)
    await occupant(server, room, "bob", bob.xmpp)
    own = await alice.bt.offer(f"{room}/bob", make_file(tmp_path / "out" / "file.bin", SIZE), expires=86_400)
    return alice, bob, own, await bob.expect_offer(), room


async def test_former_occupant_is_answered_as_about_an_unknown_offer(loopback: Loopback, tmp_path: Path) -> None:
    alice, bob, own, offer, room = await offer_in_a_room(loopback, tmp_path)
    rooms: Any = bob.xmpp.plugin["xep_0045"]
    rooms.leave_muc(JID(room), "bob")
    occupants: Any = alice.xmpp.plugin["xep_0045"]
    await until(lambda: "bob" not in occupants.get_roster(JID(room)))
    answers = [await bob.ask(alice.jid, accept_of(replace(offer, id=id))) for id in (offer.id, "nobody-made-this")]
    assert condition(answers[0]) == "item-not-found"
    assert anonymous(answers[0]) == anonymous(answers[1])
    assert condition(await bob.ask(JID(f"{room}/alice"), accept_of(offer))) is not None  # the room sees to that
    assert all(not transfer.id for transfer in own.transfers)
    await own.withdraw()


async def test_who_takes_over_the_nick_of_who_was_invited_gets_nothing(loopback: Loopback, tmp_path: Path) -> None:
    alice, bob, own, offer, room = await offer_in_a_room(loopback, tmp_path)
    rooms: Any = bob.xmpp.plugin["xep_0045"]
    rooms.leave_muc(JID(room), "bob")
    occupants: Any = alice.xmpp.plugin["xep_0045"]
    await until(lambda: "bob" not in occupants.get_roster(JID(room)))
    mallory = await raw(loopback, f"{await loopback.add_user('mallory')}/phone")
    await occupant(loopback, room, "bob", mallory.xmpp)
    try:
        assert condition(await mallory.ask(JID(f"{room}/alice"), accept_of(offer))) == "item-not-found"
    finally:
        await own.withdraw()
