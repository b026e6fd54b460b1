"""A real XMPP server in a process of its own: on loopback only, at free ports, all its files in one directory."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self, TypeVar

import pytest

from slixmpp_bt.testing.certificates import make_certificates

HERE = Path(__file__).parent
#: Accounts that are always there. A real server keeps their rosters and messages from test to test; a test that minds
#: uses :meth:`~tests.servers.server.Server.add_user`.
USERS = ("alice", "bob", "carol", "dave")
#: What a component (XEP-0114) proves itself with.
COMPONENT_SECRET = "component-secret"
#: The components' names, before the domain.
COMPONENTS = ("bot", "gateway")
S = TypeVar("S", bound="RealServer")
T = TypeVar("T", bound="RealServer")
_PORTS = ("c2s", "component", "proxy", "http", "s2s", "internal")

# Runs a server until standard input ends, so that it dies with the test run however that dies. The shells between
# ignore SIGTERM, and so outlive the servers, which install a handler of their own for it.
_SUPERVISOR = """
trap "" TERM
"$@" </dev/null &
{ read -r _; kill -TERM 0; sleep 20; kill -KILL 0; } <&0 &
wait %1
"""


class Unavailable(Exception):
    """The server cannot be run here; the message says why, in a sentence for whoever runs the tests."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a server differs from the default one.

    :ivar domain: the one virtual host.
    :ivar address: the loopback address it listens on.
    :ivar rate_limits: keep the limits that the distribution's package ships with (Debian 12: Prosody takes 10 kB/s
        from a client, ejabberd 3,000 B/s after a burst of 20,000).
    :ivar pep_items: how many items a PEP node may have; None for as many as by default (Prosody 256, ejabberd 1,000).
    """

    domain: str = "localhost"
    address: str = "127.0.0.1"
    rate_limits: bool = False
    pep_items: int | None = None


class RealServer(ABC):
    """A server's program, its configuration and its life. A context manager: started inside, gone afterwards.

    :ivar ports: by use; the same after a restart.
    :ivar ca_certs: the certificate of the authority that vouches for the server's own.
    :ivar users_to_come: those of :data:`USERS` that have no account yet.
    :ivar neighbour: the one other server that this one talks to (XEP-0220); set before starting.
    """

    name: ClassVar[str]
    program: ClassVar[str]
    #: The account that the package made for its server; used when the tests run as root.
    account: ClassVar[str]

    ca_certs: Path

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()
        self.ports = dict(zip(_PORTS, free_ports(self.options.address, len(_PORTS)), strict=True))
        self.users_to_come = list(USERS)
        self.neighbour: RealServer | None = None
        self._cleanup = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """The command that runs the server in the foreground."""

    @abstractmethod
    def configure(self) -> dict[str, str]:
        """Write the configuration; return the environment variables that the command needs."""

    @property
    def names(self) -> list[str]:
        """The domain and those of its services."""
        domain = self.options.domain
        return [domain, *(f"{part}.{domain}" for part in ("conference", "proxy", "upload", "pubsub", *COMPONENTS))]

    @property
    def log(self) -> str:
        """What the server has written so far."""
        return (self.directory / "out.log").read_text(errors="replace")

    def __enter__(self) -> Self:
        self.directory = self._cleanup.enter_context(_directory(f"{self.name}-"))
        (self.directory / "data").mkdir()
        self.ca_certs, _ = make_certificates(self.directory, self.names)
        self._environment = self.configure()
        with ExitStack() as undo:
            undo.callback(self._cleanup.close)
            self.start()
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._cleanup.close()

    @classmethod
    def require(cls) -> None:
        """:raises Unavailable: the server is not installed, or not for this user."""
        if _which(cls.program) is None:
            raise Unavailable(f"{cls.name} is not installed (Debian: apt-get install {cls.name})")

    def start(self) -> None:
        """Start, and return when clients can connect. Data and ports are those of the last time."""
        _give_to(self.directory, self.account)
        with (self.directory / "out.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", _SUPERVISOR, "bash", *self.command()],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env=os.environ | {"HOME": str(self.directory)} | self._environment,
                start_new_session=True,
                user=self.account if as_root() else None,
                group=pwd.getpwnam(self.account).pw_gid if as_root() else None,
                extra_groups=[] if as_root() else None,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End in good order, within 20 s. Idempotent."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        self.kill()

    def kill(self) -> None:
        """End at once (SIGKILL), as in a crash. Idempotent; :meth:`start` starts it again with what it had saved."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._process = None

    def restart(self, *, kill: bool = False) -> None:
        """Stop (or `kill`) and start again; clients lose their connections."""
        if kill:
            self.kill()
        else:
            self.stop()
        self.start()

    def fill(self, template: str, into: str = ".", **values: object) -> None:
        """Write the configuration file `template` into the directory, with each ``@NAME@`` replaced."""
        text = (HERE / template).read_text()
        values |= {"dir": self.directory, "domain": self.options.domain, "address": self.options.address}
        values |= {f"{use}_port": port for use, port in self.ports.items()} | {"secret": COMPONENT_SECRET}
        other = self.neighbour or self
        values |= {"neighbour": other.options.domain, "neighbour_address": other.options.address}
        values |= {"neighbour_port": other.ports["s2s"]}
        for key, value in values.items():
            text = text.replace(f"@{key.upper()}@", str(value))
        (self.directory / into / template).write_text(text)

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        end = time.monotonic() + 60
        while not all(self._answers(self.ports[use]) for use in ("c2s", "component")):
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.name} did not start; it said:\n{self.log[-4000:]}")
            time.sleep(0.05)

    def _answers(self, port: int) -> bool:
        """Whether an XMPP server opens a stream at `port`."""
        hello = f"<stream:stream xmlns:stream='http://etherx.jabber.org/streams' to='{self.options.domain}'>"
        try:
            with socket.create_connection((self.options.address, port), 2) as connection:
                connection.sendall(hello.encode())
                return b"<stream:" in connection.recv(4096)
        except OSError:
            return False


@contextmanager
def started(server: S) -> Iterator[S]:
    """Run `server` for the length of a ``with``; without its program the test is skipped.

    With SLIXMPP_BT_REQUIRE_SERVERS=1 in the environment, as in .ci/run, it fails instead.
    """
    try:
        server.require()
    except Unavailable as missing:
        if os.environ.get("SLIXMPP_BT_REQUIRE_SERVERS") == "1":
            pytest.fail(f"SLIXMPP_BT_REQUIRE_SERVERS=1, but {missing}")
        pytest.skip(str(missing))
    with server:
        yield server


@contextmanager
def joined(one: S, other: T) -> Iterator[tuple[S, T]]:
    """Run two servers that are each other's neighbours; as :func:`started` does."""
    one.neighbour, other.neighbour = other, one
    with started(one), started(other):
        yield one, other


def free_ports(address: str, count: int) -> list[int]:
    """`count` TCP ports that nobody listens on now.

    They come from below the range from which the kernel serves port 0 (Linux: 32768 up), so that no connection of a
    test takes one before the server does.
    """
    with ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            candidate = held.enter_context(socket.socket())
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                candidate.bind((address, random.randrange(15_000, 32_000)))
                ports.append(candidate.getsockname()[1])
        return ports


def as_root() -> bool:
    """Whether the tests run as root, which no server should."""
    return os.geteuid() == 0


def _which(program: str) -> str | None:
    """As a shell finds it; the servers' own programs stand in ``/usr/sbin``, which not everybody has in PATH."""
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))


@contextmanager
def _directory(prefix: str) -> Iterator[Path]:
    """A directory that another account can reach: pytest's own lets only the user in who runs the tests."""
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as directory:
        yield Path(directory)


def _give_to(directory: Path, account: str) -> None:
    if as_root():
        for path in (directory, *directory.rglob("*")):
            shutil.chown(path, account, account)
