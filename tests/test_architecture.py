"""What import-linter (pyproject.toml) cannot say: which names of slixmpp and libtorrent may be used where."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

import slixmpp_bt

ROOT = Path(slixmpp_bt.__file__).parent
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))

#: Where the host library may be used; a JID may be used everywhere.
TALKS_XMPP = (
    "__init__.py",
    "plugin.py",
    "inbound.py",
    "connection.py",
    "directory.py",
    "features.py",
    "leaving.py",
    "stanza/*",
    "streams/*",
    "rooms.py",
    "cli/*",
    "testing/*",
)
#: Where the engine may be used: its backend and that one's private helpers.
TALKS_BITTORRENT = ("backends/libtorrent.py", "backends/_libtorrent/*")


def imports(source: str) -> Iterator[str]:
    """The dotted names that a module imports absolutely, wherever in it that stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def of_package(package: str, names: Iterator[str]) -> set[str]:
    return {name for name in names if name == package or name.startswith(f"{package}.")}


def may(module: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(module, pattern) for pattern in patterns)


@pytest.mark.parametrize("module", [m for m in MODULES if not may(m, TALKS_XMPP)])
def test_slixmpp_outside_its_layers_is_only_the_jid(module: str) -> None:
    used = of_package("slixmpp", imports((ROOT / module).read_text()))
    assert {name for name in used if name != "slixmpp.JID" and not name.startswith("slixmpp.jid.")} == set()


@pytest.mark.parametrize("module", [m for m in MODULES if not may(m, TALKS_BITTORRENT)])
def test_libtorrent_outside_its_backend_is_not_imported(module: str) -> None:
    assert of_package("libtorrent", imports((ROOT / module).read_text())) == set()


def test_imports_every_form_is_seen() -> None:
    source = (
        "import slixmpp.stanza as s\nfrom slixmpp import JID, Iq\nfrom . import slixmpp\ndef f():\n import libtorrent"
    )
    assert set(imports(source)) == {"slixmpp.stanza", "slixmpp.JID", "slixmpp.Iq", "libtorrent"}
