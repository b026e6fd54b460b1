import pytest
from bot import EchoFileBot

import slixmpp_bt
from slixmpp_bt.testing import LoopbackServer, carries

HERE = {"listen": "127.0.0.1", "state_dir": None}


@pytest.fixture
async def server():
    async with LoopbackServer(users={"bot": "x", "juliet": "x"}) as server:
        yield server


@pytest.fixture
async def juliet(server, tmp_path, monkeypatch):
    """Logged in beside the bot, and a letter to send."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "letter.txt").write_text("O Romeo, Romeo!")
    bot = server.client("bot/1", EchoFileBot, friends=["juliet@localhost"], **HERE)
    juliet = server.client("juliet/balcony")
    juliet.register_plugin("xep_bt", {"download_dir": "back", "auto_accept": ["bot@localhost"], **HERE})
    for client in (bot, juliet):
        await server.connect(client)
    yield juliet
    for client in (bot, juliet):
        await slixmpp_bt.get_plugin(client).aclose()


async def test_letter_arrives(juliet, tmp_path):
    transfer = await slixmpp_bt.get_plugin(juliet).send_file("bot@localhost/1", "letter.txt")
    await transfer.wait()
    assert (tmp_path / "inbox" / "letter.txt").read_text() == "O Romeo, Romeo!"


async def test_letter_arrives_once_though_all_is_said_twice(server, juliet, tmp_path):
    twice = server.faults.duplicate(carries("https://slixmpp-bt.readthedocs.io/protocol/0"), count=None)
    transfer = await slixmpp_bt.get_plugin(juliet).send_file("bot@localhost/1", "letter.txt")
    await transfer.wait()
    assert twice.hits > 0
    assert [path.name for path in (tmp_path / "inbox").iterdir()] == ["letter.txt"]
