"""What users do, on the loopback server, Prosody and ejabberd: real clients, real libtorrent, real files."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import slixmpp

from slixmpp_bt import (
    Cancelled,
    Declined,
    Expired,
    IncomingOffer,
    LimitExceeded,
    NotSupported,
    PeerGone,
    PeerNotFound,
    Route,
    State,
)
from slixmpp_bt.routing import INLINE_MAX

from .servers import Server
from .world import Member, digest, done, make_file, member, pair, until, visible


@pytest.mark.parametrize("size", [0, 1, 16_384, 100_000, 3_000_000])
async def test_file_of_any_size_arrives(server: Server, tmp_path: Path, size: int) -> None:
    alice, bob = await pair(server, tmp_path)
    source = make_file(tmp_path / "grüße 🎁.bin", size)
    sending = await alice.bt.send_file(bob.jid.bare, source)
    assert await done(sending) == [source]
    receiving = bob.told("bt_transfer_start")[0]
    [path] = await done(receiving)
    assert path == bob.inbox / source.name
    assert digest(path) == digest(source)
    assert (sending.state, receiving.state) == (State.COMPLETE, State.COMPLETE)
    assert receiving.progress.transferred == receiving.progress.total == size
    assert sending.progress.transferred == size
    expected = {Route.INLINE: size} if size <= INLINE_MAX else {Route.SWARM: size}
    assert receiving.routes == sending.routes == (expected if size else {})
    assert sending.peer == bob.jid
    assert receiving.peer == alice.jid
    await receiving.released()
    assert bob.leftovers() == []
    for one in (alice, bob):
        assert [name for name, _ in one.events if name != "bt_progress"] == ["bt_transfer_start", "bt_transfer_end"]
    assert [*alice.bt.offers, *alice.bt.transfers, *bob.bt.offers, *bob.bt.transfers] == []


async def test_directory_arrives_whole_with_its_names(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path)
    source = tmp_path / "Fotos vom Sommer"
    names = ["a b.txt", "ümläut/ß.bin", "🎉/🎂 cake", "deep/er/and/deeper/x", "x" * 255, "empty file", ".hidden/.rc"]
    for index, name in enumerate(names):
        make_file(source / name, 0 if name == "empty file" else 40_000 * index + 1)
    (source / "empty directory" / "inside").mkdir(parents=True)
    sending = await alice.bt.send_file(bob.jid.bare, source)
    await done(sending)
    [path] = await done(bob.told("bt_transfer_start")[0])
    assert path == bob.inbox / source.name
    assert digest(path) == digest(source)


async def test_manifest_too_large_for_an_offer_is_asked_for(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path, auto_accept=False)
    source = tmp_path / "many"
    for index in range(400):
        make_file(source / f"{index % 7}/file {index}", index)
    sending = await alice.bt.send_file(bob.jid.bare, source)
    offer = await bob.expect_offer()
    assert offer.files == ()
    receiving = await offer.accept(select=lambda file: file.path.parts[0] == "3")
    [path] = await done(receiving)
    assert len(offer.files) == 400
    assert digest(path).keys() == {"3", *(f"3/file {n}" for n in range(400) if n % 7 == 3)}
    await done(sending)


async def test_few_bytes_go_over_xmpp(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path)
    await done(await alice.bt.send_file(bob.jid.bare, make_file(tmp_path / "file", 20_000_000)))
    await until(lambda: bob.told("bt_transfer_end"))
    assert alice.stanza_bytes + bob.stanza_bytes < 5_000


async def test_select_and_dest_choose_what_goes_where(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path, auto_accept=False)
    for name in ("one", "two", "sub/three"):
        make_file(tmp_path / "src" / name, 50_000)
    await alice.bt.send_file(bob.jid.bare, tmp_path / "src", desc="three files")
    offer = await bob.expect_offer()
    assert offer.desc == "three files"
    assert {str(file.path): file.size for file in offer.files} == {"one": 50_000, "two": 50_000, "sub/three": 50_000}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    transfer = await offer.accept(elsewhere, select=[f for f in offer.files if f.path.name != "one"])
    [path] = await done(transfer)
    assert path == elsewhere / "src"
    assert digest(path).keys() == {"two", "sub", "sub/three"}
    assert transfer.progress.total == 100_000
    assert await offer.accept() is transfer


async def test_existing_name_gets_a_sibling(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path)
    (bob.inbox / "notes.txt").write_text("mine")
    source = make_file(tmp_path / "notes.txt", 1000)
    await done(await alice.bt.send_file(bob.jid.bare, source))
    [path] = await done(bob.told("bt_transfer_start")[0])
    assert (bob.inbox / "notes.txt").read_text() == "mine"
    assert path != bob.inbox / "notes.txt"
    assert digest(path) == digest(source)


async def _yes(offer: IncomingOffer) -> bool:
    return offer.size < 5_000


@pytest.mark.parametrize("form", ["roster", "jids", "function", "hook", "true"])
async def test_auto_accept_in_each_form_takes_what_it_means(server: Server, tmp_path: Path, form: str) -> None:
    alice, bob = await pair(server, tmp_path, auto_accept=False)
    rules: dict[str, Any] = {"roster": "roster", "jids": [alice.jid.bare], "function": _yes, "true": True}
    if form == "hook":
        bob.bt.api.register(lambda jid, node, ifrom, offer: offer.size < 5_000, "authorize")
    elif form == "roster":
        bob.xmpp.auto_authorize = None
    if form != "hook":
        bob.bt.configure(auto_accept=rules[form])
    await done(await alice.bt.send_file(bob.jid.bare, make_file(tmp_path / "small", 1000)))
    assert bob.told("bt_offer") == []
    if form in ("function", "hook"):
        await alice.bt.send_file(bob.jid.bare, make_file(tmp_path / "big", 6000))
        assert (await bob.expect_offer()).name == "big"


@pytest.mark.parametrize("rule", [False, "roster", ["carol@example.org"]])
async def test_auto_accept_leaves_others_to_the_application(server: Server, tmp_path: Path, rule: Any) -> None:
    """With auto_authorize on, as slixmpp has it, "roster" must admit nobody either."""
    alice, bob = await pair(server, tmp_path, auto_accept=rule)
    assert bob.xmpp.auto_authorize is True
    await alice.bt.send_file(bob.jid.bare, make_file(tmp_path / "file", 10))
    offer = await bob.expect_offer()
    assert (offer.peer, offer.sender, offer.room) == (alice.jid, slixmpp.JID(alice.jid.bare), None)
    assert bob.bt.offers == (offer,)


async def test_declined_offer_ends_with_the_reason(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path, auto_accept=False)
    sending = await alice.bt.send_file(bob.jid.bare, make_file(tmp_path / "file", 10))
    await (await bob.expect_offer()).decline("no cats, please")
    with pytest.raises(Declined, match="no cats, please") as caught:
        await done(sending)
    assert caught.value.reason == "decline"
    assert sending.state is State.DECLINED
    assert bob.bt.offers == ()


async def test_offer_beyond_the_limits_is_declined_unseen(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path, limits={"max_size": 1000})
    sending = await alice.bt.send_file(bob.jid.bare, make_file(tmp_path / "file", 1001))
    with pytest.raises(Declined, match="max_size"):
        await done(sending)
    assert bob.events == []


@pytest.mark.parametrize("who", ["sender", "receiver"])
async def test_cancel_in_mid_transfer_ends_both_sides(server: Server, tmp_path: Path, who: str) -> None:
    alice, bob = await pair(server, tmp_path)
    alice.bt.configure(upload_limit=300_000)
    sending = await alice.bt.send_file(bob.jid.bare, make_file(tmp_path / "file", 20_000_000))
    receiving = await bob.expect("bt_transfer_start")
    await until(lambda: receiving.progress.transferred > 0)
    await (sending if who == "sender" else receiving).cancel("enough")
    for transfer in (sending, receiving):
        with pytest.raises(Cancelled, match="enough"):
            await done(transfer)
        await transfer.released()
    assert list(bob.inbox.iterdir()) == []
    assert [len(one.told("bt_transfer_end")) for one in (alice, bob)] == [1, 1]


@pytest.mark.parametrize("who", ["sender", "receiver"])
async def test_pause_holds_and_resume_goes_on(server: Server, tmp_path: Path, who: str) -> None:
    alice, bob = await pair(server, tmp_path)
    alice.bt.configure(upload_limit=400_000)
    source = make_file(tmp_path / "file", 3_000_000)
    sending = await alice.bt.send_file(bob.jid.bare, source)
    receiving = await bob.expect("bt_transfer_start")
    await until(lambda: receiving.progress.transferred > 0)
    paused = sending if who == "sender" else receiving
    await paused.pause()
    assert paused.state is State.PAUSED
    assert "paused on this side" in paused.diagnosis[Route.SWARM]
    await asyncio.sleep(1.5)  # what was under way arrives
    before = receiving.progress.transferred
    await asyncio.sleep(1.0)
    assert receiving.progress.transferred == before < 3_000_000
    alice.bt.configure(upload_limit=None)
    await paused.resume()
    await done(sending, receiving)
    assert digest(bob.inbox / "file") == digest(source)


async def test_pause_before_anybody_accepts_serves_nothing_until_resume(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path)
    sending = await alice.bt.send_file(bob.jid.bare, make_file(tmp_path / "file", 50_000))
    await sending.pause()
    receiving = await bob.expect("bt_transfer_start")
    await until(lambda: "paused" in receiving.diagnosis.get(Route.SWARM, ""))
    assert sending.state is State.PAUSED
    await sending.resume()
    await done(sending, receiving)


async def test_unaccepted_offer_expires_and_can_be_withdrawn(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path, auto_accept=False)
    source = make_file(tmp_path / "file", 10)
    short = await alice.bt.send_file(bob.jid.bare, source, expires=timedelta(seconds=1))
    with pytest.raises(Expired):
        await done(short)
    assert short.state is State.EXPIRED
    long = await alice.bt.offer(bob.jid.bare, source)
    offer = await bob.expect_offer(2)
    await long.withdraw()
    assert long.state is State.CANCELLED
    assert await bob.expect("bt_offer_end", 2) is offer
    with pytest.raises(Expired):
        await offer.accept()


async def test_wait_may_be_cancelled_and_called_again(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path, auto_accept=False)
    source = make_file(tmp_path / "file", 10)
    sending = await alice.bt.send_file(bob.jid.bare, source)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sending.wait(), 0.05)
    await (await bob.expect_offer()).accept()
    assert await done(sending, sending) == [source, source]


async def test_iterating_ends_with_a_final_progress(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path)
    sending = await alice.bt.send_file(bob.jid.bare, make_file(tmp_path / "file", 2_000_000))
    receiving = await bob.expect("bt_transfer_start")
    for transfer in (sending, receiving):
        seen = [progress async for progress in transfer]
        assert seen[-1].transferred == seen[-1].total == 2_000_000
        assert [p.transferred for p in seen] == sorted(p.transferred for p in seen) or not transfer.incoming


async def test_client_without_the_plugin_sees_a_line_and_is_not_supported(server: Server, tmp_path: Path) -> None:
    a, b = await server.add_user("alice"), await server.add_user("bob")
    await server.subscribe(a, b)
    alice = await member(server, f"{a}/laptop", tmp_path / "alice")
    plain = server.client(f"{b}/old")
    seen: list[slixmpp.Message] = []
    plain.add_event_handler("message", seen.append)
    source = make_file(tmp_path / "holiday.jpg", 12_345)
    waiting = await alice.bt.send_file(b, source)  # nobody there yet
    await until(lambda: waiting.state is State.OFFERED)
    assert await alice.bt.supports(b) is None
    await server.connect(plain)
    await until(lambda: seen)
    assert "holiday.jpg" in seen[0]["body"]
    await until(lambda: alice.xmpp.roster[a][b].resources)
    assert await alice.bt.supports(b) is False
    assert await alice.bt.supports(plain.boundjid) is False
    for to in (b, plain.boundjid):
        with pytest.raises(NotSupported, match=str(b)):
            await alice.bt.send_file(to, source)


async def test_offer_waits_for_who_is_offline(server: Server, tmp_path: Path) -> None:
    a, b = await server.add_user("alice"), await server.add_user("bob")
    alice = await member(server, f"{a}/laptop", tmp_path / "alice")
    source = make_file(tmp_path / "file", 70_000)
    sending = await alice.bt.send_file(b, source)
    await until(lambda: sending.state is State.OFFERED)
    await asyncio.sleep(0.1)
    bob = await member(server, f"{b}/phone", tmp_path / "bob", auto_accept=True)
    await done(sending)
    assert digest(bob.inbox / "file") == digest(source)


async def test_who_is_not_there_is_told_readably(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path)
    source = make_file(tmp_path / "file", 10)
    with pytest.raises(PeerNotFound, match="nowhere"):
        await alice.bt.send_file(f"{bob.jid.bare}/nowhere", source)
    nobody = await alice.bt.send_file(f"nobody-at-all@{server.domain}", source)
    with pytest.raises(PeerGone, match="nobody-at-all"):
        await done(nobody)
    with pytest.raises(ValueError, match="not a JID"):
        await alice.bt.send_file("@@", source)


async def test_account_with_several_devices_is_served_once_or_all(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path)
    tablet = await member(server, f"{bob.jid.bare}/tablet", tmp_path / "tablet", auto_accept=True)
    tablet.xmpp.send_presence(ppriority=5)
    await visible(alice, tablet)
    resources = alice.xmpp.roster[alice.jid.bare][bob.jid.bare].resources
    await until(lambda: resources["tablet"]["priority"] == 5)
    source = make_file(tmp_path / "file", 60_000)
    one = await alice.bt.send_file(bob.jid.bare, source)
    await done(one)
    assert one.peer == tablet.jid
    offer = await alice.bt.offer(bob.jid.bare, source)
    await until(lambda: len(offer.transfers) == 2)  # a chat message to the account would reach the tablet only
    watch = await member(server, f"{bob.jid.bare}/watch", tmp_path / "watch", auto_accept=True)
    await until(lambda: len(offer.transfers) == 3)
    await done(*offer.transfers)
    assert {transfer.peer for transfer in offer.transfers} == {bob.jid, tablet.jid, watch.jid}
    assert digest(bob.inbox / "file") == digest(source)
    assert offer.state is State.OFFERED
    assert alice.bt.offers == (offer,)
    await offer.withdraw()


async def test_second_device_that_accepts_a_single_offer_is_told_it_is_taken(server: Server, tmp_path: Path) -> None:
    a, b = await server.add_user("alice"), await server.add_user("bob")
    alice = await member(server, f"{a}/laptop", tmp_path / "alice")
    phone = await member(server, f"{b}/phone", tmp_path / "phone")
    tablet = await member(server, f"{b}/tablet", tmp_path / "tablet")
    sending = await alice.bt.send_file(b, make_file(tmp_path / "file", 60_000))  # sees neither
    offers = [await phone.expect_offer(), await tablet.expect_offer()]
    await done(await offers[0].accept(), sending)
    with pytest.raises(Cancelled, match="another device"):
        await done(await offers[1].accept())


async def test_component_sends_and_receives(server: Server, tmp_path: Path) -> None:
    b = await server.add_user("bob")
    bot = Member(server.component("bot"), tmp_path / "bot")
    bot.register(auto_accept=True)
    await server.connect(bot.xmpp)
    bob = await member(server, f"{b}/phone", tmp_path / "bob", auto_accept=True)
    there = make_file(tmp_path / "there", 80_000)
    await done(await bob.bt.send_file(bot.jid.bare, there))
    assert digest(bot.inbox / "there") == digest(there)
    back = make_file(tmp_path / "back", 80_000)
    speaker = f"speaker@{bot.jid.bare}"
    sending = await bot.bt.send_file(bob.jid, back, ifrom=speaker)
    await done(sending)
    receiving = bob.told("bt_transfer_end")[-1]
    assert receiving.offer.sender == speaker
    assert digest(bob.inbox / "back") == digest(back)
    assert await bob.bt.supports(speaker) is None or await bob.bt.supports(bot.jid.bare)


async def test_registered_while_online_works_at_once(server: Server, tmp_path: Path) -> None:
    a, b = await server.add_user("alice"), await server.add_user("bob")
    await server.subscribe(a, b)
    alice, bob = (Member(server.client(f"{jid}/x"), tmp_path / jid.local) for jid in (a, b))
    await server.connect(alice.xmpp, bob.xmpp)
    alice.register()
    bob.register(auto_accept=True)
    await visible(alice, bob)
    await done(await alice.bt.send_file(b, make_file(tmp_path / "file", 50_000)))
    bob.disable()
    async with asyncio.timeout(10):
        while await alice.bt.supports(bob.jid):
            await asyncio.sleep(0.01)
    bob.register(auto_accept=True)
    async with asyncio.timeout(10):
        while not await alice.bt.supports(bob.jid):
            await asyncio.sleep(0.01)
    await done(await alice.bt.send_file(bob.jid, make_file(tmp_path / "again", 50_000)))


async def test_finished_receiver_serves_a_third(server: Server, tmp_path: Path) -> None:
    """The sender lets nobody have bytes any more, but admits and introduces: what carol gets, she gets from bob."""
    alice, bob = await pair(server, tmp_path, seed_after=60)
    c = bob.jid.bare
    source = make_file(tmp_path / "file", 2_000_000)
    offer = await alice.bt.offer(c, source)
    first = await bob.expect("bt_transfer_start")
    await done(first)
    await until(lambda: bob.told("bt_transfer_end") and not first.error)
    assert not bob.leftovers()
    alice.bt.configure(upload_limit=1)
    carol = await member(server, f"{c}/tablet", tmp_path / "carol", auto_accept=True)
    carol.bt.handle_offer(_as_message(carol, alice, offer))
    await until(lambda: carol.told("bt_transfer_start"))
    await done(carol.told("bt_transfer_start")[0])
    assert digest(carol.inbox / "file") == digest(source)
    await offer.withdraw()


def _as_message(reader: Member, writer: Member, offer: Any) -> slixmpp.Message:
    """The offer as an application would find it in its archive."""
    from slixmpp_bt import messages, stanza

    manifest = offer._content.loaded.manifest
    message = reader.xmpp.make_message(mto=reader.jid, mfrom=writer.jid, mtype="chat")
    stanza.fill_message(
        message,
        messages.Offer(
            offer.id, offer.mode, offer.expires, offer.name, offer.size, manifest.info_hash, len(manifest.info),
            manifest.info,
        ),
    )  # fmt: skip
    return message


async def test_limits_are_the_receivers_to_set(server: Server, tmp_path: Path) -> None:
    alice, bob = await pair(server, tmp_path, auto_accept=False, limits={"max_transfers": 1, "max_offers_per_peer": 2})
    alice.bt.configure(upload_limit=100_000)
    for index in range(3):
        await alice.bt.send_file(bob.jid.bare, make_file(tmp_path / f"file {index}", 1_000_000, index))
    await until(lambda: any(t.ended for t in alice.told("bt_transfer_end")))
    assert len(bob.told("bt_offer")) == 2
    first, second = bob.told("bt_offer")
    await first.accept()
    with pytest.raises(LimitExceeded, match="max_transfers"):
        await second.accept()


async def test_device_that_does_not_receive_is_not_chosen_and_ignores_what_comes(
    server: Server, tmp_path: Path
) -> None:
    alice, bob = await pair(server, tmp_path, receive=False)
    source = make_file(tmp_path / "file", 50_000)
    assert await alice.bt.supports(bob.jid) is False
    with pytest.raises(NotSupported):
        await alice.bt.send_file(bob.jid.bare, source)
    sending = await bob.bt.send_file(alice.jid, source)
    offer = await alice.expect_offer()
    assert bob.bt.handle_offer(_as_message(bob, bob, sending.offer)) is None
    assert bob.bt.handle_offer(_as_message(bob, alice, sending.offer)) is None
    await done(await offer.accept(), sending)
    bob.bt.configure(receive=True)
    async with asyncio.timeout(10):
        while not await alice.bt.supports(bob.jid):
            await asyncio.sleep(0.01)
    await done(await alice.bt.send_file(bob.jid, source))
