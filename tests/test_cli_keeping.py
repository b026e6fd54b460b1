"""slixmpp_bt.cli.keeping: one command of an account keeps at a time, always as the same device."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest
from slixmpp import JID

from slixmpp_bt import Config
from slixmpp_bt.cli import main, options
from slixmpp_bt.cli.failures import Failure
from slixmpp_bt.cli.keeping import Keep

from .commands import PASSWORD

BOB, CAROL = JID("bob@localhost/phone"), JID("carol@localhost")


def hold(*words: str, jid: JID = BOB, command: str = "receive") -> Keep:
    return Keep.hold(options.parse(["receive", *words]), jid, command)


def test_keep_in_the_users_state_directory_is_nobody_elses(tmp_path: Path) -> None:
    with hold() as keep:
        assert (keep.directory, keep.instance, keep.why_not) == (Config().state_dir, "receive", None)
        assert keep.directory is not None
        assert {stat.S_IMODE(path.stat().st_mode) for path in keep.directory.iterdir()} == {0o600}
        assert stat.S_IMODE(keep.directory.stat().st_mode) == 0o700


def test_keep_again_is_the_same_device_for_this_account_and_command_only() -> None:
    with hold() as first, hold(command="send") as other, hold(jid=CAROL) as of_carol:
        names = {first.resource, other.resource, of_carol.resource}
    assert len(names) == 3
    with hold() as again:
        assert again.resource == first.resource


def test_keep_with_a_damaged_name_takes_a_new_one(tmp_path: Path) -> None:
    with hold("--state-dir", str(tmp_path)) as keep:
        name = keep.resource
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"\xff/ bob@localhost" * 10)
    with hold("--state-dir", str(tmp_path)) as keep:
        assert keep.resource != name
        assert file.read_text() == keep.resource


def test_second_keep_at_once_keeps_nothing_and_is_another_device() -> None:
    with hold() as first:
        with hold() as second:
            assert (second.directory, second.why_not) == (None, "another receive of bob@localhost is running")
            assert second.resource != first.resource
        with hold() as third:
            assert third.directory is None


def test_keep_of_nothing_leaves_no_trace(tmp_path: Path) -> None:
    with hold("--no-keep") as keep:
        assert (keep.directory, keep.why_not) == (None, None)
    directory = Config().state_dir
    assert directory is not None
    assert not directory.exists()


def test_default_directory_that_cannot_be_used_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with hold() as keep:
        assert keep.directory is None
        assert keep.why_not == f"{tmp_path}/file/slixmpp-bt cannot be used: Not a directory"


def test_named_directory_that_cannot_be_used_exits_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLIXMPP_BT_PASSWORD", PASSWORD)
    (tmp_path / "file").touch()
    words = ["--state-dir", str(tmp_path / "file" / "in")]
    with pytest.raises(Failure):
        hold(*words)
    assert main(["receive", "--anybody", "--jid", "bob@localhost", *words]) == 2
    assert capsys.readouterr().err == f"slixmpp-bt: {tmp_path}/file/in cannot be used: Not a directory\n"


def test_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    with hold("--state-dir", str(tmp_path)):
        (file,) = tmp_path.iterdir()
    file.unlink()
    file.symlink_to(tmp_path / "victim")
    with pytest.raises(Failure):
        hold("--state-dir", str(tmp_path))
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize(
    ("words", "said"), [(["--no-keep"], "slixmpp-bt: stopped. Nothing is kept: "), ([], "kept: this\nkept: that\n")]
)
def test_end_of_a_stopped_command_says_what_is_kept(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = hold(*words)
    keep.note(["kept: this", "kept: that"])
    keep.__exit__(asyncio.CancelledError, None, None)
    assert capsys.readouterr().err.startswith(said)


def test_plugin_without_its_state_keeps_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with hold() as keep:
        keep.fail()
        keep.note(["kept: this"])
        assert keep.why_not == f"what is kept in {Config().state_dir} cannot be opened"
    assert capsys.readouterr().err == ""


def test_keep_is_known_once_there_was_one() -> None:
    given = options.parse(["cancel"])
    assert not Keep.is_known(given, BOB, "receive")
    with hold():
        pass
    assert Keep.is_known(given, JID("bob@localhost/elsewhere"), "receive")
    assert not Keep.is_known(given, BOB, "send")
