"""The server's side of SASL, against slixmpp's client side and by hand."""

from __future__ import annotations

import hashlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slixmpp.util.sasl import client as slixmpp_sasl

from slixmpp_bt.testing.sasl import MECHANISMS, AuthError, Credentials, Mechanism, Scram, decode


def lookup(name: str) -> Credentials | None:
    return Credentials("alice", "päss,=word") if name == "alice" else None


def slixmpp_mechanism(name: str, username: str, password: str) -> slixmpp_sasl.Mech:
    def credentials(required: object, optional: object) -> dict[str, str]:
        return {"username": username, "password": password}

    def security(values: object) -> dict[str, bool]:
        return {"encrypted": True, "encrypted_plain": True, "unencrypted_plain": False, "binding_proposed": False}

    return slixmpp_sasl.choose([name], credentials, security)


def converse(name: str, username: str, password: str) -> Mechanism:
    client, server = slixmpp_mechanism(name, username, password), MECHANISMS[name](lookup)
    message = server.step(client.process())
    while server.user is None:
        message = server.step(client.process(message))
    client.process(message)  # It verifies the server's signature, where there is one.
    return server


@pytest.mark.parametrize("name", MECHANISMS)
def test_mechanism_right_password_authenticates(name: str) -> None:
    assert converse(name, "alice", "päss,=word").user == "alice"


@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.parametrize(("username", "password"), [("alice", "wrong"), ("mallory", "päss,=word")])
def test_mechanism_wrong_name_or_password_is_not_authorized(name: str, username: str, password: str) -> None:
    with pytest.raises(AuthError, match="not-authorized"):
        converse(name, username, password)


def test_scram_published_example_has_the_published_proofs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exchange of RFC 7677 section 3."""
    monkeypatch.setattr("slixmpp_bt.testing.sasl.SCRAM_ITERATIONS", 4096)
    credentials = Credentials("user", "pencil")
    credentials.salt = decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    monkeypatch.setattr("slixmpp_bt.testing.sasl.secrets.token_urlsafe", lambda _: nonce)
    server = Scram(lambda _: credentials, "sha256")
    assert server.step(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO") == (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    final = server.step(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert final == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    assert server.user == "user"


@pytest.mark.parametrize(
    "final",
    [
        b"c=biws,r=abc,p=AAAA",
        b"c=eSws,r={nonce},p=AAAA",
        b"c=biws,r={nonce}",
        b"c=biws,r={nonce},p=AAAA",
        b"c=biws,r={nonce},p=" + b"A" * 43 + b"=",
    ],
)
def test_scram_wrong_final_message_is_not_authorized(final: bytes) -> None:
    server = Scram(lookup, "sha256")
    nonce = server.step(b"n,,n=alice,r=abc").split(b",")[0][2:]
    with pytest.raises(AuthError, match="not-authorized"):
        server.step(final.replace(b"{nonce}", nonce))
    assert server.user is None


def test_credentials_keys_are_not_the_password() -> None:
    stored, server = Credentials("alice", "pencil").keys("sha256")
    assert len(stored) == len(server) == hashlib.sha256().digest_size
    assert stored != server


@given(st.sampled_from(sorted(MECHANISMS)), st.lists(st.binary(max_size=60), min_size=1, max_size=3))
def test_mechanism_garbage_raises_nothing_but_auth_errors(name: str, messages: list[bytes]) -> None:
    server = MECHANISMS[name](lookup)
    with suppress(AuthError):
        for message in messages:
            server.step(message)
    assert server.user is None


@given(st.text(max_size=10))
def test_decode_garbage_raises_nothing_but_auth_errors(text: str) -> None:
    with suppress(AuthError):
        assert isinstance(decode(text), bytes)
