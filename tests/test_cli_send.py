"""slixmpp-bt send, as a process with a command line."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from slixmpp_bt import Config, IncomingOffer, NotSupported, Route, Transfer
from slixmpp_bt.testing import LoopbackServer

from .commands import CLI, Peer, account, error_until, finish, friends, moving, peer, ran, running, stop, to_go_on
from .world import digest, make_file, until


@pytest.fixture
async def server() -> AsyncIterator[LoopbackServer]:
    async with friends() as server:
        yield server


def send(server: LoopbackServer, to: str, *paths: Path) -> list[str]:
    """The command line by which alice sends `paths`."""
    return [*CLI, "send", to, *map(str, paths), *account(server, "alice")]


async def test_send_to_receiver_that_accepts_exits_0(server: LoopbackServer, tmp_path: Path) -> None:
    files = [make_file(tmp_path / name, 100_000, seed) for seed, name in enumerate(("a.bin", "b [bold].bin"))]
    async with peer(server, "bob", tmp_path, auto_accept=True) as bob:
        line = [*send(server, "bob@localhost", *files), "--desc", "two files"]
        code, out, error = await ran(*line, home=tmp_path / "alice")
        arrived = [await bob.told("bt_transfer_end"), await bob.told("bt_transfer_end")]
    assert (code, out) == (0, "")
    assert {t.path.name: digest(t.path) for t in arrived} == {file.name: digest(file) for file in files}
    assert {t.offer.desc for t in arrived} == {"two files"}
    assert all(f"{file.name} to bob@localhost: 100.0 kB by swarm, complete\n" in error for file in files)


async def test_send_by_the_only_route_that_is_named_says_how_it_came(server: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 100_000)
    async with peer(server, "bob", tmp_path, auto_accept=True) as bob:
        line = [*send(server, "bob@localhost", file), "--route", "in-band"]
        code, _, error = await ran(*line, home=tmp_path / "alice")
        arrived = await bob.told("bt_transfer_end")
    assert code == 0, error
    assert "a.bin to bob@localhost: 100.0 kB by in-band, complete\n" in error
    assert arrived.routes == {Route.IN_BAND: 100_000}


async def test_send_that_is_declined_exits_1_with_the_reason(server: LoopbackServer, tmp_path: Path) -> None:
    line = send(server, "bob@localhost", make_file(tmp_path / "a.bin", 10))
    async with peer(server, "bob", tmp_path) as bob, running(*line, home=tmp_path / "alice") as process:
        offer: IncomingOffer = await bob.told("bt_offer")
        await offer.decline("no \x1b[31mthank you")
        code, _, error = await finish(process)
    assert code == 1
    assert "slixmpp-bt: a.bin: no \ufffd[31mthank you\n" in error
    assert "Traceback" not in error


async def test_send_to_unknown_account_exits_1(server: LoopbackServer, tmp_path: Path) -> None:
    line = send(server, "nobody@localhost", make_file(tmp_path / "a.bin", 10))
    code, _, error = await ran(*line, home=tmp_path / "alice")
    assert code == 1
    assert "slixmpp-bt: a.bin: nobody@localhost: service unavailable\n" in error


async def test_send_to_peer_without_plugin_exits_1(server: LoopbackServer, tmp_path: Path) -> None:
    bob = server.client("bob/plain")
    bob.register_plugin("xep_0030")
    bob.add_event_handler("session_start", lambda _: bob.send_presence())
    await server.connect(bob)
    await server.wait_available("bob/plain")
    line = send(server, "bob@localhost", make_file(tmp_path / "a.bin", 10))
    code, _, error = await ran(*line, home=tmp_path / "alice")
    assert code == 1
    assert "slixmpp-bt: a.bin: no device of bob@localhost that is online supports file transfer" in error


@pytest.mark.matrix
async def test_send_with_wrong_password_exits_3(server: LoopbackServer, tmp_path: Path) -> None:
    line = send(server, "bob@localhost", tmp_path)
    code, out, error = await ran(*line, home=tmp_path / "alice", password="wrong")
    assert (code, out) == (3, "")
    assert error == "slixmpp-bt: cannot log in as alice@localhost: the server refuses the account or its password\n"


@pytest.mark.matrix
async def test_send_to_server_that_is_not_trusted_exits_3(server: LoopbackServer, tmp_path: Path) -> None:
    who = ["--jid", "alice@localhost", "--host", server.host, "--port", str(server.port)]
    code, out, error = await ran(*CLI, "send", "bob@localhost", str(tmp_path), *who, home=tmp_path / "alice")
    assert (code, out) == (3, "")
    assert re.fullmatch("slixmpp-bt: the server's certificate is not trusted: .*\n", error)


@pytest.mark.matrix
async def test_send_where_nobody_listens_exits_3(tmp_path: Path) -> None:
    async with LoopbackServer() as gone:
        port = gone.port
    who = ["--jid", "alice@localhost", "--host", "127.0.0.1", "--port", str(port)]
    code, out, error = await ran(*CLI, "send", "bob@localhost", str(tmp_path), *who, home=tmp_path / "alice")
    assert (code, out) == (3, "")
    assert re.fullmatch("slixmpp-bt: cannot connect: Connect call failed .*\n", error)


@pytest.mark.parametrize(("how", "background"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
async def test_send_that_keeps_nothing_and_is_stopped_withdraws_the_offer_and_exits_130(
    how: signal.Signals, background: bool, server: LoopbackServer, tmp_path: Path
) -> None:
    line = [*send(server, "bob@localhost", make_file(tmp_path / "a.bin", 10)), "--no-keep"]
    process_ = running(*line, home=tmp_path / "alice", background=background)
    async with peer(server, "bob", tmp_path) as bob, process_ as process:
        offer = await bob.told("bt_offer")
        process.send_signal(how)
        code, _, error = await finish(process)
        assert await bob.told("bt_offer_end") is offer
    assert code == 130
    last = "slixmpp-bt: stopped. Nothing is kept: offers are withdrawn, what arrived only in part is deleted\n"
    assert error.endswith(last)
    assert "Traceback" not in error


async def test_device_that_sends_is_not_sent_anything(server: LoopbackServer, tmp_path: Path) -> None:
    line = send(server, "bob@localhost", make_file(tmp_path / "a.bin", 10))
    async with peer(server, "bob", tmp_path) as bob, running(*line, home=tmp_path / "alice") as process:
        offer = await bob.told("bt_offer")
        with pytest.raises(NotSupported):
            await bob.bt.send_file("alice@localhost", make_file(tmp_path / "b.bin", 10))
        async with peer(server, "alice", tmp_path, auto_accept=True) as other:
            sending = await bob.bt.send_file("alice@localhost", make_file(tmp_path / "b.bin", 10))
            await sending.wait()
            assert sending.peer == other.xmpp.boundjid
        await offer.decline()
        assert (await finish(process))[0] == 1


async def offered(bob: Peer, how: signal.Signals, line: list[str], home: Path) -> tuple[IncomingOffer, str]:
    """Run a sender and stop it as soon as bob has the offer; the offer, and what the sender has said."""
    async with running(*line, home=home) as process:
        offer: IncomingOffer = await bob.told("bt_offer")
        await until(lambda: is_kept(offer))
        code, _, error = await stop(process, how)
    assert code == (130 if how is not signal.SIGKILL else -how)
    return offer, error


def is_kept(offer: IncomingOffer) -> bool:
    """Whether what the offer offers is in the sender's state: it is written while the offer is under way."""
    directory, info = Config().state_dir, offer.message.info
    assert directory is not None
    assert info is not None
    (log,) = directory.glob("*.send.*.db-wal")
    return info in log.read_bytes()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
async def test_send_that_was_stopped_and_is_called_again_serves_the_same_transfer(
    how: signal.Signals, server: LoopbackServer, tmp_path: Path
) -> None:
    file = make_file(tmp_path / "a.bin", 6_000_000)
    line = send(server, "bob@localhost", file)
    async with peer(server, "bob", tmp_path, auto_accept=True, download_limit=300_000) as bob:
        async with running(*line, home=tmp_path / "alice") as process:
            transfer = await bob.told("bt_transfer_start")
            await moving(transfer)
            code, _, error = await stop(process, how)
        assert not transfer.ended
        if how is not signal.SIGKILL:
            assert code == 130
            line = to_go_on(error, kept="a.bin to bob@localhost, [0-9]+ %")
        async with running(*line, home=tmp_path / "alice") as process:
            await error_until(process, "going on with the kept offer of a.bin to bob@localhost\n")
            bob.bt.configure(download_limit=None)
            code, _, error = await finish(process)
        assert await bob.told("bt_transfer_end") is transfer
        assert bob.bt.offers == ()
    assert code == 0, error
    assert digest(transfer.path) == digest(file)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_send_of_a_directory_that_nobody_has_answered_yet_goes_on_with_the_same_offer(
    how: signal.Signals, server: LoopbackServer, tmp_path: Path
) -> None:
    folder = tmp_path / "a  'b\n\\"
    make_file(folder / "c.bin", 100_000)
    line = send(server, "bob@localhost", folder)
    async with peer(server, "bob", tmp_path) as bob:
        offer, error = await offered(bob, how, line, tmp_path / "alice")
        if how is not signal.SIGKILL:
            line = to_go_on(error, kept="offer of a 'b \\\\ to bob@localhost")
        async with running(*line, home=tmp_path / "alice") as process:
            await error_until(process, "going on with the kept offer of a 'b \\ to bob@localhost\n")
            arrived = await (await offer.accept()).wait()
            code, _, error = await finish(process)
        assert bob.bt.offers == ()
    assert code == 0, error
    assert digest(arrived) == digest(folder)


async def test_send_of_what_was_changed_since_is_a_new_offer(server: LoopbackServer, tmp_path: Path) -> None:
    line = send(server, "bob@localhost", make_file(tmp_path / "a.bin", 100_000))
    async with peer(server, "bob", tmp_path) as bob:
        first, _ = await offered(bob, signal.SIGINT, line, tmp_path / "alice")
        file = make_file(tmp_path / "a.bin", 100_001)
        async with running(*line, home=tmp_path / "alice") as process:
            second: IncomingOffer = await bob.told("bt_offer")
            assert await bob.told("bt_offer_end") is first
            arrived = await (await second.accept()).wait()
            code, _, error = await finish(process)
    assert code == 0
    words = (
        "the kept offer of a.bin to bob@localhost has ended: a.bin: changed after it was offered; it is offered anew\n"
    )
    assert words in error
    assert digest(arrived) == digest(file)


async def test_send_of_what_the_receiver_has_cancelled_since_is_a_new_offer(
    server: LoopbackServer, tmp_path: Path
) -> None:
    line = send(server, "bob@localhost", make_file(tmp_path / "a.bin", 10_000_000))
    async with peer(server, "bob", tmp_path, auto_accept=True, download_limit=300_000) as bob:
        async with running(*line, home=tmp_path / "alice") as process:
            first: Transfer = await bob.told("bt_transfer_start")
            await moving(first)
            await stop(process)
        await first.cancel("not now")
        bob.bt.configure(download_limit=None)
        code, _, error = await ran(*line, home=tmp_path / "alice")
        assert await bob.told("bt_transfer_end") is first
        second: Transfer = await bob.told("bt_transfer_end")
    assert code == 0, error
    assert "the kept offer of a.bin to bob@localhost has ended: not now; it is offered anew\n" in error
    assert second.complete


async def test_send_of_what_has_expired_since_is_a_new_offer(server: LoopbackServer, tmp_path: Path) -> None:
    line = send(server, "bob@localhost", make_file(tmp_path / "a.bin", 10))
    async with peer(server, "bob", tmp_path) as bob:
        first, _ = await offered(bob, signal.SIGINT, [*line, "--expires", "2s"], tmp_path / "alice")
        await until(lambda: first.expires < datetime.now(UTC))
        async with running(*line, home=tmp_path / "alice") as process:
            second: IncomingOffer = await bob.told("bt_offer")
            await second.decline("no more")
            code, _, error = await finish(process)
    assert code == 1
    assert "the kept offer of a.bin to bob@localhost has ended: " in error
    assert "slixmpp-bt: a.bin: no more\n" in error


async def test_send_of_what_the_receiver_declines_at_last_is_not_offered_anew(
    server: LoopbackServer, tmp_path: Path
) -> None:
    line = send(server, "bob@localhost", make_file(tmp_path / "a.bin", 10))
    async with peer(server, "bob", tmp_path) as bob:
        offer, _ = await offered(bob, signal.SIGINT, line, tmp_path / "alice")
        async with running(*line, home=tmp_path / "alice") as process:
            await error_until(process, "going on with the kept offer of a.bin to bob@localhost\n")
            await offer.decline("never")
            code, _, error = await finish(process)
    assert (code, error) == (1, "slixmpp-bt: a.bin: never\n")


async def test_send_of_what_was_offered_to_a_device_that_is_gone_goes_to_another(
    server: LoopbackServer, tmp_path: Path
) -> None:
    file = make_file(tmp_path / "a.bin", 10)
    line = send(server, "bob@localhost", file)
    async with peer(server, "bob", tmp_path) as bob:
        await offered(bob, signal.SIGINT, line, tmp_path / "alice")
        await bob.xmpp.disconnect()
    async with peer(server, "bob", tmp_path, device="other", auto_accept=True) as bob:
        code, _, error = await ran(*line, home=tmp_path / "alice")
        arrived = await bob.told("bt_transfer_end")
    assert code == 0
    assert "has ended: bob@localhost/peer, which it was made to, is not there; it is offered anew\n" in error
    assert digest(arrived.path) == digest(file)


async def test_send_of_many_that_is_stopped_names_those_whose_turn_had_not_come(
    server: LoopbackServer, tmp_path: Path
) -> None:
    files = [make_file(tmp_path / f"{number}.bin", 10) for number in range(10)]
    line = send(server, "bob@localhost", *files)
    async with peer(server, "bob", tmp_path) as bob, running(*line, home=tmp_path / "alice") as process:
        for _ in range(8):
            await bob.told("bt_offer")
        _, _, error = await stop(process)
    assert error.startswith("not offered yet: 8.bin, 9.bin; to go on: the same command again\n")
    assert error.count("kept: offer of ") == 8


async def test_send_of_something_else_serves_what_is_kept_but_does_not_wait_for_it(
    server: LoopbackServer, tmp_path: Path
) -> None:
    names = ("served.bin", "unwanted.bin", "asked.bin")
    files = [make_file(tmp_path / name, 100_000, seed) for seed, name in enumerate(names)]
    async with peer(server, "bob", tmp_path) as bob:
        async with running(*send(server, "bob@localhost", *files[:2]), home=tmp_path / "alice") as process:
            kept = [await bob.told("bt_offer"), await bob.told("bt_offer")]
            await stop(process)
        async with running(*send(server, "bob@localhost", files[2]), home=tmp_path / "alice") as process:
            await error_until(process, "meanwhile 2 kept offers are served as well\n")
            asked: IncomingOffer = await bob.told("bt_offer")
            (served,) = (offer for offer in kept if offer.name == "served.bin")
            assert digest(await (await served.accept()).wait()) == digest(files[0])
            assert digest(await (await asked.accept()).wait()) == digest(files[2])
            code, _, error = await finish(process)
    assert code == 0
    line = to_go_on(error, kept="offer of unwanted.bin to bob@localhost")
    assert line[:5] == [*CLI, "send", "bob@localhost", str(files[1])]


async def test_send_to_host_without_an_address_names_the_host(tmp_path: Path) -> None:
    who = ["--jid", "alice@example.org", "--host", "nowhere.invalid"]
    code, _, error = await ran(*CLI, "send", "bob@example.org", str(tmp_path), *who, home=tmp_path / "alice")
    assert code == 3
    assert error == "slixmpp-bt: cannot connect: there is no address for the name nowhere.invalid\n"


async def test_send_whose_connection_is_lost_logs_in_again_and_finishes(server: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 100_000)
    line = send(server, "bob@localhost", file)
    async with peer(server, "bob", tmp_path) as bob, running(*line, home=tmp_path / "alice") as process:
        offer: IncomingOffer = await bob.told("bt_offer")
        gone = asyncio.Event()
        bob.xmpp.add_event_handler("presence_unavailable", lambda _: gone.set())
        server.kick(offer.peer.full)
        await gone.wait()
        await server.wait_available("alice")
        transfer = await offer.accept()
        assert digest(await transfer.wait()) == digest(file)
        code, _, error = await finish(process)
    assert code == 0, error


async def test_send_that_is_stopped_while_the_server_is_away_exits_130(server: LoopbackServer, tmp_path: Path) -> None:
    line = send(server, "bob@localhost", make_file(tmp_path / "a.bin", 10))
    async with peer(server, "bob", tmp_path) as bob, running(*line, home=tmp_path / "alice") as process:
        await bob.told("bt_offer")
        await server.stop()
        process.send_signal(signal.SIGINT)
        code, _, error = await finish(process)
    assert code == 130
    assert "Traceback" not in error
