"""Prosody, as Debian ships it (12: 0.12.3)."""

from __future__ import annotations

from .process import RealServer

# /etc/prosody/prosody.cfg.lua of the package.
_SHIPPED_LIMITS = 'limits = { c2s = { rate = "10kb/s" }; s2sin = { rate = "30kb/s" } }'


class Prosody(RealServer):
    """A Prosody process."""

    name = "prosody"
    program = "prosody"
    account = "prosody"

    def command(self) -> list[str]:
        return ["prosody", "-F", "--config", str(self.directory / "prosody.cfg.lua")]

    def configure(self) -> dict[str, str]:
        limited = self.options.rate_limits
        self.fill(
            "prosody.cfg.lua",
            limits=_SHIPPED_LIMITS if limited else "",
            limits_module='"limits";' if limited else "",
        )
        return {}
