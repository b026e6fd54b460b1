"""The documentation says what the code does, and its examples run."""

from __future__ import annotations

import ast
import dataclasses
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import slixmpp_bt
from slixmpp_bt import Config, Limits

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
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
    if code.startswith("elif "):
        code = f"if True:\n    pass\n{code}"
    compile(code, where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


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
