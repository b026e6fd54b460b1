"""The certificates of the loopback server."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from slixmpp_bt.testing.certificates import make_certificates


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> str:
    """The version of TLS that the two agree on, without a socket."""
    pipes = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = client.wrap_bio(pipes[0], pipes[1], server_hostname=name), server.wrap_bio(*pipes[::-1], server_side=True)
    waiting = list(ends)
    while waiting:
        for end in tuple(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)
    return str(ends[0].version())


@pytest.mark.parametrize("name", ["localhost", "conference.localhost", "bücher.test"])
def test_certificate_each_name_is_vouched_for(tmp_path: Path, name: str) -> None:
    ca, server = make_certificates(tmp_path, ["localhost", "conference.localhost", "bücher.test"])
    client = ssl.create_default_context(cafile=ca)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    assert shake_hands(client, server, name) == "TLSv1.3"


def test_certificate_other_name_is_not(tmp_path: Path) -> None:
    ca, server = make_certificates(tmp_path, ["localhost"])
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(ssl.create_default_context(cafile=ca), server, "elsewhere.test")


def test_certificate_of_another_authority_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    ca, _ = make_certificates(tmp_path / "a", ["localhost"])
    _, server = make_certificates(tmp_path / "b", ["localhost"])
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(ssl.create_default_context(cafile=ca), server, "localhost")


def test_certificate_context_refuses_old_versions(tmp_path: Path) -> None:
    assert make_certificates(tmp_path, ["localhost"])[1].minimum_version == ssl.TLSVersion.TLSv1_2


def test_certificate_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    make_certificates(tmp_path, ["localhost"])
    assert [p.name for p in tmp_path.iterdir() if b"PRIVATE KEY" in p.read_bytes()] == ["server.pem"]
    assert (tmp_path / "server.pem").stat().st_mode & 0o777 == 0o600
