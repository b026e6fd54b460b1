"""The messages: plain values that cannot be changed and can be compared, kept in sets and pickled."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
import typing
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest

from slixmpp_bt import messages
from slixmpp_bt.constants import Mode
from slixmpp_bt.messages import Candidate, Done, End, Offer, Share, StreamHost, Withdraw

KINDS = [value for value in vars(messages).values() if inspect.isclass(value) and dataclasses.is_dataclass(value)]


def test_every_message_is_frozen_and_slotted() -> None:
    assert {kind.__name__ for kind in KINDS} >= {"Offer", "Withdraw", "Accept", "Accepted", "Meta", "Peers", "End"}
    for kind in KINDS:
        assert kind.__dataclass_params__.frozen, kind  # type: ignore[attr-defined]
        assert not hasattr(kind, "__dict__") or "__dict__" not in dir(object.__new__(kind)), kind


def test_every_message_is_a_message_a_request_or_a_reply() -> None:
    named = [typing.get_args(union) for union in (messages.Message, messages.Request, messages.Reply)]
    parts = {Candidate, Share, StreamHost}
    assert {kind for union in named for kind in union} == set(KINDS) - parts
    assert sum(map(len, named)) == len(set(KINDS) - parts)


@pytest.mark.parametrize(
    ("address", "text"), [("192.0.2.1", "192.0.2.1:6881"), ("2001:db8::1", "[2001:db8::1]:6881")]
)  # fmt: skip
def test_candidate_as_text_is_an_endpoint(address: str, text: str) -> None:
    assert str(Candidate(ip_address(address), 6881)) == text


def test_messages_with_the_same_content_are_equal_and_hash_alike() -> None:
    def offer() -> Offer:
        return Offer("o", Mode.PRIVATE, datetime(2026, 1, 1, tzinfo=UTC), "name", 5, bytes(32), 150)

    assert offer() == offer()
    assert len({offer(), offer(), Withdraw("o"), Withdraw("p"), Done(), Done()}) == 4
    assert pickle.loads(pickle.dumps(offer())) == offer()


def test_messages_cannot_be_changed() -> None:
    end = End("o", "cancel", "cancel")
    with pytest.raises(dataclasses.FrozenInstanceError):
        end.kind = "complete"  # type: ignore[misc]
