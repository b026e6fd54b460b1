"""What the kernel does for tests.networks.namespaces: networks are apart, and go with whoever made them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .internet import ROOT
from .namespaces import Namespace

pytestmark = pytest.mark.usefixtures("_allowed")

_MAKER = """
import subprocess, sys
from tests.networks.internet import Internet, Line

with Internet() as net:
    host = net.attach(Line(nat=True, delay=0.001))
    with subprocess.Popen(host.command("sleep", "1000")):
        print(net.core.path.stat().st_ino, host.namespace.path.stat().st_ino, flush=True)
        sys.stdin.read()
"""


def networks() -> set[int]:
    """The networks in which there is a process."""
    found = set()
    for process in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            found.add(process.stat().st_ino)
        except OSError:  # it has ended, or is about to
            continue
    return found


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_run_that_is_killed_leaves_no_network_and_no_process(number: signal.Signals) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", _MAKER], cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe) as maker:
        assert maker.stdout is not None
        made = set(map(int, maker.stdout.readline().split()))
        assert made <= networks()
        maker.send_signal(number)
        maker.wait(30)
        until(lambda: not made & networks())


def test_networks_of_their_own_do_not_meet() -> None:
    home = Path("/proc/self/ns/net").stat().st_ino
    with Namespace() as one, Namespace() as other:
        for namespace in (one, other):
            namespace.ip("link add twin type bridge", "addr add 192.0.2.1/24 dev twin")
        assert len({one.path.stat().st_ino, other.path.stat().st_ino, home}) == 3
    with socket.socket() as probe, pytest.raises(OSError, match="assign"):
        probe.bind(("192.0.2.1", 0))


def test_socket_made_inside_is_of_that_network_and_next_one_is_not() -> None:
    with Namespace() as namespace:
        with namespace.inside(), socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            socket.create_connection(("127.0.0.1", port)).close()
        assert Path("/proc/thread-self/ns/net").stat().st_ino != namespace.path.stat().st_ino


def test_command_that_fails_inside_says_what_it_said() -> None:
    with Namespace() as namespace, pytest.raises(RuntimeError, match="Cannot find device"):
        namespace.ip("link set nothing up")


def test_process_inside_dies_with_its_command() -> None:
    with Namespace() as namespace:
        words = namespace.command("sh", "-c", "echo here; exec sleep 1000")
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"here\n"
            process.kill()
            assert process.stdout.read() == b""  # nobody holds the pipe any more


def test_closed_namespace_can_be_closed_again() -> None:
    namespace = Namespace()
    pid = namespace.pid
    namespace.close()
    namespace.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
