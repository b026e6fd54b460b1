"""Every setting of libtorrent that is not its default, in one place to tune."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import libtorrent as lt

from ...config import Endpoint
from ..base import RateLimits

#: Progress of blocks, peers' chatter and logs are left out: each alert is a lock and a copy in the engine.
ALERTS: Final = (
    lt.alert_category.status
    | lt.alert_category.error
    | lt.alert_category.storage
    | lt.alert_category.connect
    | lt.alert_category.piece_progress
    | lt.alert_category.port_mapping
)

#: The group ffdhe2048 (RFC 7919 appendix A.1), which libtorrent wants with every certificate. TLS 1.3 does without.
DH_PARAMETERS: Final = """\
-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""

#: Seconds, times one more than the failures so far (at most 31), before the engine dials a candidate again.
RECONNECT: Final = 1

#: Seconds that dialling by uTP may take.
UTP_PATIENCE: Final = 2.0

_FIXED: Final[lt.settings_pack] = {
    "alert_mask": ALERTS,
    # A disk that fails posts two alerts for each 16 KiB block not written; none of the others may get lost then.
    "alert_queue_size": 100_000,
    # Nobody else is told what is transferred, nor with what.
    "enable_dht": False,
    "enable_lsd": False,
    "user_agent": "slixmpp_bt",
    "peer_fingerprint": "",
    # A handshake that hides what is spoken and the info-hash; what follows is left as it is.
    "out_enc_policy": lt.enc_policy.pe_forced,
    "in_enc_policy": lt.enc_policy.pe_forced,
    "allowed_enc_level": lt.enc_level.pe_plaintext,
    "prefer_rc4": False,
    # A port asked for is that port or an error.
    "max_retry_port_bind": 0,
    "listen_system_port_fallback": False,
    # Several devices behind one address; finished ones stay connected, as they may be told to fetch more.
    "allow_multiple_connections_per_ip": True,
    "close_redundant_connections": False,
    "connections_limit": 1_000,
    # Who finds the queue of 5 full is left to try again a second later.
    "listen_queue_size": 128,
    "unchoke_slots_limit": -1,
    # Dialling: all candidates at once, again after RECONNECT, and never given up.
    "connection_speed": 200,
    "torrent_connect_boost": 64,
    "min_reconnect_time": RECONNECT,
    "max_failcount": 32,
    "peer_connect_timeout": 4,
    "handshake_timeout": 10,
    # A peer whose address has changed hangs up on nobody, and while it counts as connected it is not let in again.
    "peer_timeout": 15,
    # uTP is ten times slower, yet libtorrent would dial by it first: see Session.dial_now. Nor is TCP slowed down for
    # its sake.
    "enable_outgoing_utp": False,
    "utp_connect_timeout": int(UTP_PATIENCE * 1_000),
    "mixed_mode_algorithm": lt.bandwidth_mixed_algo_t.prefer_tcp,
    # Each further one wakes for the same blocks: ten took twice the processor's time for the same bytes.
    "aio_threads": 1,
    # What arrives faster than the disk takes it is in memory, and more of it makes nothing faster.
    "max_queued_disk_bytes": 32 * 1024 * 1024,
    # What is asked for ahead cannot be left to others any more (slixmpp_bt.shares); no way takes a second.
    "request_queue_time": 1,
    # libtorrent 2.0 maps files into memory, where a full disk or a file cut short kills the process (SIGBUS).
    "disk_write_mode": lt.mmap_write_mode_t.always_pwrite,
    "mmap_file_size_cutoff": 2**31 - 1,
}


def session_settings(listen: Iterable[Endpoint], rates: RateLimits, port_mapping: bool) -> lt.settings_pack:
    """What a session starts with."""
    return {
        **_FIXED,
        **rate_settings(rates),
        "listen_interfaces": ",".join(map(_interfaces, listen)),
        "enable_upnp": port_mapping,
        "enable_natpmp": port_mapping,
    }


def rate_settings(rates: RateLimits) -> lt.settings_pack:
    """The caps in the engine's words, where 0 is none."""
    return {"upload_rate_limit": rates.upload or 0, "download_rate_limit": rates.download or 0}


def one_class_for_all() -> lt.ip_filter:
    """A peer class filter by which peers on the local network are capped like all others."""
    everybody = lt.ip_filter()
    mask = 1 << lt.session.global_peer_class_id
    everybody.add_rule("0.0.0.0", "255.255.255.255", mask)  # noqa: S104 - a range of peers, nothing is bound to it
    everybody.add_rule("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", mask)
    return everybody


def _interfaces(endpoint: Endpoint) -> str:
    """A port for TLS, which is the one asked for, and any port without: libtorrent cannot use one for both."""
    host = f"[{endpoint.address}]" if endpoint.address.version == 6 else str(endpoint.address)
    return f"{host}:{endpoint.port}s,{host}:0"
