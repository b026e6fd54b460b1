"""The errors: the tree in the docstring is the tree in the code, and each error knows its word on the wire."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from slixmpp_bt import errors, messages
from slixmpp_bt.constants import Route
from slixmpp_bt.errors import (
    BTError,
    ConfigError,
    NoRoute,
    PathError,
    ProtocolError,
    TransferError,
)

ALL = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, BTError)]
ENDINGS = [error for error in ALL if issubclass(error, TransferError)]


def test_docstring_draws_the_tree_as_it_is() -> None:
    parents: list[str] = []
    drawn = {}
    for line in inspect.getdoc(errors).partition("::\n\n")[2].splitlines():  # type: ignore[union-attr]
        if not (found := re.match(r"    ([ │├└─]*)([A-Z]\w+)", line)):
            break
        depth, name = len(found[1]) // 4, found[2]
        parents[depth:] = [name]
        drawn[name] = parents[depth - 1] if depth else "Exception"
    assert drawn == {error.__name__: error.__bases__[0].__name__ for error in ALL}


@pytest.mark.parametrize("error", ENDINGS)
def test_reason_of_every_ending_is_a_word_of_xep_0166(error: type[TransferError]) -> None:
    assert error.reason in messages.REASONS


@pytest.mark.parametrize("error", ENDINGS)
def test_by_reason_gives_back_the_error_or_none_for_the_general_one(error: type[TransferError]) -> None:
    assert errors.BY_REASON.get(error.reason, error) is error
    assert "success" not in errors.BY_REASON


@pytest.mark.parametrize("error", ALL)
def test_every_error_survives_copying_and_pickling(error: type[BTError]) -> None:
    original = error("why")
    for twin in (copy.copy(original), pickle.loads(pickle.dumps(original))):
        assert type(twin) is error
        assert str(twin) == "why"
        assert vars(twin) == vars(original)


def test_protocol_error_carries_its_condition() -> None:
    assert ProtocolError("no").condition == "bad-request"
    error = pickle.loads(pickle.dumps(ProtocolError("gone", "gone")))
    assert error.condition == "gone"


def test_no_route_carries_its_own_copy_of_the_reasons() -> None:
    reasons = {Route.SWARM: "no address"}
    error = NoRoute("no way", reasons)
    reasons.clear()
    assert error.reasons == {Route.SWARM: "no address"}
    assert NoRoute("no way").reasons == {}


def test_errors_of_the_user_are_builtin_kinds_too() -> None:
    assert issubclass(ConfigError, ValueError)
    assert issubclass(PathError, OSError)
    assert str(PathError("inbox is not there")) == "inbox is not there"
    assert str(PathError()) == "path error"
