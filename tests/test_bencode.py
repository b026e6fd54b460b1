"""Bencoding: what is accepted is canonical, and nothing but our errors escapes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slixmpp_bt.bencode import Value, decode, encode
from slixmpp_bt.errors import LimitExceeded, ProtocolError

values: st.SearchStrategy[Value] = st.recursive(
    st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=4), inner, max_size=4),
    max_leaves=20,
)


def read(data: bytes) -> Value:
    return decode(data, max_depth=100, max_tokens=1_000)


@given(values)
def test_decode_of_encoded_returns_the_value(value: Value) -> None:
    assert read(encode(value)) == value


@given(st.text(alphabet="0123456789dlie:-a", max_size=12))
def test_decode_of_anything_is_canonical_or_refused(text: str) -> None:
    try:
        value = read(text.encode())
    except ProtocolError:
        return
    assert encode(value) == text.encode()


@given(values, st.data())
def test_decode_of_a_cut_value_is_refused(value: Value, data: st.DataObject) -> None:
    whole = encode(value)
    with pytest.raises(ProtocolError):
        read(whole[: data.draw(st.integers(0, len(whole) - 1))])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"e",
        b"i",
        b"ie",
        b"i-0e",
        b"i01e",
        b"i+1e",
        b"i 1e",
        b"i1_0e",
        b"i9223372036854775808e",
        b"i-9223372036854775809e",
        b"i" + b"9" * 5_000 + b"e",
        b"01:a",
        b"-1:a",
        b"2:a",
        b"99999999999999999999:a",
        b"\xd9\xa1:a",
        b"1:ab",
        b"d1:ai1e1:ai2ee",
        b"d1:bi1e1:ai2ee",
        b"d1:ae",
        b"di1ei2ee",
        b"dle1:ae",
        b"l",
        b"lee",
        b"li1e",
        b"d",
    ],
)
def test_decode_of_a_malformed_value_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(data)


@pytest.mark.parametrize("opening", [b"l", b"d1:a"])
def test_decode_deeper_than_allowed_exceeds_the_limit(opening: bytes) -> None:
    assert read(b"l" * 100 + b"e" * 100)
    with pytest.raises(LimitExceeded):
        read(opening * 200_000)


def test_decode_of_more_values_than_allowed_exceeds_the_limit() -> None:
    assert decode(b"l" + b"le" * 4 + b"e", max_depth=2, max_tokens=10) == [[]] * 4
    with pytest.raises(LimitExceeded):
        decode(b"l" + b"le" * 4 + b"i1ee", max_depth=2, max_tokens=10)
