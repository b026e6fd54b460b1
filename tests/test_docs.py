"""The documentation says what the code does, and its examples run."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import importlib.util
import re
import runpy
import shutil
import signal
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

import slixmpp_bt
from slixmpp_bt import Config, Limits, filenames, messages, negotiation, routing, sources, stanza
from slixmpp_bt.cli import failures
from slixmpp_bt.negotiation import Event, Phase, Role
from slixmpp_bt.testing import LoopbackServer

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
PACKAGE = Path(slixmpp_bt.__file__).parent
HERE = {"listen": "127.0.0.1", "state_dir": None}
KEYS = {field.name for field in dataclasses.fields(Config)}
LIMITS = {field.name for field in dataclasses.fields(Limits)}
SVG = "{http://www.w3.org/2000/svg}"
PAGES = sorted([*DOCS.rglob("*.rst"), *REPOSITORY.glob("*.rst")])

_PYTHON = re.compile(r"^( *)\.\. code-block:: python\n\n((?:\1 +.*\n|\n)+)", re.MULTILINE)
_CONFVAL = re.compile(r"^\.\. confval:: (\w+)\n(?:    :\w+: .*\n)*?    :default: (.*)\n", re.MULTILINE)
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "days": 86_400}


def page(name: str) -> str:
    return (DOCS / name).read_text()


def python_blocks() -> list[tuple[str, str]]:
    """Where each stands, and its text. Some are the inside of a function, so an indented remainder is one too."""
    found = [(path, m) for path in PAGES for m in _PYTHON.finditer(path.read_text())]
    return [(f"{path.relative_to(REPOSITORY)}:{m.start()}", textwrap.dedent(m[2])) for path, m in found]


@pytest.mark.parametrize(("where", "code"), python_blocks(), ids=[where for where, _ in python_blocks()])
def test_python_block_is_python(where: str, code: str) -> None:
    compile(completed(code), where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def completed(code: str) -> str:
    """`code`, with what it needs to stand alone."""
    return f"if True:\n    pass\n{code}" if code.startswith("elif ") else code


def test_config_page_has_every_key() -> None:
    assert {m[1] for m in _CONFVAL.finditer(page("reference/config.rst"))} == {
        field.name for field in dataclasses.fields(Config)
    }


@pytest.mark.parametrize(
    ("key", "text"), [(m[1], m[2]) for m in _CONFVAL.finditer(page("reference/config.rst")) if m[2].startswith("``")]
)
def test_config_page_default_is_that_of_the_code(key: str, text: str) -> None:
    if text.endswith("``"):
        actual = getattr(Config(), key)
        documented = ast.literal_eval(text.strip("`"))
        assert actual == (frozenset(slixmpp_bt.Route) if documented == "all" else documented)


@pytest.mark.parametrize("field", dataclasses.fields(Limits), ids=lambda field: field.name)
def test_config_page_limit_is_that_of_the_code(field: dataclasses.Field[int]) -> None:
    row = re.search(rf"\* - ``{field.name}``\n +- ([\d,]+) ?(\w*)\n", page("reference/config.rst"))
    assert row is not None
    assert int(row[1].replace(",", "")) * _UNITS.get(row[2], 1) == field.default


def test_events_page_has_every_event() -> None:
    fired = {
        name
        for path in Path(slixmpp_bt.__file__).parent.glob("*.py")
        for name in re.findall(r"""notify\("(bt_\w+)\"""", path.read_text())
    }
    assert fired == set(re.findall(r"^    (bt_\w+)$", page("reference/events.rst"), re.MULTILINE))


def test_api_and_errors_pages_have_every_public_name() -> None:
    documented = re.findall(
        r"^\.\. auto(?:class|function|exception):: (\w+)",
        page("reference/api.rst") + page("reference/errors.rst") + page("reference/config.rst"),
        re.MULTILINE,
    )
    assert set(slixmpp_bt.__all__) - {"xep_bt", "__version__"} <= set(documented)


def test_stanzas_page_has_every_element() -> None:
    elements = {form.name.capitalize() for form in stanza.FORMS} - {"File-sharing"} | {"Torrent"}
    assert set(re.findall(r"^\.\. autoclass:: (\w+)\(\)", page("reference/stanzas.rst"), re.MULTILINE)) == elements


def test_internal_api_page_has_every_method() -> None:
    registered = re.findall(r'api\.register\(.*?"(\w+)"', (PACKAGE / "plugin.py").read_text())
    assert registered == re.findall(r"^    (\w+)$", page("reference/internal-api.rst"), re.MULTILINE)


def test_debug_page_names_loggers_that_exist() -> None:
    named = set(re.findall(r"``(slixmpp_bt\.[a-z_.]+)``", page("howto/debug.rst")))
    assert "slixmpp_bt.transfer" in named
    assert all(importlib.util.find_spec(name) for name in named)


# The architecture page ---------------------------------------------------------------------------------------------


def test_architecture_page_has_the_layers_and_modules_of_the_code() -> None:
    modules = {path.stem for path in PACKAGE.iterdir() if (path / "__init__.py").exists() or path.suffix == ".py"}
    rows = re.findall(r"^    \* - (``\w+``(?:,\s+``\w+``)*)$", page("explanation/architecture.rst"), re.MULTILINE)
    drawn = [set(re.findall(r"``(\w+)``", row)) for row in rows]
    contract = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    layers = [set(re.findall(r"\((\w+)\)", layer)) & modules for layer in contract["layers"]]
    assert drawn == layers
    assert set().union(*drawn) == modules - {"__init__"}


# The state diagrams ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def states() -> ModuleType:
    spec = importlib.util.spec_from_file_location("statediagram", DOCS / "_ext" / "statediagram.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["statediagram"] = module
    spec.loader.exec_module(module)
    return module


def transitions(role: Role) -> set[tuple[str, str, str]]:
    rows = negotiation.TABLE[role]
    return {(source, event, step.phase) for source, events in rows.items() for event, step in events.items()}


def groups(states: ModuleType, role: Role, kind: str) -> list[ElementTree.Element]:
    """What is drawn, read back from the picture as a browser gets it."""
    svg = ElementTree.fromstring(ElementTree.tostring(states.diagram(role)))
    return [group for group in svg.iter(f"{SVG}g") if group.get("class") == kind]


def numbers(group: ElementTree.Element, tag: str, index: int = 0) -> dict[str, float]:
    """The numbers in an element of a group, by attribute; those of a path in order, as 0, 1 and so on."""
    attributes = dict(group.findall(f"{SVG}{tag}")[index].attrib)
    path = enumerate(re.findall(r"[\d.]+", attributes.pop("d", "")))
    return {str(key): float(value) for key, value in [*attributes.items(), *path] if re.fullmatch(r"[\d.]+", value)}


@pytest.mark.parametrize("role", Role)
def test_state_diagram_has_every_phase_and_transition(states: ModuleType, role: Role) -> None:
    drawn = {
        (edge.attrib["data-from"], event, edge.attrib["data-to"])
        for edge in groups(states, role, "edge")
        for event in (edge.findtext(f"{SVG}text") or "").split(", ")
    }
    assert drawn == transitions(role)
    shown = {box.findtext(f"{SVG}text") for box in groups(states, role, "phase")}
    assert shown == {phase for source, _, target in drawn for phase in (source, target)}


@pytest.mark.parametrize("role", Role)
def test_state_diagram_lines_lead_from_their_box_to_their_box(states: ModuleType, role: Role) -> None:
    boxes = {group.attrib["data-phase"]: numbers(group, "rect") for group in groups(states, role, "phase")}
    rails = {group.attrib["data-to"]: group for group in groups(states, role, "rail")}

    def in_box(phase: str, y: float) -> bool:
        return boxes[phase]["y"] < y < boxes[phase]["y"] + boxes[phase]["height"]

    for edge in groups(states, role, "edge"):
        source, target = edge.attrib["data-from"], edge.attrib["data-to"]
        joint, vertical = numbers(edge, "circle"), numbers(rails[target], "path")
        assert in_box(source, joint["cy"])
        assert joint["cx"] == vertical["0"]
        assert vertical["1"] <= joint["cy"] <= vertical["2"]
        assert in_box(target, numbers(rails[target], "path", 1)["1"])
    assert len({numbers(rail, "path")["0"] for rail in rails.values()}) == len(rails)


@pytest.mark.parametrize("role", Role)
def test_state_table_has_every_transition(states: ModuleType, role: Role) -> None:
    rows = list(states.lines_of_table(role))
    assert {(source, event, target) for source, event, target, _ in rows} == transitions(role)
    for source, event, _, actions in rows:
        assert actions == ", ".join(negotiation.TABLE[role][Phase(source)][Event(event)].actions)


def test_states_page_times_are_those_of_the_code() -> None:
    times, text = negotiation.Timing(), " ".join(page("reference/states.rst").split())
    assert f"no new byte for {times.stall:g} seconds" in text
    assert f"first after {times.retry_first:g} seconds" in text
    assert f"at most {times.retry_most / 60:g} minutes" in text


def test_send_page_and_cli_page_say_what_is_cut_and_how_deep_a_directory_may_be() -> None:
    cut = f"{messages.MAX_TEXT:,} characters"
    assert cut in page("howto/send.rst")
    assert cut in page("reference/cli.rst")
    assert f"more than {sources.MAX_DEPTH} directories" in page("howto/send.rst")


@pytest.mark.parametrize(
    ("offered", "arrives"), re.findall(r"``(\S+)`` arrives as ``(\S+)``", page("howto/receive.rst"))
)
def test_receive_page_names_arrive_as_it_says(offered: str, arrives: str) -> None:
    assert filenames.safe_name(offered, hidden=True) == arrives


def test_receive_page_numbers_names_as_the_code_does() -> None:
    assert filenames.safe_paths([("README",), ("readme",)])[1] == ("readme (1)",)
    assert "``readme (1)``" in page("howto/receive.rst")


def test_routes_page_numbers_are_those_of_the_code() -> None:
    patience, text = routing.Patience(), " ".join(page("explanation/routes.rst").split())
    assert f"At most {routing.INLINE_MAX:,} bytes" in text
    assert f"nothing after {patience.first:g} seconds, or stops for {patience.stall:g}" in text
    assert f"by relay after {patience.relay_rest:g} seconds, in-band after {patience.rest:g}" in text
    assert (patience.most, patience.hopeless) == (120, 120)
    assert "at most two minutes" in text
    assert "waited for two minutes more" in text
    assert f"{Limits().in_band_max_size >> 20} MiB unless" in text


# The command -------------------------------------------------------------------------------------------------------


def help_of(*command: str) -> str:
    run = [sys.executable, "-m", "slixmpp_bt.cli", *command, "--help"]
    return subprocess.run(run, capture_output=True, text=True, timeout=60, check=True).stdout


def test_cli_page_has_every_command_and_option() -> None:
    text = page("reference/cli.rst")
    commands = re.findall(r"^slixmpp-bt (\w+)$", text, re.MULTILINE)
    assert commands == re.findall(r"^    (\w+) ", help_of().partition("commands:")[2], re.MULTILINE)
    options = set(re.findall(r"--[a-z-]+", " ".join(help_of(*c) for c in ([], *([name] for name in commands)))))
    documented = re.findall(r"^\.\. option:: (.*)$", text, re.MULTILINE)
    assert {name for line in documented for name in re.findall(r"--[a-z-]+", line)} == options


def test_cli_page_has_every_exit_code() -> None:
    codes = {failures.DONE, failures.FAILED, failures.USAGE, failures.NO_LOGIN, failures.STOPPED}
    assert {int(code) for code in re.findall(r"^``(\d+)`` ", page("reference/cli.rst"), re.MULTILINE)} == codes


# What stands in examples -------------------------------------------------------------------------------------------

_NAMES: dict[str, Any] = {
    "bt": slixmpp_bt.XEP_BT,
    "transfer": slixmpp_bt.Transfer,
    "offer": slixmpp_bt.IncomingOffer,
    "progress": slixmpp_bt.Progress(),
    "slixmpp_bt": slixmpp_bt,
}


def trees() -> Iterator[tuple[str, ast.AST]]:
    for where, code in python_blocks():
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST
        yield where, compile(completed(code), where, "exec", flags=flags)


def test_names_in_examples_exist() -> None:
    for where, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in _NAMES:
                owner = _NAMES[node.value.id]
                fields = {"api", *_documented_fields(owner)}
                assert hasattr(owner, node.attr) or node.attr in fields, f"{where}: {node.value.id}.{node.attr}"


def _documented_fields(owner: Any) -> list[str]:
    return re.findall(r":ivar (\w+):", owner.__doc__ or "")


def test_configurations_in_examples_are_valid(tmp_path: Path) -> None:
    found = 0
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict) and any(isinstance(k, ast.Constant) and k.value in KEYS for k in node.keys):
                known = [(k, v) for k, v in zip(node.keys, node.values, strict=True) if isinstance(k, ast.Constant)]
                assert all(key.value in KEYS | LIMITS for key, _ in known)
                literal = {str(k.value): ast.literal_eval(v) for k, v in known if _is_literal(v)}
                if KEYS & set(literal):
                    Config.parse({"download_dir": tmp_path, **literal})
                    found += 1
    assert found >= 5


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", ["test_bot.py", "test_my_backend.py"])
def test_example_test_module_passes(tmp_path: Path, name: str) -> None:
    shutil.copy(DOCS / "howto" / name, tmp_path)
    shutil.copy(DOCS / "tutorial" / "bot.py", tmp_path)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", name], cwd=tmp_path, capture_output=True, text=True,
        timeout=100, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout


def test_pages_name_no_path_of_a_machine() -> None:
    for path in [*PAGES, *DOCS.rglob("*.py"), *DOCS.glob("protocol/*.x*")]:
        assert not re.search(r"/(?:work|root|home|tmp)/", path.read_text()), path


# The tutorial ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def bot_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[str], Awaitable[Any]]]:
    """Logs in the bot of a step of the tutorial, beside Juliet, who is returned."""
    monkeypatch.chdir(tmp_path)
    clients: list[Any] = []
    async with LoopbackServer(users={"bot": "secret", "juliet": "secret"}) as server:

        async def log_in(step: str) -> Any:
            names = runpy.run_path(str(DOCS / "tutorial" / step))
            bot = server.client("bot/1", names["EchoFileBot"], friends=["juliet@localhost"], **HERE)
            juliet = server.client("juliet/balcony")
            juliet.register_plugin("xep_bt", HERE)
            for client in (bot, juliet):
                clients.append(client)
                await server.connect(client)
            return slixmpp_bt.get_plugin(juliet)

        yield log_in
        for client in clients:
            await slixmpp_bt.get_plugin(client).aclose()


@pytest.mark.parametrize(
    ("step", "printed"),
    [("receive.py", ""), ("notice.py", "letter.txt arrived from juliet@localhost\n")],
)
async def test_tutorial_step_receives_and_prints(
    bot_of: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], step: str, printed: str
) -> None:
    juliet = await bot_of(step)
    (tmp_path / "letter.txt").write_text("O Romeo, Romeo!")
    await (await juliet.send_file("bot@localhost/1", "letter.txt")).wait()
    assert (tmp_path / "inbox" / "letter.txt").read_text() == "O Romeo, Romeo!"
    said = ""
    async with asyncio.timeout(10):
        while len(said) < len(printed):
            await asyncio.sleep(0)
            said += capsys.readouterr().out
    assert said == printed


@pytest.mark.parametrize("how", [None, signal.SIGINT, signal.SIGTERM])
async def test_tutorial_program_logs_in_and_leaves(how: signal.Signals | None, tmp_path: Path) -> None:
    async with LoopbackServer(users={"bot": "password"}) as server:
        text = (DOCS / "tutorial" / "run_bot.py").read_text()
        for written, here in {
            '"bot@example.org"': '"bot@localhost/1"',
            "bot.connect()": f"bot.ca_certs = {str(server.ca_certs)!r}; bot.connect({server.host!r}, {server.port})",
        }.items():
            assert text.count(written) == 1
            text = text.replace(written, here)
        shutil.copy(DOCS / "tutorial" / "bot.py", tmp_path)
        (tmp_path / "run_bot.py").write_text(text)
        program = await asyncio.create_subprocess_exec(sys.executable, "run_bot.py", cwd=tmp_path)
        try:
            await server.wait_available("bot")
            if how is None:
                server.kick("bot/1")
            else:
                program.send_signal(how)
            assert await asyncio.wait_for(program.wait(), 60) == 0
        finally:
            if program.returncode is None:
                program.kill()
                await program.wait()


@pytest.mark.matrix
def test_tutorial_runs_and_prints_what_it_says(tmp_path: Path) -> None:
    for name in ("bot.py", "try_it.py"):
        shutil.copy(DOCS / "tutorial" / name, tmp_path)
    run = subprocess.run(
        [sys.executable, "try_it.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    said = re.search(r"It prints\n\n\.\. code-block:: text\n\n((?:    .*\n)+)", page("tutorial/echo-file-bot.rst"))
    assert said is not None
    assert run.stdout.split("\n") == [*textwrap.dedent(said[1]).split("\n"), ""]
    assert (tmp_path / "back" / "letter.txt").read_text() == (tmp_path / "letter.txt").read_text()
