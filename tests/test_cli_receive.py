"""slixmpp-bt receive, as a process with a command line."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from slixmpp_bt import State
from slixmpp_bt.testing import LoopbackServer

from .commands import CLI, PASSWORD, account, finish, friends, moving, peer, ran, running
from .world import digest, make_file


@pytest.fixture
async def server() -> AsyncIterator[LoopbackServer]:
    async with friends() as server:
        yield server


async def test_receive_from_a_friend_prints_the_path_and_exits_0(server: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 100_000)
    sender = ["send", "bob@localhost", str(file), *account(server, "alice")]
    receiver = ["receive", "--once", "--from", "alice@localhost", "--dir", "in", *account(server, "bob")]
    async with running(*CLI, *receiver, home=tmp_path / "bob") as receiving:
        await server.wait_available("bob")
        assert (await ran(*CLI, *sender, home=tmp_path / "alice"))[0] == 0
        code, out, error = await finish(receiving)
    assert code == 0, error
    assert out == f"{tmp_path}/bob/in/a.bin\n"
    assert digest(Path(out.strip())) == digest(file)
    assert "waiting for files as bob@localhost/" in error
    assert "a.bin from alice@localhost" in error


async def test_receive_from_somebody_else_ignores_the_offer(server: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 10)
    receiver = ["receive", "--from", "alice@localhost", "--dir", "in", *account(server, "bob")]
    async with peer(server, "carol", tmp_path) as carol, running(*CLI, *receiver, home=tmp_path / "bob") as receiving:
        await server.wait_available("bob")
        transfer = await carol.bt.send_file("bob@localhost", file)
        assert receiving.stderr is not None
        await receiving.stderr.readuntil(b"ignored: a.bin (10 bytes) from carol@localhost\n")
        receiving.send_signal(signal.SIGINT)
        assert (await finish(receiving))[0] == 130
        assert transfer.state is State.OFFERED
        assert not (tmp_path / "bob" / "in").exists()


async def test_receive_of_too_large_offer_declines_it(server: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 1001)
    receiver = ["receive", "--anybody", "--max-size", "1K", *account(server, "bob")]
    async with peer(server, "alice", tmp_path) as alice, running(*CLI, *receiver, home=tmp_path / "bob"):
        await server.wait_available("bob")
        transfer = await alice.bt.send_file("bob@localhost", file)
        await alice.told("bt_transfer_end")
        assert transfer.state is State.DECLINED
        assert "max_size is 1000" in str(transfer.error)


async def test_receive_once_of_transfer_that_fails_exits_1(server: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 10_000_000)
    receiver = ["receive", "--once", "--anybody", "--dir", "in", *account(server, "bob")]
    async with peer(server, "alice", tmp_path, upload_limit=100_000) as alice:
        async with running(*CLI, *receiver, home=tmp_path / "bob") as receiving:
            await server.wait_available("bob")
            transfer = await alice.bt.send_file("bob@localhost", file)
            await moving(transfer)
            await transfer.cancel("changed my mind")
            code, out, error = await finish(receiving)
    assert (code, out) == (1, "")
    assert "slixmpp-bt: a.bin: changed my mind\n" in error
    assert list((tmp_path / "bob" / "in").iterdir()) == []


async def test_receive_that_is_stopped_keeps_nothing_and_exits_130(server: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 10_000_000)
    receiver = ["receive", "--anybody", "--dir", "in", *account(server, "bob")]
    async with peer(server, "alice", tmp_path, upload_limit=100_000) as alice:
        async with running(*CLI, *receiver, home=tmp_path / "bob") as receiving:
            await server.wait_available("bob")
            transfer = await alice.bt.send_file("bob@localhost", file)
            await moving(transfer)
            receiving.send_signal(signal.SIGINT)
            code, out, error = await finish(receiving)
        await alice.told("bt_transfer_end")
        assert transfer.state is State.CANCELLED
        assert str(transfer.error) == "the command was stopped"
    assert (code, out) == (130, "")
    assert "Traceback" not in error
    assert list((tmp_path / "bob" / "in").iterdir()) == []


async def test_receive_at_a_terminal_asks_one_after_the_other(
    server: LoopbackServer, tmp_path: Path, terminal: Terminal
) -> None:
    wanted, unwanted = (make_file(tmp_path / name, 50_000) for name in ("wanted.bin", "unwanted.bin"))
    receiver = ["receive", "--once", "--dir", "in", *account(server, "bob")]
    async with peer(server, "alice", tmp_path) as alice:
        async with running(*CLI, *receiver, home=tmp_path / "bob", stdin=terminal.theirs) as receiving:
            assert receiving.stderr is not None
            await server.wait_available("bob")
            refused = await alice.bt.send_file("bob@localhost", unwanted, desc="please")
            asked = await receiving.stderr.readuntil(b"[y/N] ")
            assert b'Accept unwanted.bin (50.0 kB) from alice@localhost, "please"? [y/N] ' in asked
            taken = await alice.bt.send_file("bob@localhost", wanted)
            terminal.type("")
            await receiving.stderr.readuntil(b"Accept wanted.bin (50.0 kB) from alice@localhost? [y/N] ")
            terminal.type("y")
            code, out, error = await finish(receiving)
        await alice.told("bt_transfer_end")
        await alice.told("bt_transfer_end")
    assert (refused.state, taken.state) == (State.DECLINED, State.COMPLETE)
    assert code == 0, error
    assert digest(Path(out.strip())) == digest(wanted)


async def test_receive_at_a_terminal_while_asking_notices_a_withdrawal(
    server: LoopbackServer, tmp_path: Path, terminal: Terminal
) -> None:
    file = make_file(tmp_path / "a.bin", 10)
    async with peer(server, "alice", tmp_path) as alice:
        async with command(
            "receive", *account(server, "bob"), home=tmp_path / "bob", stdin=terminal.theirs
        ) as receiving:
            assert receiving.stderr is not None
            await server.wait_available("bob")
            transfer = await alice.bt.send_file("bob@localhost", file)
            await receiving.stderr.readuntil(b"[y/N] ")
            await transfer.cancel()
            await receiving.stderr.readuntil(b"withdrawn: a.bin (10 bytes) from alice@localhost\n")
            receiving.send_signal(signal.SIGINT)
            assert (await finish(receiving))[0] == 130


async def test_command_at_a_terminal_asks_for_the_password(
    server: LoopbackServer, tmp_path: Path, terminal: Terminal
) -> None:
    """getpass opens the controlling terminal; without one it uses the standard streams."""
    arguments = ["receive", *account(server, "bob")]
    async with running(*CLI, *arguments, home=tmp_path / "bob", password="", stdin=terminal.theirs) as receiving:
        assert receiving.stderr is not None
        await receiving.stderr.readuntil(b"Password of bob@localhost: ")
        terminal.type(PASSWORD)
        await server.wait_available("bob")
        receiving.send_signal(signal.SIGINT)
        assert (await finish(receiving))[0] == 130
