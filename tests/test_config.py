"""The configuration: what a user may write, and that everything else is refused in words."""

from __future__ import annotations

import functools
from dataclasses import FrozenInstanceError, fields
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slixmpp import JID

from slixmpp_bt.config import DAY, GIB, KIB, MIB, Config, Endpoint, Limits
from slixmpp_bt.constants import Mode, Route
from slixmpp_bt.errors import ConfigError


async def consult(offer: object) -> bool:
    return True


class Asks:
    async def __call__(self, offer: object) -> bool:
        return True


def test_parse_of_nothing_gives_the_defaults() -> None:
    assert Config.parse(None) == Config.parse({}) == Config()
    config = Config()
    assert config.auto_accept is False
    assert config.download_dir is None
    assert config.listen == (Endpoint(IPv4Address(0)), Endpoint(IPv6Address(0)))
    assert config.routes == frozenset(Route)
    assert config.reveal_address == "invited"
    assert config.limits == Limits(
        GIB, 10_000, 4 * MIB, 20, 32, 256 * MIB, 2 * MIB, offer_ttl=7 * DAY, transfer_ttl=30 * DAY
    )


GOOD: list[tuple[str, object, object]] = [
    ("download_dir", None, None),
    ("state_dir", None, None),
    ("mode", "private", Mode.PRIVATE),
    ("mode", Mode.SEALED, Mode.SEALED),
    ("instance", "second-1", "second-1"),
    ("listen", "127.0.0.1", (Endpoint(IPv4Address("127.0.0.1")),)),
    ("listen", ["127.0.0.1:6881", "[::1]:6882", "::1"],
     (Endpoint(ip_address("127.0.0.1"), 6881), Endpoint(ip_address("::1"), 6882), Endpoint(ip_address("::1")))),
    ("advertise", (), ()),
    ("advertise", "203.0.113.7:6881", (Endpoint(ip_address("203.0.113.7"), 6881),)),
    ("reveal_address", "never", "never"),
    ("port_mapping", True, True),
    ("backend", "plain", "plain"),
    ("backend", consult, consult),
    ("routes", "all", frozenset(Route)),
    ("routes", ["swarm", Route.INLINE], frozenset({Route.SWARM, Route.INLINE})),
    ("upload_limit", None, None),
    ("download_limit", 64 * KIB, 65_536),
    ("seed_after", 0, 0),
    ("limits", {"max_size": 5}, Limits(max_size=5)),
    ("limits", Limits(max_files=5), Limits(max_files=5)),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "understood"), GOOD)
def test_parse_of_a_good_value_understands_it(key: str, value: object, understood: object) -> None:
    assert getattr(Config.parse({key: value}), key) == understood


WRONG: list[tuple[str, object]] = [
    ("download_dir", ""), ("download_dir", 5), ("download_dir", b"inbox"), ("download_dir", "in\0box"),
    ("download_dir", "\ud800"), ("download_dir", "~nobody-of-that-name/inbox"), ("download_dir", "n" * 5_000),
    ("state_dir", __file__), ("state_dir", __file__ + "/below"),
    ("mode", "open"), ("mode", None), ("mode", []),
    ("instance", ""), ("instance", "a/b"), ("instance", ".."), ("instance", "é"), ("instance", "x\n"),
    ("instance", "x" * 65), ("instance", None),
    ("listen", []), ("listen", "localhost"), ("listen", 6881), ("listen", "1.2.3.4:"), ("listen", "1.2.3.4:65536"),
    ("listen", "1.2.3.4:-1"), ("listen", "1.2.3.4:\u0661"), ("listen", "[::1]:"), ("listen", "[::1"),
    ("listen", "[::1]x"),
    ("listen", "[1.2.3.4]:5"), ("listen", "1.2.3.4:" + "1" * 5_000), ("listen", ["1.2.3.4", None]), ("listen", "1.2.3"),
    ("listen", ""), ("listen", None), ("advertise", "0.0.0.0:6881"), ("advertise", "[::]:6881"),
    ("advertise", "224.0.0.1"), ("advertise", "bot.example"),
    ("reveal_address", True), ("reveal_address", "all"),
    ("port_mapping", 1), ("port_mapping", None),
    ("backend", "rtorrent"), ("backend", None), ("backend", 1),
    ("routes", []), ("routes", "swarm"), ("routes", ["pigeon"]), ("routes", None), ("routes", [None]),
    ("upload_limit", 0), ("upload_limit", -1), ("upload_limit", 1.5), ("upload_limit", True), ("upload_limit", 2**63),
    ("seed_after", -1), ("seed_after", None), ("seed_after", "1 day"),
    ("limits", {"max_size": 0}), ("limits", {"max_size": True}), ("limits", {"max_size": None}), ("limits", None),
    ("limits", {"min_free_space": -1}), ("limits", {1: 2}), ("limits", [("max_size", 1)]),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_parse_of_a_wrong_value_names_the_key(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key):
        Config.parse({key: value})


@pytest.mark.parametrize("value", ["~nobody-of-that-name", "friends", [5], ["a@b", None], 5, None, [""], ["a b@c"],
                                   ["\ud800"], ["romeo@montague.lit/orchard"], lambda offer: True])  # fmt: skip
def test_parse_of_a_wrong_auto_accept_names_the_key(value: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="auto_accept"):
        Config.parse({"auto_accept": value, "download_dir": tmp_path})


@pytest.mark.parametrize("value", [True, "roster", consult, functools.partial(consult), Asks()])
def test_parse_of_a_rule_for_auto_accept_keeps_it(value: object, tmp_path: Path) -> None:
    assert Config.parse({"auto_accept": value, "download_dir": tmp_path}).auto_accept is value


def test_parse_of_jids_in_auto_accept_normalises_them(tmp_path: Path) -> None:
    config = Config.parse({"auto_accept": ["Romeo@Montague.LIT", JID("juliet@capulet.lit")], "download_dir": tmp_path})
    assert config.auto_accept == frozenset({JID("romeo@montague.lit"), JID("juliet@capulet.lit")})


@pytest.mark.parametrize("value", [True, "roster", ["a@b"], [], consult])
def test_parse_of_auto_accept_without_download_dir_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="download_dir"):
        Config.parse({"auto_accept": value})


def test_parse_of_a_relative_directory_makes_it_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Config.parse({"download_dir": "inbox"}).download_dir == tmp_path / "inbox"
    assert not (tmp_path / "inbox").exists()


def test_parse_of_a_home_directory_expands_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Config.parse({"state_dir": "~/state"}).state_dir == tmp_path / "state"


@pytest.mark.parametrize(
    ("given_", "nearest"),
    [({"download_dri": "x"}, "'download_dir'"), ({"autoaccept": True}, "'auto_accept'"), ({"limit": 1}, "'limits'"),
     ({"limits": {"max_sise": 5}}, "'max_size'")],
)  # fmt: skip
def test_parse_of_a_misspelt_key_names_the_nearest(given_: dict[str, Any], nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean {nearest}"):
        Config.parse(given_)


@pytest.mark.parametrize("given_", [{1: 2}, {"self": 1}, {"": 1}, {"zzzzzz": 1}, "inbox", 5, [("mode", "private")]])
def test_parse_of_what_is_no_configuration_is_a_config_error(given_: Any) -> None:
    with pytest.raises(ConfigError):
        Config.parse(given_)


def test_replace_with_a_wrong_value_changes_nothing(tmp_path: Path) -> None:
    config = Config.parse({"download_dir": tmp_path, "auto_accept": True})
    with pytest.raises(ConfigError):
        config.replace(seed_after=5, mode="open")
    with pytest.raises(ConfigError, match="download_dir"):
        config.replace(download_dir=None)
    assert config == Config.parse({"download_dir": tmp_path, "auto_accept": True})


def test_replace_of_some_limits_keeps_the_others() -> None:
    config = Config.parse({"limits": {"max_size": 5}}).replace(limits={"max_files": 6})
    assert config.limits == Limits(max_size=5, max_files=6)


def test_config_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Config().mode = Mode.SEALED  # type: ignore[misc]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.sampled_from([*Mode, *Route]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from([f.name for f in fields(Config)]) | st.text() | st.integers(), values, max_size=3)
)
@settings(deadline=None)
def test_parse_of_anything_raises_only_config_errors(given_: Any) -> None:
    try:
        config = Config.parse(given_)
    except ConfigError:
        return
    assert isinstance(config, Config)


@given(st.ip_addresses(), st.integers(0, 65_535))
@settings(deadline=None)
def test_endpoint_parse_of_host_and_port_reads_both(address: IPv4Address | IPv6Address, port: int) -> None:
    host = f"[{address}]" if address.version == 6 else str(address)
    assert Endpoint.parse(f"{host}:{port}") == Endpoint(address, port)
    assert Endpoint.parse(str(address)) == Endpoint(address)


@given(st.text("0123456789abcdef.:[]%") | st.text())
@settings(deadline=None)
def test_endpoint_parse_of_anything_raises_only_value_errors(text: str) -> None:
    try:
        endpoint = Endpoint.parse(text)
    except ValueError:
        return
    assert 0 <= endpoint.port <= 65_535
