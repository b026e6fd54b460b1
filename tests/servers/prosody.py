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
        modules = []
        if self.options.rate_limits:
            modules.append("limits")
        if self.neighbour is not None:
            modules += ["dialback", "neighbour"]
            (self.directory / "modules").mkdir()
            self.fill("mod_neighbour.lua", into="modules")
        self.fill(
            "prosody.cfg.lua",
            limits=_SHIPPED_LIMITS if self.options.rate_limits else "",
            pep=f"pep_max_items = {self.options.pep_items}" if self.options.pep_items is not None else "",
            modules="".join(f'"{module}"; ' for module in modules),
            disabled='"s2s"' if self.neighbour is None else "",
        )
        return {}
