"""What is published and fetched by nobody: whether it is still there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection

from ..outgoing import OutgoingOffer

#: Seconds between two rounds, at least.
PACE = 30.0
#: And so many times as long as the last one took: however much is published, a fiftieth of one disk's time at most.
REST = 50.0


async def look_round(
    offers: Callable[[], Collection[OutgoingOffer]], clock: Callable[[], float] = time.monotonic
) -> None:
    """Look at one after the other, round after round, until cancelled. An offer whose source was changed ends, and so
    its item is withdrawn.

    :param offers: asked for the offers of each round.
    :param clock: seconds, by which a round is measured.
    """
    took = 0.0
    while True:
        await asyncio.sleep(max(PACE, REST * took))
        begun = clock()
        for offer in offers():
            await offer.look()
        took = clock() - begun
