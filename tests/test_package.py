"""The package as others meet it: its public names, its types, its wheel."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from importlib import metadata, resources
from pathlib import Path

import pytest

import slixmpp_bt

REPOSITORY = Path(__file__).parents[1]

#: The public names, as the reference (docs/reference/api.rst) lists them.
PUBLIC = {
    *("XEP_BT", "xep_bt", "get_plugin", "Config", "Limits", "IncomingOffer", "OutgoingOffer", "Transfer", "Progress"),
    *("State", "Route", "Mode", "__version__"),
    *("BTError", "ConfigError", "PathError", "NotSupported", "PeerNotFound", "BackendUnavailable", "StateError"),
    *("ProtocolError", "TransferError", "Declined", "Cancelled", "Expired", "NoRoute", "PeerGone", "SourceChanged"),
    *("StorageError", "IntegrityError", "LimitExceeded"),
}


def test_all_is_the_public_list() -> None:
    assert set(slixmpp_bt.__all__) == PUBLIC
    assert len(slixmpp_bt.__all__) == len(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_name_exists(name: str) -> None:
    assert getattr(slixmpp_bt, name) is not None


def test_version_is_that_of_the_installed_distribution() -> None:
    assert slixmpp_bt.__version__ == metadata.version("slixmpp-bt")
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", slixmpp_bt.__version__)


def test_py_typed_is_there() -> None:
    assert resources.files(slixmpp_bt).joinpath("py.typed").is_file()


@pytest.mark.matrix
def test_import_registers_the_plugin_and_loads_no_engine() -> None:
    check = "import sys, slixmpp_bt; from slixmpp.plugins.base import PLUGIN_REGISTRY as r; "
    check += "assert r['xep_bt'] is slixmpp_bt.XEP_BT; assert 'libtorrent' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", check], check=True)


def test_typing_sample_passes_strict_mypy(tmp_path: Path) -> None:
    sample = Path(__file__).parent / "typing_sample.py"
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(sample)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_wheel_holds_the_types_and_no_tests(tmp_path: Path) -> None:
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "slixmpp_bt/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"slixmpp_bt", f"slixmpp_bt-{slixmpp_bt.__version__}.dist-info"}
