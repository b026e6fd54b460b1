"""What happens to items that have appeared: somebody decides, and they are fetched as there is room."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from ..context import Context
from ..errors import BTError, LimitExceeded
from ..incoming import IncomingOffer
from ..registry import Registry

log = logging.getLogger(__name__)


class Queue:
    """Asks ``auto_accept`` about items. Those that it accepts wait here for a free place among ``max_transfers``."""

    def __init__(
        self, context: Context, registry: Registry, authorize: Callable[[IncomingOffer], Awaitable[bool]]
    ) -> None:
        self._context = context
        self._registry = registry
        self._authorize = authorize
        self._accepted: deque[IncomingOffer] = deque()
        self._fetching = False

    def appeared(self, offer: IncomingOffer) -> None:
        """One was published just now: decide, or tell the application."""
        self._context.tasks.spawn(self._decide(offer, tell=True), f"item {offer.id}")

    async def found(self, offers: Iterable[IncomingOffer]) -> None:
        """These were published while this side was away: decide, one after the other. The application is not told."""
        for offer in offers:
            await self._decide(offer, tell=False)

    async def _decide(self, offer: IncomingOffer, *, tell: bool) -> None:
        try:
            if offer.message.info is not None and offer.manifest is None:
                await offer.learn(offer.message.info)
            if await self._authorize(offer):
                self._accept(offer)
                return
        except BTError as error:
            log.info("%r is left out: %s", offer, error)
            self._registry.vanished(offer)
            return
        except Exception:
            log.exception("%r: the function that decides about offers failed", offer)
        if tell and not offer.answered:
            offer.announced = True
            offer.save()
            self._context.notify("bt_offer", offer)

    def _accept(self, offer: IncomingOffer) -> None:
        self._accepted.append(offer)
        if not self._fetching:
            self._fetching = True
            self._context.tasks.spawn(self._fetch(), "fetch items")

    async def _fetch(self) -> None:
        try:
            while self._accepted:
                await self._free_place()
                offer = self._accepted.popleft()
                try:
                    if not offer.answered:
                        await offer.accept()
                except LimitExceeded:  # somebody else has taken the place
                    self._accepted.appendleft(offer)
                except BTError as error:
                    log.warning("%r was not accepted by itself: %s", offer, error)
        finally:
            self._fetching = False

    async def _free_place(self) -> None:
        while self._context.running() >= self._context.config.limits.max_transfers:
            running = [t for t in self._registry.transfers if t.incoming]
            ends = [asyncio.ensure_future(transfer.released()) for transfer in running]
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for end in ends:
                    end.cancel()
