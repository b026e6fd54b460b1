"""README.rst says nothing that is not so: its bot runs, its commands are the ones that work."""

from __future__ import annotations

import re
import signal
import textwrap
import tomllib
from asyncio.subprocess import Process
from pathlib import Path
from xml.etree import ElementTree

import pytest

from slixmpp_bt.testing import LoopbackServer

from .commands import PASSWORD, finish, peer, running
from .world import digest, make_file

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.rst").read_text()


def snippets() -> list[str]:
    """The Python code blocks."""
    found = re.findall(r"^\.\. code-block:: python\n\n((?:    .*\n|\n)+)", README, re.MULTILINE)
    return [textwrap.dedent(block).strip() + "\n" for block in found]


def literal_after(words: str) -> str:
    """The one line of the literal block that follows `words`."""
    found = re.search(re.escape(words) + r"[^\n]*::\n\n    (\S.*)\n\n\S", README)
    assert found is not None
    return found[1]


@pytest.mark.matrix
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_readme_bot_run_as_a_program_sends_files_back_until_it_is_stopped(
    how: signal.Signals, tmp_path: Path
) -> None:
    [bot] = snippets()
    file = make_file(tmp_path / "a.bin", 100_000)
    users = {"echo": "password", "juliet": PASSWORD}
    async with LoopbackServer("example.org", users) as server:
        # What DNS and the system's certificates are to a reader, and an address that is only this machine's.
        here = f'ca_certs = "{server.ca_certs}"; bot.connect("{server.host}", {server.port})'
        program = bot.replace("bot.connect()", f"bot.{here}").replace('"inbox",', '"inbox", "listen": "127.0.0.1",')
        assert program.count("127.0.0.1") == 2
        (tmp_path / "bot.py").write_text(program)
        async with (
            peer(server, "juliet", tmp_path, auto_accept=["echo@example.org"]) as juliet,
            running(str(tmp_path / "bot.py"), home=tmp_path / "home") as process,
        ):
            await server.wait_available("echo")
            await juliet.bt.send_file("echo@example.org", file)
            transfers = [await juliet.told("bt_transfer_end") for _ in range(2)]
            [back] = [transfer.path for transfer in transfers if transfer.incoming]
            assert digest(back) == digest(file)
            await stops(process, how)


async def stops(process: Process, how: signal.Signals) -> None:
    """It ends by `how` in good order."""
    process.send_signal(how)
    code, _, error = await finish(process)
    assert (code, error) == (0, "")


def test_readme_has_one_command_for_the_demo_and_one_for_the_tests() -> None:
    environment = "python3 -m venv .venv && .venv/bin/pip install -U pip && .venv/bin/pip install -e '.[demo]'"
    assert literal_after("See it work") == f"{environment} && .venv/bin/slixmpp-bt demo"
    tests = literal_after(".. _run-the-tests:\n\nRun the tests")
    assert tests == f"{environment} --group tests && .venv/bin/pytest -n auto"


def test_readme_has_one_command_for_the_benchmarks() -> None:
    command = ".venv/bin/pip install -e '.[demo]' --group bench && .venv/bin/python -m benchmarks"
    assert literal_after("Measure it on yours") == command
    assert command in (REPOSITORY / "docs/explanation/performance.rst").read_text()


def test_readme_commands_name_what_pyproject_defines() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert "demo" in project["project"]["optional-dependencies"]
    assert {"tests", "bench"} <= project["dependency-groups"].keys()
    assert "slixmpp-bt" in project["project"]["scripts"]


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:``|:: )((?:docs|examples)/[\w./-]*)", README))))
def test_readme_path_exists(path: str) -> None:
    assert (REPOSITORY / path).exists()


def test_readme_picture_shows_the_demo_and_fetches_nothing() -> None:
    picture = (REPOSITORY / "docs/_static/demo.svg").read_text()
    shown = "".join(ElementTree.fromstring(picture).itertext()).replace("\xa0", " ")
    assert "67,108,864" in shown
    assert "the echo is equal" in shown
    assert "http" not in picture.replace('xmlns="http://www.w3.org/2000/svg"', "")
