"""The threat model names the tests that show what it says: they exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "threat-model.rst").read_text()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"``(test_[a-z0-9_]+)``", PAGE))))
def test_threat_model_names_a_test_that_exists(name: str) -> None:
    assert any(f"def {name}(" in path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"``((?:[a-z]+/)*[a-z_]+\.py)``", PAGE))))
def test_threat_model_names_a_file_that_exists(name: str) -> None:
    assert (ROOT / "tests" / name).is_file()
