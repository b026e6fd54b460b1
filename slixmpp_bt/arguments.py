"""What users pass to the plugin's methods, checked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from slixmpp import JID
from slixmpp.jid import InvalidJID

from .sources import check_path

Expires = float | timedelta | datetime | None


def parse_source(path: str | Path) -> Path:
    """The absolute path of something that can be offered. Looks at the disk.

    :raises PathError: it cannot; the message names what is wrong with which path.
    """
    source = Path(path).expanduser().absolute()
    check_path(source)
    return source


def parse_jid(text: JID | str) -> JID:
    """
    :raises ValueError: it is not a JID.
    """
    try:
        jid = JID(text)
    except (InvalidJID, TypeError) as error:
        raise ValueError(f"{text!r} is not a JID") from error
    if not jid.domain:
        raise ValueError(f"{text!r} is not a JID")
    return jid


def parse_desc(desc: object) -> str | None:
    """
    :raises ValueError: it is not a text.
    """
    if desc is not None and not isinstance(desc, str):
        raise ValueError(f"desc must be a text, not {desc!r}")
    return desc or None


def parse_expires(expires: Expires, default: int) -> datetime:
    """When something expires: after so many seconds, after a timedelta, or at an aware datetime.

    :param default: seconds.
    :raises ValueError: it is in the past, or a datetime without a time zone.
    """
    now = datetime.now(UTC)
    if expires is None:
        return now + timedelta(seconds=default)
    if isinstance(expires, datetime):
        if expires.tzinfo is None:
            raise ValueError("expires must be an aware datetime: which time zone is meant?")
        until = expires.astimezone(UTC)
    else:
        try:
            until = now + (expires if isinstance(expires, timedelta) else timedelta(seconds=expires))
        except (OverflowError, TypeError, ValueError):
            raise ValueError(f"expires must be seconds, a timedelta or a datetime, not {expires!r}") from None
    if until <= now:
        raise ValueError(f"expires must be in the future, not {until:%Y-%m-%d %H:%M:%S} UTC")
    return until
