"""What offers and transfers need of the plugin that owns them."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .negotiation import Timing
from .outbox import Outbox
from .pacing import Pace
from .routing import Patience
from .shelf import NoShelf, Shelf
from .state import State as Store
from .tasks import Tasks
from .wire import Wire

if TYPE_CHECKING:
    from .backends import Backend
    from .config import Config
    from .staying import Staying


@dataclass
class Context:
    """One for each plugin.

    :ivar notify: raises a slixmpp event: its name and its data.
    :ivar running: how many incoming transfers have not ended.
    :ivar state: what outlasts the process.
    :ivar shelf: where offers are published.
    :ivar staying: what was received and is served for others, by transfer.
    :ivar now: seconds since the epoch.
    :ivar upload_pace: what goes out over streams; the engine caps its own.
    :ivar download_pace: what comes in over streams.
    """

    config: Config
    wire: Wire
    backend: Backend
    notify: Callable[[str, object], None]
    tasks: Tasks
    outbox: Outbox
    running: Callable[[], int]
    timing: Timing = field(default_factory=Timing)
    now: Callable[[], float] = time.time
    rng: random.Random = field(default_factory=random.SystemRandom)
    patience: Patience = field(default_factory=Patience)
    state: Store = field(default_factory=Store.nothing)
    shelf: Shelf = field(default_factory=NoShelf)
    staying: dict[str, Staying] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.upload_pace = Pace(lambda: self.config.upload_limit)
        self.download_pace = Pace(lambda: self.config.download_limit)
        self._asides: list[Context] = []

    def aside(self) -> Context:
        """One for what is not the user's own business: nothing of it is kept or told. All else is shared."""
        other = copy.copy(self)
        other.state, other.notify = Store.nothing(), _say_nothing
        self._asides.append(other)
        return other

    def configure(self, config: Config) -> None:
        """The settings are these from now on."""
        self.config = config
        for other in self._asides:
            other.config = config


def _say_nothing(name: str, data: object) -> None:
    pass
