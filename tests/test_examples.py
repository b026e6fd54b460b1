"""Every example really transfers: its class against clients of ours, and as a program with its command line."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import slixmpp

from examples.approve_in_chat import ApprovalBot
from examples.component_bot import ComponentBot
from examples.dataset_mirror import Mirror, Publisher
from examples.echo_file_bot import EchoFileBot
from examples.receive_file import Receiver
from examples.room_drop import RoomDrop
from examples.send_file import Sender
from slixmpp_bt import Declined, IncomingOffer, PeerGone, State, Transfer, get_plugin
from slixmpp_bt.cli import demo
from slixmpp_bt.testing import LoopbackServer

from .commands import PASSWORD, PATIENCE, Peer, account, finish, friends, moving, peer, ran, running
from .world import LISTEN, digest, make_file, until

EXAMPLES = Path(__file__).parents[1] / "examples"
LOOPBACK: dict[str, Any] = {"listen": LISTEN, "state_dir": None}


@pytest.fixture
async def server() -> AsyncIterator[LoopbackServer]:
    async with friends() as server:
        yield server


@asynccontextmanager
async def online(server: LoopbackServer, xmpp: slixmpp.ClientXMPP) -> AsyncIterator[None]:
    """An example's client, connected, and its plugin closed in the end."""
    await server.connect(xmpp)
    await server.wait_available(xmpp.boundjid.full)
    try:
        yield
    finally:
        await get_plugin(xmpp).aclose()


def program(name: str, *arguments: str) -> list[str]:
    """The command line of an example."""
    return [str(EXAMPLES / f"{name}.py"), *arguments]


async def echo_of(path: Path, alice: Peer, to: str) -> Path:
    """What comes back when alice sends `path`, after both transfers have ended."""
    await alice.bt.send_file(to, path)
    transfers: list[Transfer] = [await alice.told("bt_transfer_end") for _ in range(2)]
    assert all(transfer.complete for transfer in transfers)
    [back] = [transfer.path for transfer in transfers if transfer.incoming]
    assert back is not None
    return back


# The echo bot, and the demo's little sister of it

Echo = Callable[[LoopbackServer, list[str], Path], slixmpp.ClientXMPP]


def example_bot(server: LoopbackServer, friends: list[str], inbox: Path) -> slixmpp.ClientXMPP:
    return server.client("bob/bot", EchoFileBot, friends=friends, inbox=inbox, **LOOPBACK)


def demo_bot(server: LoopbackServer, friends: list[str], inbox: Path) -> slixmpp.ClientXMPP:
    return server.client("bob/bot", demo.EchoFileBot, auto_accept=friends, download_dir=inbox, **LOOPBACK)


@pytest.fixture(params=[example_bot, demo_bot])
def echo(request: pytest.FixtureRequest) -> Echo:
    made: Echo = request.param
    return made


async def test_echo_file_bot_with_file_of_friend_sends_it_back(
    echo: Echo, server: LoopbackServer, tmp_path: Path
) -> None:
    file = make_file(tmp_path / "a.bin", 200_000)
    bot = echo(server, ["alice@localhost"], tmp_path / "bot")
    async with peer(server, "alice", tmp_path, auto_accept=["bob@localhost"]) as alice, online(server, bot):
        back = await echo_of(file, alice, "bob@localhost")
        assert digest(back) == digest(file)
        assert back.parent == alice.inbox
        assert alice.bt.transfers == ()


async def test_echo_file_bot_with_directory_of_friend_sends_it_back(
    echo: Echo, server: LoopbackServer, tmp_path: Path
) -> None:
    for index, name in enumerate(("one", "two/three")):
        make_file(tmp_path / "tree" / name, 30_000 * index + 1)
    bot = echo(server, ["alice@localhost"], tmp_path / "bot")
    async with peer(server, "alice", tmp_path, auto_accept=["bob@localhost"]) as alice, online(server, bot):
        assert digest(await echo_of(tmp_path / "tree", alice, "bob@localhost")) == digest(tmp_path / "tree")


async def test_echo_file_bot_with_file_of_stranger_does_not_take_it(
    echo: Echo, server: LoopbackServer, tmp_path: Path
) -> None:
    file = make_file(tmp_path / "a.bin", 100)
    bot = echo(server, ["alice@localhost"], tmp_path / "bot")
    offers: asyncio.Queue[IncomingOffer] = asyncio.Queue()
    bot.add_event_handler("bt_offer", offers.put_nowait)
    async with peer(server, "carol", tmp_path) as carol, online(server, bot):
        transfer = await carol.bt.send_file("bob@localhost", file)
        offer = await asyncio.wait_for(offers.get(), PATIENCE)
        assert offer.sender == slixmpp.JID("carol@localhost")
        assert transfer.state is State.OFFERED
    assert not (tmp_path / "bot").exists()


async def test_echo_file_bot_that_is_its_own_friend_does_not_echo_itself(
    server: LoopbackServer, tmp_path: Path
) -> None:
    file = make_file(tmp_path / "a.bin", 100)
    bot = example_bot(server, ["bob@localhost", "alice@localhost"], tmp_path / "bot")
    offers: asyncio.Queue[IncomingOffer] = asyncio.Queue()
    bot.add_event_handler("bt_offer", offers.put_nowait)
    async with peer(server, "bob", tmp_path) as other_device, online(server, bot):
        await other_device.bt.send_file(bot.boundjid, file)
        assert not (await asyncio.wait_for(offers.get(), PATIENCE)).answered


async def test_echo_file_bot_whose_echo_is_declined_goes_on(server: LoopbackServer, tmp_path: Path) -> None:
    first, second = (make_file(tmp_path / name, 100, seed) for seed, name in enumerate(("first", "second")))
    bot = example_bot(server, ["alice@localhost"], tmp_path / "bot")
    async with peer(server, "alice", tmp_path) as alice, online(server, bot):
        await alice.bt.send_file("bob@localhost", first)
        offer: IncomingOffer = await alice.told("bt_offer")
        await offer.decline()
        await alice.bt.send_file("bob@localhost", second)
        offer = await alice.told("bt_offer")
        assert digest(await (await offer.accept()).wait()) == digest(second)


async def test_echo_file_bot_as_program_sends_back_and_ends_by_ctrl_c(server: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 200_000)
    line = program("echo_file_bot", "--friend", "alice@localhost", *account(server, "bob"))
    async with (
        peer(server, "alice", tmp_path, auto_accept=["bob@localhost"]) as alice,
        running(*line, home=tmp_path / "bot") as bot,
    ):
        await server.wait_available("bob")
        assert digest(await echo_of(file, alice, "bob@localhost")) == digest(file)
        bot.send_signal(signal.SIGINT)
        code, _, error = await finish(bot)
    assert digest(tmp_path / "bot" / "inbox" / "a.bin") == digest(file)
    assert code == 0
    assert "Traceback" not in error


BOTS = {
    "echo_file_bot": ("--friend", "alice@localhost"),
    "approve_in_chat": ("--owner", "carol@localhost"),
}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", BOTS)
async def test_bot_as_program_that_is_stopped_goes_on_when_it_is_started_again(
    name: str, how: signal.Signals, server: LoopbackServer, tmp_path: Path
) -> None:
    file = make_file(tmp_path / "a.bin", 10_000_000)
    line = program(name, *BOTS[name], *account(server, "bob"))
    carol = server.client("carol/phone")
    carol.add_event_handler("session_start", lambda _: carol.send_presence())
    carol.add_event_handler("message", lambda m: m["body"].endswith("? yes/no") and m.reply("yes").send())
    await server.connect(carol)
    async with peer(server, "alice", tmp_path, upload_limit=100_000) as alice:
        async with running(*line, home=tmp_path / "bot") as bot:
            await server.wait_available("bob")
            transfer = await alice.bt.send_file("bob@localhost", file)
            await moving(transfer)
            bot.send_signal(how)
            code, _, error = await finish(bot)
        assert not transfer.ended
        alice.bt.configure(upload_limit=None)
        async with running(*line, home=tmp_path / "bot") as bot:
            await asyncio.wait_for(transfer.wait(), PATIENCE)
            bot.send_signal(how)
            await finish(bot)
    assert code == 0
    assert "Traceback" not in error
    assert digest(tmp_path / "bot" / "inbox" / "a.bin") == digest(file)


async def test_echo_file_bot_as_program_that_is_stopped_before_the_login_ends(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        where = ["--host", "127.0.0.1", "--port", str(silent.getsockname()[1])]
        line = program("echo_file_bot", "--jid", "bob@localhost", "--friend", "alice@localhost", *where)
        async with running(*line, home=tmp_path / "bot") as bot:
            connection, _ = await asyncio.get_running_loop().sock_accept(silent)
            with connection:
                bot.send_signal(signal.SIGTERM)
                code, _, error = await finish(bot)
    assert code == 0
    assert "Traceback" not in error


# Sending and receiving one file


async def test_send_file_to_receive_file_ends_with_both_paths(server: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a [b].bin", 200_000)
    receiver = server.client("bob/1", Receiver, sender="alice@localhost", inbox=tmp_path / "in", **LOOPBACK)
    async with online(server, receiver):
        sender = server.client("alice/1", Sender, to="bob@localhost", path=file, **LOOPBACK)
        async with online(server, sender), asyncio.timeout(PATIENCE):
            assert await sender.outcome == file
            assert digest(await receiver.outcome) == digest(file)


async def test_send_file_that_is_declined_ends_with_the_error(server: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 10)
    sender = server.client("alice/1", Sender, to="bob@localhost", path=file, **LOOPBACK)
    async with peer(server, "bob", tmp_path) as bob, online(server, sender):
        await (await bob.told("bt_offer")).decline("no, thank you")
        with pytest.raises(Declined, match="no, thank you"):
            await asyncio.wait_for(sender.outcome, PATIENCE)


async def test_send_file_and_receive_file_as_programs_transfer_the_file(server: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 200_000)
    receiver = program("receive_file", "--from", "alice@localhost", *account(server, "bob"))
    sender = program("send_file", "bob@localhost", str(file), *account(server, "alice"))
    async with running(*receiver, home=tmp_path / "bob") as receiving:
        await server.wait_available("bob")
        code, out, error = await ran(*sender, home=tmp_path / "alice")
        assert code == 0, error
        assert f"bob@localhost has {file}\n" in out
        code, out, error = await finish(receiving)
    assert code == 0, error
    path = tmp_path / "bob" / "inbox" / "a.bin"
    assert out.endswith(f"\n{path}\n")
    assert digest(path) == digest(file)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("send_file", ["bob@localhost", __file__], "not sent: the server refuses us\n"),
        ("receive_file", ["--from", "bob@localhost"], "not received: the server refuses us\n"),
    ],
)
async def test_program_with_wrong_password_says_so(
    name: str, arguments: list[str], words: str, server: LoopbackServer, tmp_path: Path
) -> None:
    line = program(name, *arguments, *account(server, "alice"))
    code, _, error = await ran(*line, home=tmp_path / "home", password="wrong")
    assert code == 1
    assert error.endswith(words)
    assert "Traceback" not in error


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_receive_file_as_program_that_is_stopped_says_so(
    how: signal.Signals, server: LoopbackServer, tmp_path: Path
) -> None:
    file = make_file(tmp_path / "a.bin", 10_000_000)
    receiver = program("receive_file", "--from", "alice@localhost", *account(server, "bob"))
    async with peer(server, "alice", tmp_path, upload_limit=100_000) as alice:
        async with running(*receiver, home=tmp_path / "bob") as process:
            await server.wait_available("bob")
            transfer = await alice.bt.send_file("bob@localhost", file)
            await moving(transfer)
            process.send_signal(how)
            code, _, error = await finish(process)
        await alice.told("bt_transfer_end")
        assert transfer.state is State.CANCELLED
    assert (code, error) == (1, "not received: stopped\n")
    assert list((tmp_path / "bob" / "inbox").iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_send_file_as_program_that_is_stopped_withdraws_and_says_so(
    how: signal.Signals, server: LoopbackServer, tmp_path: Path
) -> None:
    sender = program("send_file", "bob@localhost", str(make_file(tmp_path / "a", 10)), *account(server, "alice"))
    async with peer(server, "bob", tmp_path) as bob, running(*sender, home=tmp_path / "alice") as process:
        offer = await bob.told("bt_offer")
        process.send_signal(how)
        code, _, error = await finish(process)
        assert await bob.told("bt_offer_end") is offer
    assert (code, error) == (1, "not sent: stopped\n")


# Approval in a chat


class Owner:
    """Who decides, at an ordinary client."""

    def __init__(self, xmpp: slixmpp.ClientXMPP) -> None:
        self.xmpp = xmpp
        self._heard: asyncio.Queue[str] = asyncio.Queue()
        xmpp.add_event_handler("message", lambda message: self._heard.put_nowait(message["body"]))

    async def hears(self) -> str:
        return await asyncio.wait_for(self._heard.get(), PATIENCE)

    def says(self, text: str) -> None:
        self.xmpp.send_message(slixmpp.JID("bob@localhost"), text)


@asynccontextmanager
async def chat(server: LoopbackServer, home: Path, **options: Any) -> AsyncIterator[tuple[Owner, Peer, ApprovalBot]]:
    """The owner alice, carol who offers files, and the bot, bob."""
    bot = server.client("bob/bot", ApprovalBot, owner="alice@localhost", inbox=home / "in", **options, **LOOPBACK)
    alice = server.client("alice/phone")
    alice.add_event_handler("session_start", lambda _: alice.send_presence())
    await server.connect(alice)
    await server.wait_available("alice/phone")
    async with peer(server, "carol", home) as carol, online(server, bot):
        yield Owner(alice), carol, bot


async def test_approve_in_chat_with_yes_fetches_the_file(server: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 100_000)
    async with chat(server, tmp_path) as (owner, carol, bot):
        transfer = await carol.bt.send_file(bot.boundjid, file, desc="click http://example.org/")
        assert await owner.hears() == "#1: accept a.bin (100,000 bytes) from carol@localhost? yes/no"
        owner.says(" Yes ")
        assert await owner.hears() == f"a.bin: {tmp_path}/in/a.bin"
        assert digest(tmp_path / "in" / "a.bin") == digest(file)
        assert await transfer.wait() == file


async def test_approve_in_chat_with_several_offers_decides_by_number(server: LoopbackServer, tmp_path: Path) -> None:
    files = [make_file(tmp_path / name, 100) for name in ("one", "two")]
    async with chat(server, tmp_path) as (owner, carol, bot):
        transfers = []
        for file in files:
            transfers.append(await carol.bt.send_file(bot.boundjid, file))
            await owner.hears()
        owner.says("yes")
        assert await owner.hears() == "which one? #1, #2"
        owner.says("no 1")
        with pytest.raises(Declined):
            await transfers[0].wait()
        owner.says("yes 1")
        assert await owner.hears() == "which one? #2"
        owner.says("yes #2")
        assert await owner.hears() == f"two: {tmp_path}/in/two"
        assert await transfers[1].wait() == files[1]


async def test_approve_in_chat_listens_to_the_owner_only(server: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 100)
    async with chat(server, tmp_path) as (owner, carol, bot):
        transfer = await carol.bt.send_file(bot.boundjid, file)
        await owner.hears()
        carol.xmpp.send_message(bot.boundjid, "yes 1")
        owner.says("how are you?")
        # The server keeps order for each sender only, so carol's word is made certain by an answer to it.
        await get_plugin(carol.xmpp).supports(bot.boundjid)
        assert transfer.state is State.OFFERED
        owner.says("no")
        with pytest.raises(Declined):
            await transfer.wait()


async def test_approve_in_chat_without_answer_declines(server: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 100)
    async with chat(server, tmp_path, patience=0.05) as (owner, carol, bot):
        transfer = await carol.bt.send_file(bot.boundjid, file)
        await owner.hears()
        assert await owner.hears() == "#1: declined, since there was no answer"
        with pytest.raises(Declined, match="nobody answered"):
            await transfer.wait()
        owner.says("yes 1")
        assert await owner.hears() == "which one? there is none"


async def test_approve_in_chat_of_withdrawn_offer_says_that_it_is_over(server: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 100)
    async with chat(server, tmp_path) as (owner, carol, bot):
        transfer = await carol.bt.send_file(bot.boundjid, file)
        await owner.hears()
        over: asyncio.Future[IncomingOffer] = asyncio.get_running_loop().create_future()
        bot.add_event_handler("bt_offer_end", over.set_result)
        await transfer.cancel()
        await asyncio.wait_for(over, PATIENCE)
        owner.says("yes")
        assert await owner.hears() == "#1: the offer of 'a.bin' is over"


@pytest.mark.matrix
async def test_approve_in_chat_as_program_asks_and_fetches(server: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 100_000)
    line = program("approve_in_chat", "--owner", "alice@localhost", *account(server, "bob"))
    alice = server.client("alice/phone")
    alice.add_event_handler("session_start", lambda _: alice.send_presence())
    owner = Owner(alice)
    await server.connect(alice)
    async with peer(server, "carol", tmp_path) as carol, running(*line, home=tmp_path / "bot") as bot:
        await server.wait_available("bob")
        transfer = await carol.bt.send_file("bob@localhost", file)
        assert await owner.hears() == "#1: accept a.bin (100,000 bytes) from carol@localhost? yes/no"
        owner.says("yes")
        assert await owner.hears() == f"a.bin: {tmp_path}/bot/inbox/a.bin"
        assert await transfer.wait() == file
        bot.send_signal(signal.SIGINT)
        code, _, error = await finish(bot)
    assert code == 0
    assert "Traceback" not in error


# The data set and its mirror


async def arrived(*paths: Path) -> None:
    """Wait until all these are there."""
    async with asyncio.timeout(PATIENCE):
        while not all(path.exists() for path in paths):
            await asyncio.sleep(0.02)


async def test_dataset_mirror_follows_the_folder(server: LoopbackServer, tmp_path: Path) -> None:
    folder, copies = tmp_path / "data", tmp_path / "copies"
    make_file(folder / "first", 100_000)
    make_file(folder / "day" / "noon", 1_000)
    publisher = server.client("alice/data", Publisher, folder=folder, every=0.1, **LOOPBACK)
    mirror = server.client("bob/copy", Mirror, publisher="alice@localhost", inbox=copies, **LOOPBACK)
    async with online(server, mirror), online(server, publisher):
        await arrived(copies / "first", copies / "day" / "noon")
        make_file(folder / "second", 100_000, 2)
        await arrived(copies / "second")
        make_file(folder / "first", 100_000, 3)  # an offer is for what was there, so this is a new one
        await arrived(copies / "first (1)")
        (folder / "second").unlink()
        async with asyncio.timeout(PATIENCE):
            while {offer.name for offer in publisher.bt.offers} != {"first", "day"}:
                await asyncio.sleep(0.02)
        await publisher.close()
    assert digest(copies / "first (1)") == digest(folder / "first")
    assert digest(copies / "day") == digest(folder / "day")


async def test_dataset_mirror_leaves_out_what_cannot_be_published(
    server: LoopbackServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, copies = tmp_path / "data", tmp_path / "copies"
    make_file(folder / "inside" / "file", 1_000)
    for link in (folder / "a link", folder / "inside" / "link"):
        link.symlink_to("/etc/passwd")
    publisher = server.client("alice/data", Publisher, folder=folder, every=0.05, **LOOPBACK)
    mirror = server.client("bob/copy", Mirror, publisher="alice@localhost", inbox=copies, **LOOPBACK)
    async with online(server, mirror), online(server, publisher):
        said = ""
        async with asyncio.timeout(PATIENCE):
            while not ("a link is left out" in said and "inside is left out" in said):
                await asyncio.sleep(0.05)
                said += capsys.readouterr().out
        make_file(folder / "later", 1_000)
        await arrived(copies / "later")
        (folder / "inside" / "link").unlink()
        await arrived(copies / "inside" / "file")
        await publisher.close()
    assert not publisher.outcome.done()
    assert (said + capsys.readouterr().out).count("left out") == 2
    assert {path.name for path in copies.iterdir()} == {"later", "inside"}


async def test_dataset_mirror_comes_back_when_the_server_does(server: LoopbackServer, tmp_path: Path) -> None:
    folder, copies = tmp_path / "data", tmp_path / "copies"
    make_file(folder / "first", 1_000)
    publisher = server.client("alice/data", Publisher, folder=folder, every=0.05, **LOOPBACK)
    mirror = server.client("bob/copy", Mirror, publisher="alice@localhost", inbox=copies, **LOOPBACK)
    async with online(server, mirror), online(server, publisher):
        await arrived(copies / "first")
        await server.stop()
        await server.start()
        make_file(folder / "second", 1_000)
        await arrived(copies / "second")
        await publisher.close()
        for one in (publisher, mirror):
            one.stop()


@pytest.mark.matrix
async def test_dataset_mirror_as_programs_goes_on_after_a_restart(server: LoopbackServer, tmp_path: Path) -> None:
    folder, copies = tmp_path / "data", tmp_path / "copies"
    file = make_file(folder / "first", 100_000)
    publish = program("dataset_mirror", *account(server, "alice"), "publish", str(folder), "--every", "0.2")
    mirror = program("dataset_mirror", *account(server, "bob"), "mirror", "alice@localhost", str(copies))
    async with running(*mirror, home=tmp_path / "bob") as copier:
        for name in ("first", "second"):
            make_file(folder / name, 100_000)
            async with running(*publish, home=tmp_path / "alice") as publisher:
                await arrived(copies / name)
                publisher.send_signal(signal.SIGTERM)
                code, _, error = await finish(publisher)
                assert (code, error) == (0, "")
        copier.send_signal(signal.SIGTERM)
        code, _, error = await finish(copier)
    assert (code, error) == (0, "")
    assert {path.name for path in copies.iterdir() if not path.name.startswith(".")} == {"first", "second"}
    assert digest(copies / "first") == digest(file)


# The component


@pytest.fixture
async def gateway() -> AsyncIterator[LoopbackServer]:
    """A server with alice and a place for a component."""
    users, components = {"alice": PASSWORD}, {"files.localhost": PASSWORD}
    async with LoopbackServer(users=users, components=components) as server:
        yield server


async def test_component_bot_with_file_of_friend_sends_it_back(gateway: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 200_000)
    bot = gateway.component(
        "files.localhost", ComponentBot, friends=["alice@localhost"], inbox=tmp_path / "bot", **LOOPBACK
    )
    async with peer(gateway, "alice", tmp_path, auto_accept=["echo@files.localhost"]) as alice:
        await gateway.connect(bot)
        assert digest(await echo_of(file, alice, "anybody@files.localhost")) == digest(file)
        await get_plugin(bot).aclose()


@pytest.mark.matrix
async def test_component_bot_as_program_sends_it_back(gateway: LoopbackServer, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 200_000)
    where = ["--host", gateway.host, "--port", str(gateway.component_port), "--listen", *LISTEN[:1]]
    line = program("component_bot", "--domain", "files.localhost", "--friend", "alice@localhost", *where)
    async with (
        peer(gateway, "alice", tmp_path, auto_accept=["echo@files.localhost"]) as alice,
        running(*line, home=tmp_path / "bot") as bot,
    ):
        while await alice.bt.supports("files.localhost") is None:
            await asyncio.sleep(0.05)
        assert digest(await echo_of(file, alice, "echo@files.localhost")) == digest(file)
        bot.send_signal(signal.SIGINT)
        code, _, error = await finish(bot)
    assert code == 0
    assert "Traceback" not in error


# Into a room


@asynccontextmanager
async def occupant(server: LoopbackServer, name: str, room: str, home: Path) -> AsyncIterator[Peer]:
    """Somebody in a room who takes what is offered there."""
    async with peer(server, name, home, auto_accept=True) as one:
        one.xmpp.register_plugin("xep_0045")
        await one.xmpp.plugin["xep_0045"].join_muc_wait(slixmpp.JID(room), f"{name} ☃", timeout=PATIENCE)
        yield one


async def test_room_drop_as_program_serves_all_and_says_who(server: LoopbackServer, tmp_path: Path) -> None:
    file, room = make_file(tmp_path / "a.bin", 200_000), server.create_room("den")
    line = program("room_drop", room, str(file), *account(server, "alice"))
    async with occupant(server, "bob", room, tmp_path) as bob, running(*line, home=tmp_path / "bot") as process:
        one: Transfer = await bob.told("bt_transfer_end")
        async with occupant(server, "carol", room, tmp_path) as carol:  # who comes late
            other: Transfer = await carol.told("bt_transfer_end")
            assert [digest(path) for transfer in (one, other) if (path := transfer.path)] == [digest(file)] * 2
            await until(lambda: not any(each.bt._context.outbox.waiting for each in (bob, carol)))  # it knows
            process.send_signal(signal.SIGTERM)
            code, out, error = await finish(process)
    assert (code, error) == (0, "")
    assert out.endswith("2 got it: bob ☃, carol ☃\n")


async def test_room_drop_that_is_not_let_in_says_so(server: LoopbackServer, tmp_path: Path) -> None:
    room = server.create_room("den", password="sesame")
    file = make_file(tmp_path / "a.bin", 10)
    code, _, error = await ran(*program("room_drop", room, str(file), *account(server, "alice")), home=tmp_path / "bot")
    assert (code, error) == (1, "not offered: the room does not let us in: not-authorized\n")


async def test_room_drop_without_voice_says_so(server: LoopbackServer, tmp_path: Path) -> None:
    bot = server.client(
        "alice/1", RoomDrop, room=server.create_room("den", moderated=True), nick="bot",
        path=make_file(tmp_path / "a.bin", 10), **LOOPBACK,
    )  # fmt: skip
    async with online(server, bot):
        with pytest.raises(PeerGone, match="den@"):
            await asyncio.wait_for(bot.outcome, PATIENCE)
