"""What users pass."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from slixmpp import JID

from slixmpp_bt import PathError
from slixmpp_bt.arguments import parse_expires, parse_jid, parse_source


@pytest.mark.parametrize("text", ["romeo@example.net", "romeo@example.net/garden", "bot.example.net"])
def test_jid_is_taken_as_text_or_jid(text: str) -> None:
    assert parse_jid(text) == parse_jid(JID(text)) == JID(text)


@pytest.mark.parametrize("text", ["", "@", "@@", "a@b@c", "romeo@", None, 5, "ro meo@example.net"])
def test_what_is_no_jid_is_a_value_error(text: Any) -> None:
    with pytest.raises(ValueError, match="not a JID"):
        parse_jid(text)


def test_expiry_in_each_form_means_the_same() -> None:
    now = datetime.now(UTC)
    zone = timezone(timedelta(hours=5))
    for given in (90, 90.0, timedelta(seconds=90), (now + timedelta(seconds=90)).astimezone(zone)):
        assert abs(parse_expires(given, 1) - now - timedelta(seconds=90)) < timedelta(seconds=5)
    assert abs(parse_expires(None, 60) - now - timedelta(seconds=60)) < timedelta(seconds=5)


@pytest.mark.parametrize("given", [0, -5, timedelta(0), datetime(2020, 1, 1, tzinfo=UTC), datetime(2090, 1, 1), "soon"])
def test_expiry_that_makes_no_sense_is_a_value_error(given: Any) -> None:
    with pytest.raises(ValueError, match="expires"):
        parse_expires(given, 60)


@pytest.mark.parametrize("given", [float("nan"), float("inf"), 1e300])
def test_expiry_beyond_all_calendars_is_a_value_error(given: float) -> None:
    with pytest.raises(ValueError, match="expires"):
        parse_expires(given, 60)


def test_source_is_made_absolute_and_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    assert parse_source("file") == tmp_path / "file"
    with pytest.raises(PathError, match="nothing"):
        parse_source("nothing")
