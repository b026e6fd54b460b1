"""What is known of a download of an earlier run."""

from __future__ import annotations

from dataclasses import dataclass

from .negotiation import Phase
from .state import RouteBytes, SavedDownload


@dataclass(frozen=True, slots=True)
class Resume:
    """What is known of a download of an earlier run."""

    download: SavedDownload
    checkpoint: bytes | None = None
    routes: RouteBytes = ()

    @property
    def select(self) -> frozenset[int] | None:
        """The wanted files."""
        return self.download.select

    @property
    def was_accepted(self) -> bool:
        """Whether the sender is sure to have answered: some bytes have come."""
        return any(count for _, count in self.routes)

    @property
    def ended(self) -> bool:
        """Whether all that was missing was to remove the part files."""
        return self.download.phase in {phase.value for phase in Phase if phase.state.terminal}
