"""The parts of the libtorrent backend that need no session: addresses, reasons, parameters."""

from __future__ import annotations

import errno
from ipaddress import ip_address
from pathlib import Path

import libtorrent as lt
import pytest

from slixmpp_bt.backends import RateLimits
from slixmpp_bt.backends._libtorrent.listening import Listening
from slixmpp_bt.backends._libtorrent.params import download_params, engine_indices, seed_params
from slixmpp_bt.backends._libtorrent.refusals import refusal
from slixmpp_bt.backends._libtorrent.settings import session_settings
from slixmpp_bt.config import Endpoint
from slixmpp_bt.constants import Mode
from slixmpp_bt.messages import MAX_CANDIDATES
from slixmpp_bt.testing._material import KIB, material

EVERYWHERE = (Endpoint.parse("0.0.0.0"), Endpoint.parse("::"))


def listening(*addresses: str, listen: tuple[Endpoint, ...] = EVERYWHERE) -> Listening:
    """As if the engine had told of these addresses, all of them this host's own."""
    found = Listening(listen, is_ours=lambda _: True)
    for number, address in enumerate(addresses):
        found.succeeded(Mode.SEALED, address, 7000 + number)
        found.succeeded(Mode.PRIVATE, address, 8000 + number)
    return found


def told(found: Listening, mode: Mode = Mode.SEALED) -> list[str]:
    return [str(candidate) for candidate in found.candidates(mode)]


# Addresses


def test_candidates_begin_with_public_ipv6() -> None:
    found = listening("127.0.0.1", "10.0.0.1", "::1", "fd00::1", "2001:4860::1", "8.8.4.4")
    assert told(found) == ["[2001:4860::1]:7004", "[fd00::1]:7003", "8.8.4.4:7005", "10.0.0.1:7001"]


def test_candidates_on_loopback_only_where_it_was_asked_for() -> None:
    assert told(listening("127.0.0.1", "::1")) == []
    assert told(listening("127.0.0.1", "::1", listen=(Endpoint.parse("127.0.0.1"),))) == ["127.0.0.1:7000"]


def test_candidates_link_local_only_for_want_of_better() -> None:
    assert told(listening("fe80::1%lo", "169.254.1.1", "10.0.0.1")) == ["10.0.0.1:7002"]
    assert told(listening("fe80::1%lo", "169.254.1.1")) == ["169.254.1.1:7001"]


def test_candidates_are_at_most_eight() -> None:
    assert len(told(listening(*(f"10.0.0.{number}" for number in range(1, 12))))) == MAX_CANDIDATES


def test_candidates_that_went_are_not_told() -> None:
    found = Listening(EVERYWHERE)
    found.succeeded(Mode.SEALED, "192.0.2.77", 7000)  # reserved for documentation: no host's own
    assert told(found) == []


def test_candidates_with_a_mapped_port_tell_the_outer_address() -> None:
    found = listening("10.0.0.1")
    found.mapped("first", 6999)
    assert told(found) == ["10.0.0.1:7000"]
    assert found.seen_as("8.8.4.4") == ip_address("8.8.4.4")
    assert told(found) == ["8.8.4.4:6999", "10.0.0.1:7000"]
    found.mapped("first", 6998)
    assert told(found) == ["8.8.4.4:6998", "10.0.0.1:7000"]


def test_candidates_with_ports_mapped_to_themselves_tell_each_mode_its_own() -> None:
    found = listening("10.0.0.1")
    found.seen_as("8.8.4.4")
    found.mapped("first", 7000)
    found.mapped("second", 8000)
    assert told(found, Mode.SEALED) == ["8.8.4.4:7000", "10.0.0.1:7000"]
    assert told(found, Mode.PRIVATE) == ["8.8.4.4:8000", "10.0.0.1:8000"]


def test_port_is_that_of_the_mode_and_the_family() -> None:
    found = listening("127.0.0.1", "10.0.0.1", "fd00::1")
    assert found.port(Mode.SEALED, ip_address("203.0.113.1")) == 7001
    assert found.port(Mode.PRIVATE, ip_address("203.0.113.1")) == 8001
    assert found.port(Mode.PRIVATE, ip_address("2001:db8::1")) == 8002


def test_complete_needs_a_socket_for_every_mode() -> None:
    found = Listening(EVERYWHERE)
    found.succeeded(Mode.PRIVATE, "10.0.0.1", 7000)
    assert not found.complete
    found.succeeded(Mode.SEALED, "10.0.0.1", 7001)
    assert found.complete


def test_failure_names_every_socket() -> None:
    found = Listening(EVERYWHERE)
    found.failed("first: taken")
    found.failed("second: forbidden")
    assert not found.complete
    assert "taken" in found.failure
    assert "forbidden" in found.failure


# Reasons


@pytest.mark.parametrize(
    ("code", "connected", "words"),
    [
        (errno.ECONNREFUSED, False, "nothing listens"),
        (errno.ETIMEDOUT, False, "not answer"),
        (errno.EHOSTUNREACH, False, "no way"),
        (errno.ECONNRESET, True, "hung up"),
        (errno.ECONNRESET, False, "may not have this offer"),
    ],
)
def test_refusal_by_the_system_is_put_in_words(code: int, connected: bool, words: str) -> None:
    reason = refusal(lt.error_code(code, lt.system_category()), connected)
    assert reason is not None
    assert words in reason


def test_refusal_by_ourselves_is_none() -> None:
    engine = lt.libtorrent_category()
    ours = {"torrent paused", "torrent aborted", "torrent removed", "stopping torrent"}
    numbers = {engine.message(number): number for number in range(150)}
    for text in ours:
        assert refusal(lt.error_code(numbers[text], engine), True) is None, text
    for text in ("connected to ourselves", "timed out: no handshake"):
        reason = refusal(lt.error_code(numbers[text], engine), False)
        assert reason not in (None, text)


# Parameters


@pytest.mark.parametrize("sizes", [(1,), (16 * KIB,), (5, 16 * KIB, 0, 40 * KIB, 32 * KIB, 0, 0, 7), (0, 300 * KIB, 1)])
async def test_engine_indices_are_libtorrents(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    given = await material(tmp_path, *sizes)
    params = download_params(given.manifest, given.parts, given.manifest.layers, (), ())
    assert params.ti is not None
    files = params.ti.layout() if hasattr(params.ti, "layout") else params.ti.files()
    pads = [bool(files.file_flags(index) & lt.file_storage.flag_pad_file) for index in range(files.num_files())]
    assert [index for index, pad in enumerate(pads) if not pad] == list(engine_indices(given.manifest))
    assert [files.file_size(index) for index in engine_indices(given.manifest)] == [
        file.size for file in given.manifest.files
    ]


async def test_params_leave_no_name_of_the_offer(tmp_path: Path) -> None:
    given = await material(tmp_path, 5, 6, 7)
    chosen = {1: given.parts[1]}
    params = download_params(given.manifest, chosen, {}, (), ())
    names = [params.renamed_files[index] for index in engine_indices(given.manifest)]
    assert names[1] == str(given.parts[1])
    assert not any(file.path[-1] in names for file in given.manifest.files)


async def test_seed_params_never_write(tmp_path: Path) -> None:
    given = await material(tmp_path, 300 * KIB, 7)
    for select in (None, frozenset({1})):
        params = seed_params(given.manifest, given.paths, given.manifest.layers, select)
        assert params.flags & lt.torrent_flags.upload_mode
        assert params.flags & lt.torrent_flags.paused
        assert not params.flags & lt.torrent_flags.auto_managed


# Settings


def test_session_settings_listen_where_they_are_told() -> None:
    settings = session_settings((*EVERYWHERE, Endpoint.parse("10.0.0.1:6881")), RateLimits(1000, None), True)
    assert settings["listen_interfaces"] == "0.0.0.0:0s,0.0.0.0:0,[::]:0s,[::]:0,10.0.0.1:6881s,10.0.0.1:0"
    assert settings["upload_rate_limit"] == 1000
    assert settings["download_rate_limit"] == 0
    assert settings["enable_upnp"]
    assert settings["enable_natpmp"]
