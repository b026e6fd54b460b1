"""slixmpp_bt.cli.again: the command line that goes on with something."""

from __future__ import annotations

import os
import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slixmpp_bt.cli import options
from slixmpp_bt.cli.again import again, quoted

FULL = (
    "receive --dir in --from a@example.org --from b@example.org --once --max-size 5000 --state-dir s "
    "--jid c@example.org/d --password-file p --host h --port 5 --ca-certs c.pem --listen ::1 --listen 127.0.0.1 "
    "--route relay"
)


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLIXMPP_BT_JID", raising=False)


def test_again_says_every_option_that_matters() -> None:
    assert again(options.parse(FULL.split()), "receive") == f"slixmpp-bt {FULL}"


def test_again_is_read_as_what_was_said() -> None:
    before = options.parse(
        ["receive", "--anybody", "--password-env", "MINE", "--dir", "it's $HOME", "--max-size", "4G"]
    )
    after = options.parse(shlex.split(again(before, "receive"))[1:])
    assert vars(before) | {"run": None} == vars(after) | {"run": None}


def test_again_of_send_names_whom_and_what_but_not_what_the_offer_holds_already() -> None:
    given = options.parse(["send", "a@example.org", "x", "y", "--desc", "d", "--expires", "5", "--mode", "private"])
    assert again(given, "send", given.to, given.paths[1]) == "slixmpp-bt send a@example.org y"


def test_again_leaves_out_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIXMPP_BT_JID", "me@example.org")
    assert again(options.parse(["receive", "--anybody"]), "receive") == "slixmpp-bt receive --anybody"
    other = options.parse(["receive", "--anybody", "--jid", "other@example.org"])
    assert again(other, "receive") == "slixmpp-bt receive --anybody --jid other@example.org"


def test_quoted_of_terminal_control_and_bytes_that_are_no_text_is_printable() -> None:
    assert quoted("plain-1.bin") == "plain-1.bin"
    assert quoted("it's") == """'it'"'"'s'"""
    assert quoted("\x1b[31m'") == r"$'\x1b[31m\x27'"
    assert quoted(os.fsdecode(b"a\xff")) == r"$'a\xff'"


def test_quoted_of_any_name_is_read_by_a_shell_as_it_was() -> None:
    names: list[str] = []

    @given(st.binary(min_size=1).filter(lambda name: b"\0" not in name))
    def collect(name: bytes) -> None:
        names.append(os.fsdecode(name))
        assert quoted(names[-1]).isprintable()

    collect()
    script = f"printf '%s\\0' {' '.join(map(quoted, names))}"
    read = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    assert read.stdout.split(b"\0")[:-1] == [os.fsencode(name) for name in names]
