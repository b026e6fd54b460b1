"""ejabberd, as Debian ships it (12: 23.01)."""

from __future__ import annotations

import os
import pwd

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
        self.fill("ejabberd.yml", shaper="normal" if self.options.rate_limits else "none")
        (self.directory / "inetrc").write_text('{lookup, ["file", "native"]}.\n')
        port = self.ports["internal"]
        (self.directory / "ejabberdctl.cfg").write_text(
            f"ERLANG_NODE=slixmpp_bt_{port}@localhost\nINET_DIST_INTERFACE=127.0.0.1\nERL_DIST_PORT={port}\n"
        )
        return {"ERL_EPMD_ADDRESS": "127.0.0.1", "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
