"""A receiver tells the sender now and then how far it is, if the sender wants to know."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from slixmpp import JID

from .constants import State
from .context import Context
from .errors import BTError
from .messages import Report
from .progress import Progress
from .transfer import Transfer

log = logging.getLogger(__name__)

#: Seconds between two reports, at least.
_PACE = 5


async def report(context: Context, transfer: Transfer, local: JID, pace: int, measure: Callable[[], Progress]) -> None:
    """Report every `pace` seconds, until cancelled.

    :param measure: how far it is.
    """
    assert transfer.id is not None
    while True:
        await asyncio.sleep(max(_PACE, pace))
        now = measure()
        if transfer.state is State.RUNNING:
            message = Report(transfer.offer.id, transfer.id, now.transferred, now.total, tuple(now.routes.items()))
            try:
                await context.wire.request(message, transfer.peer, sender=local)
            except BTError as error:
                log.debug("%s did not take a report: %s", transfer.peer, error)
