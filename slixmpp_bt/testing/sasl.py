"""The server's side of SASL (RFC 4422): PLAIN (RFC 4616) and SCRAM (RFC 5802, RFC 7677), without I/O."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Protocol

#: RFC 7677 asks for at least 4,096 against whoever steals a server's database. There is none to steal here, and
#: slixmpp derives keys in Python on the event loop: 4,096 would cost every test some 50 ms a login.
SCRAM_ITERATIONS = 64


class AuthError(Exception):
    """Authentication failed; the argument is a condition of RFC 6120 section 6.5."""

    def __init__(self, condition: str) -> None:
        super().__init__(condition)
        self.condition = condition


class Credentials:
    """What the server knows of a user's password."""

    def __init__(self, username: str, password: str) -> None:
        self.username = username
        self.salt = secrets.token_bytes(16)
        self.password = password
        self._keys: dict[str, tuple[bytes, bytes]] = {}

    def check(self, password: bytes) -> bool:
        """Whether this is the password."""
        return hmac.compare_digest(self.password.encode(), password)

    def keys(self, algorithm: str) -> tuple[bytes, bytes]:
        """StoredKey and ServerKey (RFC 5802 section 3)."""
        if algorithm not in self._keys:
            salted = hashlib.pbkdf2_hmac(algorithm, self.password.encode(), self.salt, SCRAM_ITERATIONS)
            client_key = hmac.digest(salted, b"Client Key", algorithm)
            stored_key = hashlib.new(algorithm, client_key).digest()
            self._keys[algorithm] = stored_key, hmac.digest(salted, b"Server Key", algorithm)
        return self._keys[algorithm]


Lookup = Callable[[str], Credentials | None]


class Mechanism(Protocol):
    """One attempt to authenticate."""

    #: Who was authenticated; None as long as nobody was.
    user: str | None

    def step(self, response: bytes) -> bytes:
        """Take what the client said; a challenge, or with `user` set what goes with the success.

        :raises AuthError: the attempt is over.
        """


class Plain:
    """Authorisation identity, user name and password in one response."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self.user: str | None = None

    def step(self, response: bytes) -> bytes:
        """:raises AuthError: malformed-request, not-authorized."""
        parts = response.split(b"\0")
        if len(parts) != 3:
            raise AuthError("malformed-request")
        credentials = self._lookup(_text(parts[1]))
        if credentials is None or not credentials.check(parts[2]):
            raise AuthError("not-authorized")
        self.user = credentials.username
        return b""


class Scram:
    """Challenge and response without channel binding."""

    def __init__(self, lookup: Lookup, algorithm: str) -> None:
        self._lookup = lookup
        self._algorithm = algorithm
        self._credentials: Credentials | None = None
        self._header = b""
        self._nonce = b""
        self._exchange = b""
        self.user: str | None = None

    def step(self, response: bytes) -> bytes:
        """:raises AuthError: malformed-request, not-authorized."""
        return self._first(response) if self._credentials is None else self._final(response)

    def _first(self, message: bytes) -> bytes:
        flag, _, rest = message.partition(b",")
        authzid, _, bare = rest.partition(b",")
        fields = _fields(bare)
        if flag not in (b"n", b"y") or not fields.get("n") or not fields.get("r"):
            raise AuthError("malformed-request")
        name = fields["n"].decode().replace("=2C", ",").replace("=3D", "=")
        self._credentials = credentials = self._lookup(name)
        if credentials is None:
            raise AuthError("not-authorized")
        self._header = flag + b"," + authzid + b","
        self._nonce = fields["r"] + secrets.token_urlsafe(18).encode()
        challenge = b"r=%b,s=%b,i=%d" % (self._nonce, base64.b64encode(credentials.salt), SCRAM_ITERATIONS)
        self._exchange = bare + b"," + challenge
        return challenge

    def _final(self, message: bytes) -> bytes:
        assert self._credentials is not None
        fields = _fields(message)
        unproved, _, _ = message.rpartition(b",p=")
        if fields.get("c") != base64.b64encode(self._header) or fields.get("r") != self._nonce:
            raise AuthError("not-authorized")
        stored, server_key = self._credentials.keys(self._algorithm)
        exchange = self._exchange + b"," + unproved
        signature = hmac.digest(stored, exchange, self._algorithm)
        proof = decode(fields.get("p", b"").decode())
        if len(proof) != len(signature):
            raise AuthError("not-authorized")
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        if not hmac.compare_digest(hashlib.new(self._algorithm, client_key).digest(), stored):
            raise AuthError("not-authorized")
        self.user = self._credentials.username
        return b"v=" + base64.b64encode(hmac.digest(server_key, exchange, self._algorithm))


def _fields(message: bytes) -> dict[str, bytes]:
    return {k: v.encode() for k, _, v in (part.partition("=") for part in _text(message).split(","))}


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise AuthError("malformed-request") from None


def decode(text: str) -> bytes:
    """Base64 as RFC 6120 section 6.4.2 uses it: a lone ``=`` is an empty response.

    :raises AuthError: incorrect-encoding.
    """
    try:
        return b"" if text == "=" else base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise AuthError("incorrect-encoding") from None


#: Strongest first.
MECHANISMS: dict[str, Callable[[Lookup], Mechanism]] = {
    "SCRAM-SHA-256": lambda lookup: Scram(lookup, "sha256"),
    "SCRAM-SHA-1": lambda lookup: Scram(lookup, "sha1"),
    "PLAIN": Plain,
}
