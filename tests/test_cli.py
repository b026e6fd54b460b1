"""slixmpp-bt before it connects: what can be said to it, and what is wrong with that."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slixmpp import JID

from slixmpp_bt import Config, Mode, Route, __version__
from slixmpp_bt.cli import main, options
from slixmpp_bt.cli.account import Account
from slixmpp_bt.cli.failures import plain
from slixmpp_bt.plugin import MODES

from .commands import PASSWORD


def test_help_as_module_names_commands_and_exit_codes() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "slixmpp_bt.cli", "--help"], capture_output=True, text=True, check=True
    )
    words = " ".join(shown.stdout.split())
    assert all(command in words for command in ("send", "receive", "demo"))
    assert "2 wrong usage" in words
    assert shown.stderr == ""


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["play"],
        ["send"],
        ["send", "juliet@example.org"],
        ["send", "example.org", "file"],
        ["send", "a@b@c", "file"],
        ["send", "juliet@example.org", "file", "--expires", "0"],
        ["send", "juliet@example.org", "file", "--expires", "soon"],
        ["send", "juliet@example.org", "file", "--mode", "open"],
        ["send", "juliet@example.org", "file", "--port", "5222"],
        ["send", "juliet@example.org", "file", "--host", "h", "--port", "65536"],
        ["send", "juliet@example.org", "file", "--route", "road"],
        ["receive", "--from", "a@example.org", "--anybody"],
        ["receive", "--from", "a@example.org/balcony"],
        ["receive", "--anybody", "--max-size", "much"],
        ["receive", "--anybody", "--max-size", "0"],
    ],
    ids=" ".join,
)
def test_arguments_that_make_no_sense_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "error:" in capsys.readouterr().err


def says(capsys: pytest.CaptureFixture[str], words: str) -> None:
    """One line on standard error, with `words` in it, and nothing else."""
    out, error = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"slixmpp-bt: .*\n", error)
    assert words in error


def test_send_of_unreadable_file_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", "juliet@example.org", str(tmp_path / "none"), "--jid", "romeo@example.org"]) == 2
    says(capsys, "none cannot be read: No such file")


def test_command_without_account_exits_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SLIXMPP_BT_JID", raising=False)
    assert main(["send", "juliet@example.org", str(tmp_path)]) == 2
    says(capsys, "no account: give --jid, or set SLIXMPP_BT_JID")


def test_command_without_password_and_terminal_exits_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLIXMPP_BT_JID", "romeo@example.org")
    monkeypatch.delenv("SLIXMPP_BT_PASSWORD", raising=False)
    assert main(["receive", "--anybody"]) == 2
    says(capsys, "no password: give --password-file, or set SLIXMPP_BT_PASSWORD")


@pytest.mark.parametrize("option", ["--password-file", "--ca-certs"])
def test_unreadable_file_for_account_exits_2(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["receive", "--anybody", "--jid", "romeo@example.org", option, str(tmp_path)]) == 2
    says(capsys, f"{tmp_path} cannot be read: Is a directory")


@pytest.mark.parametrize(
    "text",
    ["", "hello\n", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "-----BEGIN PRIVATE KEY-----\n"],
)
def test_file_for_trust_that_is_no_certificate_exits_2(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLIXMPP_BT_PASSWORD", PASSWORD)
    file = tmp_path / "server.pem"
    file.write_text(text)
    assert main(["receive", "--anybody", "--jid", "romeo@example.org", "--ca-certs", str(file)]) == 2
    says(capsys, f"{file} is no certificate in PEM form, or a damaged one")


def test_download_directory_below_a_file_exits_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLIXMPP_BT_PASSWORD", PASSWORD)
    (tmp_path / "file").touch()
    where = tmp_path / "file" / "in" / "here"
    assert main(["receive", "--anybody", "--jid", "romeo@example.org", "--dir", str(where)]) == 2
    says(capsys, f"{where} cannot be used: {tmp_path / 'file'} is not a directory")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_download_directory_that_is_not_writable_exits_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLIXMPP_BT_PASSWORD", PASSWORD)
    tmp_path.chmod(0o500)
    assert main(["receive", "--anybody", "--jid", "romeo@example.org", "--dir", str(tmp_path / "in")]) == 2
    says(capsys, f"{tmp_path} is not writable")


def test_version_option_prints_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"slixmpp-bt {__version__}\n"


@pytest.mark.parametrize("mode", Mode)
def test_mode_option_takes_what_this_version_has(mode: Mode) -> None:
    line = ["send", "juliet@example.org", "file", "--mode", mode]
    if mode in MODES:
        assert options.parse(line).mode == mode
    else:
        with pytest.raises(SystemExit):
            options.parse(line)


@pytest.mark.parametrize("command", [["send", "juliet@example.org", "file"], ["receive"]])
def test_route_option_says_which_routes_the_plugin_uses(command: list[str]) -> None:
    assert "routes" not in options.config_of(options.parse(command))
    given = options.config_of(options.parse([*command, "--route", "relay", "--route", "in-band"]))
    assert Config.parse(given).routes == {Route.RELAY, Route.IN_BAND}


def test_empty_password_file_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "password"
    file.write_text("\nsecret\n")
    assert main(["receive", "--anybody", "--jid", "romeo@example.org", "--password-file", str(file)]) == 2
    says(capsys, "there is no password in its first line")


def test_account_with_password_file_does_not_look_at_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "password"
    file.write_text("pass word \r\nsecond line\n")
    monkeypatch.setenv("SLIXMPP_BT_PASSWORD", "other")
    arguments = ["receive", "--anybody", "--jid", "romeo@example.org/balcony", "--password-file", str(file)]
    account = Account.of(options.parse(arguments))
    assert (account.jid.full, account.password) == ("romeo@example.org/balcony", "pass word ")
    assert "pass word" not in repr(account)


def test_account_with_other_variable_takes_the_password_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIXMPP_BT_JID", "romeo@example.org")
    monkeypatch.setenv("MINE", PASSWORD)
    account = Account.of(options.parse(["receive", "--anybody", "--password-env", "MINE", "--host", "::1"]))
    assert account == Account(JID("romeo@example.org"), PASSWORD, "::1", 5222)


def test_receive_without_anybody_to_ask_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["receive", "--jid", "romeo@example.org"]) == 2
    says(capsys, "nobody is there to ask: say --from JID, or --anybody")


def test_wrong_configuration_exits_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLIXMPP_BT_PASSWORD", PASSWORD)
    who = ["--jid", "romeo@example.org", "--host", "127.0.0.1"]
    assert main(["receive", "--anybody", "--listen", "example.org", *who]) == 2
    says(capsys, "listen: 'example.org' does not appear to be an IPv4 or IPv6 address")


def test_command_without_rich_says_what_to_install() -> None:
    code = "import sys; sys.modules['rich'] = None; from slixmpp_bt.cli import main; sys.exit(main(['demo']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"slixmpp-bt: .*rich.*pip install 'slixmpp-bt\[cli\]'\n", done.stderr)


@pytest.mark.parametrize(("text", "time"), [("90", 90), ("90s", 90), ("15m", 900), ("12h", 43_200), ("7d", 604_800)])
def test_duration_with_unit_is_a_time_span(text: str, time: int) -> None:
    assert options.duration(text) == timedelta(seconds=time)


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("500m", 500_000_000), ("4GB", 4 * 10**9), ("1T", 10**12)])
def test_size_with_unit_is_a_number_of_bytes(text: str, size: int) -> None:
    assert options.size(text) == size


@given(st.text())
def test_plain_of_any_text_is_one_printable_line(text: str) -> None:
    shown = plain(text)
    assert shown.isprintable()
    assert plain(shown) == shown


def test_plain_of_terminal_and_bidi_controls_shows_that_they_were_there() -> None:
    assert plain("a\x1b[31m\u202eb\n c") == "a\ufffd[31m\ufffdb c"
