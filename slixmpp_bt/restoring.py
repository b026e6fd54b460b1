"""What an earlier run has kept is taken up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from . import policy, staying
from .context import Context
from .delegation import Delegation
from .errors import BTError
from .incoming import GRACE, IncomingOffer
from .intake import Intake
from .occupancy import Occupancy
from .outgoing import OutgoingOffer
from .policy import Peer
from .registry import Past, Registry
from .resuming import Resume
from .state import SavedCheckpoint, SavedDownload, SavedIncoming, SavedOffer, SavedPast, SavedReceiver

log = logging.getLogger(__name__)

#: So many offers of an earlier run are taken up before others on the event loop have their turn: some 10 ms.
_AT_ONCE = 100


class Restoring:
    """Takes up offers, transfers, last words and seeds, once."""

    def __init__(
        self, context: Context, registry: Registry, intake: Intake, occupancy: Occupancy, delegation: Delegation
    ) -> None:
        self._context = context
        self._registry = registry
        self._intake = intake
        self._occupancy = occupancy
        self._delegation = delegation

    async def run(self, peer_of: Callable[[SavedIncoming], Peer]) -> None:
        """Take up what an earlier run has kept, and keep what there is in this one.

        :param peer_of: what is known now of who made an offer.
        :raises StateError: it cannot be read.
        """
        state, registry = self._context.state, self._registry
        of_this_run: list[OutgoingOffer | IncomingOffer] = [*registry.outgoing.values(), *registry.incoming.values()]
        offers, receivers = await state.load(SavedOffer), await state.load(SavedReceiver)
        incoming, downloads = await state.load(SavedIncoming), await state.load(SavedDownload)
        checkpoints = {saved.transfer: saved for saved in await state.load(SavedCheckpoint)}
        registry.past.update({(p.sender, p.offer): Past(p.info_hash, p.until) for p in await state.load(SavedPast)})
        await self._context.outbox.restore()
        await self._own(offers, receivers)
        resumed = {(download.sender, download.offer): download for download in downloads}
        for found in incoming:
            download = resumed.pop((found.sender, found.offer.id), None)
            if download is not None or found.offer.expires.timestamp() + GRACE > self._context.now():
                checkpoint = checkpoints.get(download.transfer) if download is not None else None
                await self._others(found, peer_of(found), download, checkpoint)
            else:
                state.delete(SavedIncoming, *found.key)
        for orphan in resumed.values():
            state.delete(SavedDownload, orphan.transfer)
        await staying.resume(self._context, self._delegation.took_up)
        self._context.outbox.save_all()
        for unsaved in of_this_run:
            unsaved.save_all()
        registry.schedule()

    async def _own(self, offers: list[SavedOffer], receivers: list[SavedReceiver]) -> None:
        by_offer: dict[str, list[SavedReceiver]] = {}
        for receiver in receivers:
            by_offer.setdefault(receiver.offer, []).append(receiver)
        for number, saved in enumerate(offers):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            if saved.id not in self._registry.outgoing:
                own = OutgoingOffer.restore(self._context, saved, by_offer.get(saved.id, ()))
                self._registry.outgoing[own.id] = own

    async def _others(
        self, saved: SavedIncoming, peer: Peer, download: SavedDownload | None, checkpoint: SavedCheckpoint | None
    ) -> None:
        if (saved.sender, saved.offer.id) in self._registry.incoming:
            return
        offer = IncomingOffer.restore(self._context, saved, peer)
        if download is None and not policy.lasts(offer.key) and not saved.offer.delegate:
            offer.forget()  # of a room that does not tell whether its sender is still there
            return
        info = saved.offer.info or (download.info if download is not None else None)
        if info is not None:
            try:
                await offer.learn(info)
            except BTError as error:
                log.warning("%r cannot be taken up again: %s", offer, error)
                self._registry.left[offer] = error
                return
        self._registry.incoming[offer.key, offer.id] = offer
        if download is not None:
            data, routes = (checkpoint.data, checkpoint.routes) if checkpoint is not None else (None, ())
            self._go_on(offer, Resume(download, data, routes))
        elif not offer.answered and offer.node is not None:
            self._registry.restored_items.append(offer)
        elif not offer.answered:
            self._intake.announce(offer)

    def _go_on(self, offer: IncomingOffer, resume: Resume) -> None:
        if resume.ended:
            transfer = resume.download.transfer
            self._context.tasks.spawn(offer.clean_up(resume.download), f"clean up {transfer}")
        else:
            offer.resume(resume)
            self._occupancy.check(offer)
