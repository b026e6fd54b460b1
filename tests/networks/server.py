"""Prosody in the core of a small internet, with two accounts that see each other."""

from __future__ import annotations

import re
import subprocess
from contextlib import ExitStack
from typing import Self

from ..servers import PASSWORD, Options, Prosody
from .internet import DOMAIN, SERVICES, Internet

XMPP_PORT = 5222
PROXY_PORT = 5000
#: The accounts' names. They are in one shared roster group, so each sees the other's presence.
ACCOUNTS = ("alice", "bob")


class CoreProsody(Prosody):
    """Prosody with its proxy (XEP-0065), at the addresses of the core's services. A context manager as its base is.

    The proxy is told by name, so that hosts of either IP version reach it.
    """

    def __init__(self, internet: Internet) -> None:
        self.internet = internet
        self._core = internet.core
        with self._core.inside():
            super().__init__(Options(domain=DOMAIN, address=SERVICES[0]))
        self.ports |= {"c2s": XMPP_PORT, "proxy": PROXY_PORT}

    def configure(self) -> dict[str, str]:
        environment = super().configure()
        path = self.directory / "prosody.cfg.lua"
        text = re.sub(
            r'interfaces = { ".*" }', f'interfaces = {{ "{SERVICES[0]}", "{SERVICES[1]}" }}', path.read_text()
        )
        text = re.sub(r'proxy65_address = ".*"', f'proxy65_address = "{self.proxy}"', text)
        groups = self.directory / "groups.txt"
        groups.write_text("[Friends]\n" + "".join(f"{name}@{DOMAIN}\n" for name in ACCOUNTS))
        path.write_text(
            f'groups_file = "{groups}"\n' + text.replace("modules_enabled = {", 'modules_enabled = { "groups";', 1)
        )
        return environment

    def start(self) -> None:
        with self._core.inside():
            super().start()

    def __enter__(self) -> Self:
        super().__enter__()
        with ExitStack() as undo:
            undo.push(self)
            for name in ACCOUNTS:
                self._register(name)
            undo.pop_all()
        return self

    @property
    def proxy(self) -> str:
        """The proxy's name, as a component and as a host."""
        return f"proxy.{DOMAIN}"

    def _register(self, name: str) -> None:
        config = self.directory / "prosody.cfg.lua"
        command = ["prosodyctl", "--config", str(config), "register", name, DOMAIN, PASSWORD]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
