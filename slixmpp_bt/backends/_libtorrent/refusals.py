"""Why a peer was not reached, or hung up, in words for users."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final

import libtorrent as lt

#: libtorrent's ``errors::error_code_enum``, whose names the Python binding does not have. None: this side hung up, for
#: reasons of its own, and nobody needs to hear of it.
_ENGINE: Final[Mapping[int, str | None]] = {
    36: "it did not answer in time",  # timed_out
    39: "it does not have this offer",  # invalid_info_hash
    40: None,  # torrent_paused
    46: None,  # torrent_aborted
    47: "the address is this side's own",  # self_connection
    49: "nothing was to be done for a long time",  # timed_out_no_interest
    50: "nothing was heard of it for a long time",  # timed_out_inactivity
    51: "it did not complete the handshake in time",  # timed_out_no_handshake
    52: "nothing was asked for for a long time",  # timed_out_no_request
    79: None,  # duplicate_peer_id
    80: None,  # torrent_removed
    89: None,  # banned_by_ip_filter: Session.forget
    91: "it sent wrong data",  # peer_banned
    92: None,  # stopping_torrent
    93: "it sent wrong data",  # too_many_corrupt_pieces
}
_SYSTEM: Final[Mapping[int, str]] = {
    errno.ECONNREFUSED: "nothing listens there",
    errno.ETIMEDOUT: "it did not answer in time",
    errno.EHOSTUNREACH: "there is no way to that host",
    errno.ENETUNREACH: "there is no way to that network",
    errno.EADDRNOTAVAIL: "there is no way to that address",
    errno.EACCES: "a firewall of this host forbids it",
    errno.EPERM: "a firewall of this host forbids it",
    errno.EINVAL: "the address cannot be dialled from here",
}
_UNTAKEN: Final = "it does not take this side's certificate: it may be of another offer"
#: OpenSSL's reasons, the same in its versions 1.1 and 3. From 1,000 on they are what the other side said (RFC 8446
#: section 6, plus 1,000), below what this side found.
_TLS: Final[Mapping[int, str]] = {
    134: "its certificate is not one of this offer, or not valid any more",  # SSL_R_CERTIFICATE_VERIFY_FAILED
    267: "no TLS is spoken there",  # SSL_R_WRONG_VERSION_NUMBER
    1040: "it has no certificate for this offer yet",  # handshake_failure
    1042: _UNTAKEN,  # bad_certificate
    1045: "it holds this side's certificate to be out of date: the clocks may differ",  # certificate_expired
    1046: _UNTAKEN,  # certificate_unknown
    1048: _UNTAKEN,  # unknown_ca
    1051: _UNTAKEN,  # decrypt_error
    1112: "it does not have this offer",  # unrecognized_name
    1116: "it asks for a certificate, and this side has none",  # certificate_required
}
_HANGING_UP: Final = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})


def by_tls(error: lt.error_code) -> bool:
    """Whether somebody was reached, but no TLS connection made."""
    return error.category().name().startswith("asio.ssl")


def refusal(error: lt.error_code, was_connected: bool) -> str | None:
    """Why a connection ended; None if this side wanted it to.

    :param was_connected: whether the handshake was completed.
    """
    category, value = error.category().name(), error.value()
    if category == "libtorrent":
        return _ENGINE.get(value, error.message())
    if category == "system" and value in _SYSTEM:
        return _SYSTEM[value]
    if category == "asio.ssl":
        return _TLS.get(value & 0xFFF, f"no TLS connection could be made: {error.message()}")
    if category in ("asio.misc", "asio.ssl.stream") or (category == "system" and value in _HANGING_UP):
        return "it hung up" if was_connected else "it hung up during the handshake: it may not have this offer"
    return error.message()
