"""slixmpp-bt demo, as a process with a command line."""

from __future__ import annotations

import io
import re
import signal
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from slixmpp_bt import Transfer, get_plugin
from slixmpp_bt.cli import main
from slixmpp_bt.cli.bars import Bars
from slixmpp_bt.cli.demo import EchoFileBot, play, stage

from .commands import CLI, finish, ran, running
from .world import digest, make_file


@pytest.mark.matrix
async def test_demo_with_file_echoes_it_and_counts_what_travelled(tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 300_000)
    picture = tmp_path / "demo.svg"
    code, out, error = await ran(*CLI, "demo", str(file), "--svg", str(picture), home=tmp_path / "home")
    assert (code, error) == (0, "")
    assert "the echo is equal" in out
    assert digest(file)[""] in out
    assert re.search(r"file, by swarm +300,000 +300,000\n", out)
    found = re.search(r"XMPP, for the two transfers +([\d,]+) in \d+ stanzas +([\d,]+) in \d+ stanzas\n", out)
    assert found is not None
    assert all(0 < int(number.replace(",", "")) < 10_000 for number in found.groups())
    assert_is_picture(picture.read_text())


def assert_is_picture(svg: str) -> None:
    """It is XML, shows the last screen, and fetches nothing."""
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "the\xa0echo\xa0is\xa0equal" in "".join(root.itertext())
    assert not re.search(r"url\([^#)]|href|@import", svg)


async def test_demo_without_file_sends_64_mib(tmp_path: Path) -> None:
    code, out, error = await ran(*CLI, "demo", home=tmp_path / "home")
    assert (code, error) == (0, "")
    assert re.search(r"file, by swarm +67,108,864 +67,108,864\n", out)


async def test_demo_with_empty_file_echoes_it(tmp_path: Path) -> None:
    code, out, error = await ran(*CLI, "demo", str(make_file(tmp_path / "empty", 0)), home=tmp_path / "home")
    assert (code, error) == (0, "")
    assert "the echo is equal" in out


async def test_demo_that_is_stopped_in_the_background_leaves_nothing_and_exits_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    file = tmp_path / "large"
    with file.open("wb") as sparse:
        sparse.truncate(4 * 1024**3)
    async with running(*CLI, "demo", str(file), home=tmp_path / "home", background=True) as process:
        assert process.stdout is not None
        await process.stdout.readuntil(b"sends it large.\n")
        process.send_signal(signal.SIGTERM)
        code, _, error = await finish(process)
    assert code == 130
    assert "Traceback" not in error
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"), [("none", "No such file"), (".", "is a directory; the demo sends one file")]
)
def test_demo_with_what_is_no_file_exits_2(
    name: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", str(tmp_path / name)]) == 2
    assert words in capsys.readouterr().err


async def test_demo_whose_picture_cannot_be_written_exits_2(tmp_path: Path) -> None:
    line = [*CLI, "demo", str(make_file(tmp_path / "a.bin", 10)), "--svg", str(tmp_path)]
    code, _, error = await ran(*line, home=tmp_path / "home")
    assert (code, error) == (2, f"slixmpp-bt: {tmp_path} cannot be written: Is a directory\n")


class Forger(EchoFileBot):
    """Sends something else of the same size and name back."""

    async def echo(self, transfer: Transfer) -> None:
        if transfer.incoming and transfer.path is not None:
            other = make_file(transfer.path.parent / "other" / transfer.name, transfer.size, seed=2)
            await get_plugin(self).send_file(transfer.peer, other)


@pytest.mark.parametrize(("bot", "code"), [(EchoFileBot, 0), (Forger, 1)])
async def test_demo_with_another_echo_exits_1(bot: type[EchoFileBot], code: int, tmp_path: Path) -> None:
    file = make_file(tmp_path / "a.bin", 50_000)
    async with stage(tmp_path, 50_000, bot) as (_, alice, echo):
        with Bars(Console(file=io.StringIO())) as bars:
            outcome = await play(alice, echo, file, bars)
    assert outcome.code == code
