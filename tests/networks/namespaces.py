"""Linux namespaces that hold a network: made without a name, gone with the process that made them, however that ends.

A :class:`Namespace` is a shell of its own network, mounts and process numbers that waits for the end of its standard
input. When that ends, be it by :meth:`Namespace.close` or because the test run was killed, the shell ends, the kernel
ends every process inside, and then removes the devices, addresses, routes and firewall. Nothing is made in the
machine's own namespace, so two runs at once never meet, and nothing can be left over.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NEWNET = 0x40000000  # CLONE_NEWNET, sched.h
_PROGRAMS = ("unshare", "nsenter", "setpriv", "ip", "iptables", "ip6tables", "sysctl")
_UNSHARE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
#: nsenter has to fork, so what it runs is told to die with it.
_BOUND = ("--", "setpriv", "--pdeathsig", "KILL")
#: What holds the namespaces.
_HOLD = "echo ready; read -r _"
#: Puts standard input over ``/etc/hosts``, by a file that is nowhere but inside.
_NAMES = "mount -t tmpfs tmpfs /mnt && cat >/mnt/hosts && mount --bind /mnt/hosts /etc/hosts && umount -l /mnt"
_PATIENCE = 20.0

_libc = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):
    """Namespaces cannot be made here; the message says why, in a sentence for whoever runs the tests."""


def require() -> None:
    """
    :raises Unavailable: a program or a right that the networks need is missing.
    """
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        raise Unavailable(f"not installed: {', '.join(missing)} (Debian: apt-get install iproute2 iptables procps)")
    if os.geteuid() != 0:
        raise Unavailable("network namespaces need root")
    if not Path("/dev/net/tun").exists():
        raise Unavailable("there is no /dev/net/tun for lines with a delay")
    try:
        with Namespace() as namespace:
            namespace.iptables("-t nat -A POSTROUTING -j MASQUERADE", versions=(4,))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        raise Unavailable(f"network namespaces are not allowed here: {error}") from error


class Namespace:
    """A network with nothing but a loopback device, which is up. Close it, or use it as a context manager.

    :param hosts: what stands in ``/etc/hosts`` inside; empty for what stands there anyway.
    :raises OSError: the kernel or its guard forbids it; the message is the program's own.
    :ivar pid: of a process in this network, as the outside counts, for ``ip link add ... netns PID``.
    """

    def __init__(self, hosts: str = "") -> None:
        self._holder = subprocess.Popen(
            [*_UNSHARE, "sh", "-c", _HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        self.pid = self._holder.pid
        try:
            self._wait_until_ready()
            # Nobody else is there, so addresses can be used at once, without asking around first.
            self.sysctl("net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")
            self.ip("link set lo up")
            if hosts:
                _run(self.command("sh", "-c", _NAMES), hosts)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The kernel's handle of the network, for ``setns``."""
        return Path(f"/proc/{self.pid}/ns/net")

    def command(self, *words: str) -> list[str]:
        """The command that runs `words` inside, in the present working directory and environment. Whoever kills its
        process kills what runs inside."""
        # unshare itself stays in the old process namespace; the one it made is that of its children.
        processes = f"--pid=/proc/{self.pid}/ns/pid_for_children"
        return ["nsenter", "-t", str(self.pid), "--net", "--mount", processes, "--wd=.", *_BOUND, *words]

    def run(self, *words: str) -> str:
        """Run `words` inside, to their end, and return what they print.

        :raises RuntimeError: they failed; with what they said.
        """
        return _run(self.command(*words))

    def ip(self, *lines: str) -> None:
        """Have ``ip`` carry out `lines`, one after another.

        :raises RuntimeError: one of them failed.
        """
        # From outside the process namespace, so that `netns PID` means the same for all.
        command = ["nsenter", f"--net={self.path}", "ip", "-batch", "-"]
        _run(command, "\n".join(lines) + "\n")

    def iptables(self, *lines: str, versions: tuple[int, ...] = (4, 6)) -> None:
        """Add to the firewall of both IP versions, or one of them.

        :raises RuntimeError: a line is wrong.
        """
        for version in versions:
            for line in lines:
                self.run("iptables" if version == 4 else "ip6tables", *line.split())

    def sysctl(self, *settings: str) -> None:
        """Set kernel parameters of this network, such as ``net.ipv4.ip_forward=1``."""
        self.run("sysctl", "-q", "-w", *settings)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets and processes that this thread makes within the ``with`` are in this network.

        Not for coroutines that wait: others of the same thread would be in it too.
        """
        with Path("/proc/thread-self/ns/net").open() as home, self.path.open() as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def close(self) -> None:
        """End every process inside and remove the network. Idempotent."""
        if self._holder.returncode is None:
            with suppress(subprocess.TimeoutExpired):
                self._holder.communicate(timeout=_PATIENCE)  # the end of its input
            self._holder.kill()
            self._holder.wait()

    def _wait_until_ready(self) -> None:
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if self._holder.stdout.readline() != b"ready\n":
            raise PermissionError(self._holder.stderr.read().decode(errors="replace").strip() or "unshare failed")


def _run(command: list[str], stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=_PATIENCE)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}\n{stdin}".rstrip())
    return done.stdout


def _enter(fd: int) -> None:
    if _libc.setns(fd, _NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
