"""What the ways need around them: XMPP servers, magic-wormhole's two servers, files; all of it on loopback, and gone
afterwards."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from tests.networks.namespaces import Namespace
from tests.servers import PASSWORD, Ejabberd, Process, Prosody, RealServer, started
from tests.servers.process import free_ports

MIB = 1024**2
#: Larger than any file here: what an operator would have to allow for such files.
_MOST = 1 << 36
_WRITE = 16 * MIB


class OpenProsody(Prosody):
    """Prosody that takes uploads of any size."""

    def configure(self) -> dict[str, str]:
        environment = super().configure()
        path = self.directory / "prosody.cfg.lua"
        limits = f"http_file_share_size_limit = {_MOST}\n    http_file_share_daily_quota = {_MOST}\n"
        text = path.read_text().replace("    http_host =", f"    {limits}    http_host =", 1)
        path.write_text("\n" + text)
        return environment


class OpenEjabberd(Ejabberd):
    """ejabberd that takes uploads of any size."""

    def configure(self) -> dict[str, str]:
        environment = super().configure()
        path = self.directory / "ejabberd.yml"
        path.write_text(path.read_text().replace("    docroot:", "    max_size: infinity\n    docroot:", 1))
        return environment


SERVERS: dict[str, type[RealServer]] = {"prosody": OpenProsody, "ejabberd": OpenEjabberd}


@dataclass(frozen=True, slots=True)
class Account:
    """What a side needs to log in."""

    jid: str
    password: str
    host: str
    port: int
    ca_certs: str

    def config(self) -> dict[str, Any]:
        """For :class:`benchmarks.ends.xmpp.XmppEnd`."""
        return {name: getattr(self, name) for name in self.__slots__}


class Places:
    """An asynchronous context manager; what is asked for is started then, once.

    :ivar folder: for everything that is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o755)  # the servers run as other users
        self._stack = AsyncExitStack()
        self._servers: dict[str, Process] = {}
        self._files: dict[tuple[int, str], Path] = {}
        self._wormhole: tuple[list[str], dict[str, str]] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def server(self, name: str) -> Process:
        """The XMPP server ``prosody`` or ``ejabberd``, without limits of rate or size."""
        if name not in self._servers:
            process = await asyncio.to_thread(self._stack.enter_context, started(SERVERS[name]()))
            self._servers[name] = await self._stack.enter_async_context(Process(process))
        return self._servers[name]

    async def accounts(self, name: str, *resources: str) -> list[Account]:
        """Two new accounts on the server `name` that see each other: the first for the first of `resources`, the
        second for the others."""
        server = await self.server(name)
        alice, bob = await server.add_user("alice"), await server.add_user("bob")
        await server.subscribe(alice, bob)
        jids = [f"{alice if index == 0 else bob}/{resource}" for index, resource in enumerate(resources)]
        return [Account(jid, PASSWORD, server.host, server.port, str(server.ca_certs)) for jid in jids]

    async def wormhole(self) -> tuple[list[str], dict[str, str]]:
        """A command prefix that runs a program where there is nothing but loopback, and where the servers are there.

        magic-wormhole listens on all addresses, so it gets a network of its own.

        :raises ModuleNotFoundError: it is not installed.
        """
        if self._wormhole is None:
            import_module("wormhole")
            inside = self._stack.enter_context(Namespace())
            mailbox, relay = free_ports("127.0.0.1", 2)
            here = await asyncio.to_thread(self.new_folder, "wormhole")
            twist = [*inside.command(sys.executable), "-m", "twisted"]
            await self._run(*twist, "wormhole-mailbox", f"--port=tcp:{mailbox}", f"--channel-db={here / 'db'}")
            await self._run(*twist, "transitrelay", f"--port=tcp:{relay}")
            where = {"mailbox": f"ws://127.0.0.1:{mailbox}/v1", "relay": f"tcp:127.0.0.1:{relay}"}
            self._wormhole = inside.command(), where
            await self._wait_for(inside, mailbox, relay)
        return self._wormhole

    async def file(self, size: int, name: str = "file") -> Path:
        """A file of `size` random bytes, made once, and on the disk."""
        if (size, name) not in self._files:
            self._files[size, name] = path = self.folder / f"{name} {size}"
            await asyncio.to_thread(_make, path, size)
        return self._files[size, name]

    def new_folder(self, name: str) -> Path:
        """An empty directory."""
        path = self.folder / f"{name} {secrets.token_hex(4)}"
        path.mkdir(parents=True)
        return path

    async def _run(self, *command: str) -> None:
        await self._stack.enter_async_context(_running(*command, log=self.folder / "twisted.log"))

    async def _wait_for(self, inside: Namespace, *ports: int) -> None:
        knock = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])))"
        for port in ports:
            async with asyncio.timeout(60):
                while await _fails(*inside.command(sys.executable, "-c", knock, str(port))):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)


@asynccontextmanager
async def _running(*command: str, log: Path) -> AsyncIterator[None]:
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(*command, stdout=file, stderr=file)
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _fails(*command: str) -> bool:
    quiet = asyncio.subprocess.DEVNULL
    return bool(await (await asyncio.create_subprocess_exec(*command, stderr=quiet)).wait())


def _make(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for start in range(0, size, _WRITE):
            file.write(os.urandom(min(_WRITE, size - start)))
        file.flush()
        os.fsync(file.fileno())
