"""What a last word means on the other side, and what is kept of an end."""

from __future__ import annotations

import pytest

from slixmpp_bt.constants import Route, State
from slixmpp_bt.endings import ending, heard, saved_ending, tellable
from slixmpp_bt.errors import BY_REASON, Cancelled, Expired, IntegrityError, NoRoute, StorageError, TransferError
from slixmpp_bt.negotiation import Event


@pytest.mark.parametrize(("reason", "event", "error"), [
    ("cancel", Event.PEER_CANCEL, Cancelled),
    ("decline", Event.PEER_CANCEL, Cancelled),
    ("expired", Event.PEER_EXPIRED, Expired),
    ("connectivity-error", Event.PEER_FAIL, NoRoute),
    ("security-error", Event.PEER_FAIL, IntegrityError),
    ("general-error", Event.PEER_FAIL, TransferError),
    ("busy", Event.PEER_FAIL, TransferError),
])  # fmt: skip
def test_reason_heard_becomes_its_event_and_error(reason: str, event: Event, error: type[TransferError]) -> None:
    found, why = heard("cancel", reason, "in words")
    assert found is event
    assert type(why) is error
    assert str(why) == "in words"
    if isinstance(why, NoRoute):
        assert why.reasons == {Route.SWARM: "in words"}
    assert str(heard("cancel", reason)[1])


def test_every_reason_that_can_be_told_is_heard_as_an_end() -> None:
    for reason, kind in BY_REASON.items():
        event, error = heard("cancel", reason)
        assert event in (Event.PEER_CANCEL, Event.PEER_EXPIRED, Event.PEER_FAIL)
        assert isinstance(error, kind) or reason == "decline"
    assert heard("complete", "success") == (Event.PEER_COMPLETE, None)
    assert heard("decline", "decline", "no")[0] is Event.PEER_DECLINE


def test_end_that_was_kept_is_the_same_again() -> None:
    for kind in BY_REASON.values():
        reason, text = saved_ending(kind("in words"))
        again = ending(State.FAILED, reason, text)
        assert (type(again), str(again)) == (kind, "in words")
    assert saved_ending(None) == (None, None)
    assert ending(State.COMPLETE, None, None) is None
    assert type(ending(State.EXPIRED, None, None)) is Expired


def test_words_about_this_sides_disk_are_not_told() -> None:
    assert "secret" not in (tellable(StorageError("/home/secret: disk full")) or "")
    assert tellable(TransferError("internal error: secret")) is None
    assert tellable(Cancelled("not now")) == "not now"
    assert tellable(None) is None
