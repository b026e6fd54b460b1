"""slixmpp-bt receive, as a process with a command line."""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from slixmpp_bt import OutgoingOffer, Route, State, Transfer
from slixmpp_bt.testing import LoopbackServer

from .commands import (
    CLI,
    PASSWORD,
    account,
    error_until,
    finish,
    friends,
    moving,
    peer,
    ran,
    running,
    stop,
    terminal,
    to_go_on,
)
from .world import digest, make_file


@pytest.fixture
async def server() -> AsyncIterator[LoopbackServer]:
    async with friends() as server:
        yield server


def receive(server: LoopbackServer, *options: str) -> list[str]:
    """The command line by which bob receives."""
    return [*CLI, "receive", *options, "--dir", "in", *account(server, "bob")]


@pytest.mark.matrix
async def test_receive_from_a_friend_prints_the_path_and_exits_0(server: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 100_000)
    line = receive(server, "--once", "--from", "alice@localhost")
    async with running(*line, home=tmp_path / "bob") as process:
        await server.wait_available("bob")
        sender = [*CLI, "send", "bob@localhost", str(file), *account(server, "alice")]
        assert (await ran(*sender, home=tmp_path / "alice"))[0] == 0
        code, out, error = await finish(process)
    assert code == 0, error
    assert out == f"{tmp_path}/bob/in/a.bin\n"
    assert digest(Path(out.strip())) == digest(file)
    assert "waiting for files as bob@localhost/" in error
    assert "a.bin from alice@localhost: 100.0 kB by swarm, complete\n" in error


async def test_receive_from_somebody_else_ignores_the_offer(server: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 10)
    line = receive(server, "--from", "alice@localhost")
    async with peer(server, "carol", tmp_path) as carol, running(*line, home=tmp_path / "bob") as process:
        await server.wait_available("bob")
        transfer = await carol.bt.send_file("bob@localhost", file)
        await error_until(process, "ignored: a.bin (10 bytes) from carol@localhost\n")
        process.send_signal(signal.SIGINT)
        assert (await finish(process))[0] == 130
        assert transfer.state is State.OFFERED
    assert not (tmp_path / "bob" / "in").exists()


async def test_receive_of_too_large_offer_declines_it(server: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 1001)
    line = receive(server, "--anybody", "--max-size", "1K")
    async with peer(server, "alice", tmp_path) as alice, running(*line, home=tmp_path / "bob"):
        await server.wait_available("bob")
        transfer = await alice.bt.send_file("bob@localhost", file)
        await alice.told("bt_transfer_end")
        assert transfer.state is State.DECLINED


async def test_receive_that_would_refuse_by_now_what_is_kept_leaves_it_and_says_so(
    server: LoopbackServer, tmp_path: Path
) -> None:
    file = make_file(tmp_path / "a.bin", 1_000_000)
    async with peer(server, "alice", tmp_path, upload_limit=50_000) as alice:
        async with running(*receive(server, "--anybody"), home=tmp_path / "bob") as process:
            await server.wait_available("bob")
            transfer = await alice.bt.send_file("bob@localhost", file)
            await alice.told("bt_transfer_start")
            await stop(process)
        async with running(*receive(server, "--anybody", "--max-size", "1K"), home=tmp_path / "bob") as process:
            words = "kept, but not gone on with: a.bin from alice@localhost: more than 1000 bytes\n"
            await error_until(process, words)
            await stop(process)
        assert not transfer.ended
        alice.bt.configure(upload_limit=None)
        code, out, _ = await ran(*receive(server, "--once", "--anybody"), home=tmp_path / "bob")
        await transfer.wait()
    assert (code, out) == (0, f"{tmp_path}/bob/in/a.bin\n")


async def test_receive_once_of_transfer_that_fails_exits_1(server: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 10_000_000)
    line = receive(server, "--once", "--anybody")
    async with (
        peer(server, "alice", tmp_path, upload_limit=100_000) as alice,
        running(*line, home=tmp_path / "bob") as process,
    ):
        await server.wait_available("bob")
        transfer = await alice.bt.send_file("bob@localhost", file)
        await moving(transfer)
        await transfer.cancel("changed my mind")
        code, out, error = await finish(process)
    assert (code, out) == (1, "")
    assert "slixmpp-bt: a.bin: changed my mind\n" in error
    assert list((tmp_path / "bob" / "in").iterdir()) == []


@pytest.mark.parametrize(("how", "background"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
async def test_receive_that_keeps_nothing_and_is_stopped_cancels_and_exits_130(
    how: signal.Signals, background: bool, server: LoopbackServer, tmp_path: Path
) -> None:
    file = make_file(tmp_path / "a.bin", 10_000_000)
    line = receive(server, "--anybody", "--no-keep")
    async with peer(server, "alice", tmp_path, upload_limit=100_000) as alice:
        async with running(*line, home=tmp_path / "bob", background=background) as process:
            await server.wait_available("bob")
            transfer = await alice.bt.send_file("bob@localhost", file)
            await alice.told("bt_transfer_start")
            assert len(list((tmp_path / "bob" / "in").iterdir())) == 1
            code, out, error = await stop(process, how)
        await alice.told("bt_transfer_end")
        assert transfer.state is State.CANCELLED
        assert str(transfer.error) == "the command was stopped"
    assert (code, out) == (130, "")
    assert "Traceback" not in error
    assert list((tmp_path / "bob" / "in").iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
async def test_receive_that_was_stopped_and_is_called_again_fetches_the_rest(
    how: signal.Signals, server: LoopbackServer, tmp_path: Path
) -> None:
    # In-band, since what is sent is counted exactly there, and at once.
    file = make_file(tmp_path / "a.bin", 1_500_000)
    line = receive(server, "--once", "--from", "alice@localhost", "--route", "in-band")
    async with peer(server, "alice", tmp_path, upload_limit=1_000_000) as alice:
        async with running(*line, home=tmp_path / "bob") as process:
            await server.wait_available("bob")
            transfer = await alice.bt.send_file("bob@localhost", file)
            await moving(transfer, 900_000)
            code, out, error = await stop(process, how)
        assert (out, transfer.ended) == ("", False)
        if how is not signal.SIGKILL:
            assert code == 130
            line = to_go_on(error, kept="a.bin from alice@localhost, [1-9][0-9] %")
        code, out, error = await ran(*line, home=tmp_path / "bob")
        await transfer.wait()
    assert (code, out) == (0, f"{tmp_path}/bob/in/a.bin\n")
    assert re.search("going on with a.bin from alice@localhost, [0-9]+ %\n", error)
    assert digest(Path(out.strip())) == digest(file)
    assert [path.name for path in (tmp_path / "bob" / "in").iterdir()] == ["a.bin"]
    if how is not signal.SIGKILL:  # which loses what came since the last checkpoint: up to some seconds
        # What one stream was bringing when it broke may come again: at most 256 KiB.
        assert 1_500_000 <= sent_in_band(transfer) < 1_900_000


def sent_in_band(transfer: Transfer) -> int:
    """Bytes sent to the receiver in all its lives."""
    assert isinstance(transfer.offer, OutgoingOffer)
    sending = transfer.offer.receivers.find(transfer.id)
    assert sending is not None
    return sending.serving.sent[Route.IN_BAND]


async def test_receive_that_accepted_on_a_terminal_goes_on_where_it_began_without_asking(
    server: LoopbackServer, tmp_path: Path
) -> None:
    files = [make_file(tmp_path / name, 1_000_000, seed) for seed, name in enumerate(("a.bin", "b.bin"))]
    with terminal() as keys:
        async with peer(server, "alice", tmp_path, upload_limit=50_000) as alice:
            async with running(*receive(server), home=tmp_path / "bob", stdin=keys.theirs) as process:
                await server.wait_available("bob")
                taken = await alice.bt.send_file("bob@localhost", files[0])
                await error_until(process, "[y/N] ")
                keys.type("y")
                await alice.told("bt_transfer_start")
                asked = await alice.bt.send_file("bob@localhost", files[1])
                await error_until(process, "Accept b.bin (1.0 MB) from alice@localhost? [y/N] ")
                code, out, error = await stop(process, signal.SIGTERM)
            assert (code, out) == (130, "")
            to_go_on(error, kept="a.bin from alice@localhost, [0-9]+ %")
            line = to_go_on(error, kept="offer of b.bin from alice@localhost, not answered")
            alice.bt.configure(upload_limit=None)
            async with running(*line, "--dir", "elsewhere", home=tmp_path / "bob", stdin=keys.theirs) as process:
                question = await error_until(process, "[y/N] ")
                assert question.endswith("Accept b.bin (1.0 MB) from alice@localhost? [y/N] ")
                assert "Accept a.bin" not in question
                keys.type("y")
                for transfer in (taken, asked):
                    await transfer.wait()
                _, out, _ = await stop(process)
    assert sorted(out.splitlines()) == [f"{tmp_path}/bob/elsewhere/b.bin", f"{tmp_path}/bob/in/a.bin"]
    assert digest(tmp_path / "bob" / "in" / "a.bin") == digest(files[0])


async def test_receive_beside_another_keeps_nothing_and_says_so(server: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 10_000_000)
    line = receive(server, "--anybody")
    async with (
        peer(server, "alice", tmp_path, upload_limit=100_000) as alice,
        running(*line, home=tmp_path / "bob") as first,
    ):
        assert (await error_until(first, "\n")).startswith("waiting for files as ")
        async with running(*line, home=tmp_path / "bob") as second:
            words = await error_until(second, "as bob@localhost/") + await error_until(second, "\n")
            assert words.startswith("slixmpp-bt: nothing is kept: another receive of bob@localhost is running\n")
            transfer = await alice.bt.send_file(f"bob@localhost/{words.rpartition('/')[2].strip()}", file)
            await alice.told("bt_transfer_start")
            code, _, error = await stop(second)
        await alice.told("bt_transfer_end")
        assert transfer.state is State.CANCELLED
        assert code == 130
        assert "slixmpp-bt: stopped. Nothing is kept: " in error
        assert await stop(first) == (130, "", "")


async def test_receive_at_a_terminal_asks_one_after_the_other(server: LoopbackServer, tmp_path: Path) -> None:
    wanted, unwanted = (make_file(tmp_path / name, 50_000) for name in ("wanted.bin", "unwanted.bin"))
    line = receive(server, "--once")
    with terminal() as keys:
        async with (
            peer(server, "alice", tmp_path) as alice,
            running(*line, home=tmp_path / "bob", stdin=keys.theirs) as process,
        ):
            await server.wait_available("bob")
            refused = await alice.bt.send_file("bob@localhost", unwanted, desc="please")
            asked = await error_until(process, "[y/N] ")
            assert asked.endswith('Accept unwanted.bin (50.0 kB) from alice@localhost, "please"? [y/N] ')
            taken = await alice.bt.send_file("bob@localhost", wanted)
            keys.type("")
            asked = await error_until(process, "[y/N] ")
            assert asked.endswith("Accept wanted.bin (50.0 kB) from alice@localhost? [y/N] ")
            keys.type("y")
            code, out, error = await finish(process)
            for _ in (refused, taken):
                await alice.told("bt_transfer_end")
    assert (refused.state, taken.state) == (State.DECLINED, State.COMPLETE)
    assert code == 0, error
    assert digest(Path(out.strip())) == digest(wanted)


async def test_receive_while_asking_notices_a_withdrawal(server: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 10)
    with terminal() as keys:
        async with (
            peer(server, "alice", tmp_path) as alice,
            running(*receive(server), home=tmp_path / "bob", stdin=keys.theirs) as process,
        ):
            await server.wait_available("bob")
            transfer = await alice.bt.send_file("bob@localhost", file)
            await error_until(process, "[y/N] ")
            await transfer.cancel()
            await error_until(process, "withdrawn: a.bin (10 bytes) from alice@localhost\n")
            process.send_signal(signal.SIGINT)
            assert (await finish(process))[0] == 130


async def test_receive_at_a_terminal_asks_for_the_password(server: LoopbackServer, tmp_path: Path) -> None:
    with terminal() as keys:
        line = receive(server)
        async with running(*line, home=tmp_path / "bob", password="", stdin=keys.theirs) as process:
            await error_until(process, "Password of bob@localhost: ")
            keys.type(PASSWORD)
            await server.wait_available("bob")
            process.send_signal(signal.SIGINT)
            assert (await finish(process))[0] == 130


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_receive_stopped_at_the_password_exits_130(
    how: signal.Signals, server: LoopbackServer, tmp_path: Path
) -> None:
    with terminal() as keys:
        line = receive(server)
        async with running(*line, home=tmp_path / "bob", password="", stdin=keys.theirs) as process:
            await error_until(process, "Password of bob@localhost: ")
            process.send_signal(how)
            assert (await finish(process))[0] == 130


async def test_receive_that_cannot_come_back_exits_3(server: LoopbackServer, tmp_path: Path) -> None:
    async with running(*receive(server, "--anybody"), home=tmp_path / "bob") as process:
        device = (await error_until(process, "\n")).split()[-1]
        server.add_user("bob", "another password")
        server.kick(device)
        code, _, error = await finish(process)
    assert code == 3
    assert error == "slixmpp-bt: cannot log in as bob@localhost: the server refuses the account or its password\n"
