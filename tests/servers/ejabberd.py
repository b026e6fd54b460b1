"""ejabberd, as Debian ships it (12: 23.01)."""

from __future__ import annotations

import os
import pwd

from .names import name_server
from .process import RealServer, Unavailable, as_root


class Ejabberd(RealServer):
    """An ejabberd process: an Erlang node of its own name that needs no port mapper (epmd)."""

    name = "ejabberd"
    program = "ejabberdctl"
    account = "ejabberd"

    @classmethod
    def require(cls) -> None:
        super().require()
        user = pwd.getpwuid(os.geteuid()).pw_name
        if not as_root() and user != cls.account:
            raise Unavailable(f"ejabberdctl runs for root and {cls.account} only, not for {user}")

    def command(self) -> list[str]:
        here = str(self.directory)
        return ["ejabberdctl", "--config-dir", here, "--logs", here, "--spool", f"{here}/data", "foreground"]

    def configure(self) -> dict[str, str]:
        self.fill(
            "ejabberd.yml",
            pep_items=self.options.pep_items or 1_000,
            shaper="normal" if self.options.rate_limits else "none",
            s2s_access="none" if self.neighbour is None else "all",
        )
        (self.directory / "inetrc").write_text(self._inetrc())
        port = self.ports["internal"]
        (self.directory / "ejabberdctl.cfg").write_text(
            f"ERLANG_NODE=slixmpp_bt_{port}@localhost\nINET_DIST_INTERFACE=127.0.0.1\nERL_DIST_PORT={port}\n"
        )
        return {"ERL_EPMD_ADDRESS": "127.0.0.1", "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}

    def _inetrc(self) -> str:
        """How Erlang looks names up. A neighbour it finds by a name server of ours."""
        if self.neighbour is None:
            return '{lookup, ["file", "native"]}.\n'
        there = name_server(self.neighbour.options.domain, self.neighbour.ports["s2s"])
        port = self._cleanup.enter_context(there)
        return f'{{resolv_conf, ""}}.\n{{lookup, [file, native]}}.\n{{nameserver, {{127, 0, 0, 1}}, {port}}}.\n'
