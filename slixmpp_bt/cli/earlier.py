"""What earlier ``send`` commands have kept: what of it this one is asked for again, and whether it can go on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

from slixmpp import JID

from ..constants import State
from ..errors import Expired, SourceChanged
from ..outgoing import OutgoingOffer
from ..transfer import Transfer
from .session import Client


class Earlier:
    """The kept offers of an account. To be made before `client` logs in: what ended while nothing ran is told of as
    soon as it has.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._began = time.time()
        self._kept: list[Transfer] = []
        self._loaded = False
        self._met: set[Transfer] = set()
        client.add_event_handler("bt_transfer_start", self._met.add)
        client.add_event_handler("bt_transfer_end", self._ended)

    def _ended(self, transfer: Transfer) -> None:
        if not (self._loaded or transfer.incoming):
            self._kept.append(transfer)

    def load(self) -> None:
        """The client is logged in: whatever comes from now on is this command's."""
        self._loaded = True
        self._kept += [transfer for transfer in self._client.bt.transfers if not transfer.incoming]

    def take(self, to: JID, path: Path, mode: str | None) -> Transfer | None:
        """The kept transfer of the file at `path` to `to`, in this mode if one was named; None if there is none, or it
        was taken already. Blocks for a look at the disk.
        """
        source = path.resolve()
        for transfer in sorted(self._kept, key=lambda transfer: transfer.ended):
            offer = _offer(transfer)
            same = {offer.to, transfer.peer} if to.resource else {JID(offer.to.bare)}
            if to in same and offer.path.resolve() == source and mode in (None, offer.mode):
                self._kept.remove(transfer)
                return transfer
        return None

    def others(self) -> int:
        """How many are kept that nobody has taken."""
        return sum(not transfer.ended for transfer in self._kept)

    async def hindrance(self, transfer: Transfer, to: JID) -> str | None:
        """Why a transfer that was taken cannot go on; it has ended then. None if it can, and the other side has been
        reminded of it.
        """
        offer = _offer(transfer)
        if transfer.ended or offer.state is not State.OFFERED:
            return None
        devices = self._client.devices(to) if transfer.id is None and not to.resource else set()
        if devices and offer.to.resource and offer.to.resource not in devices:
            # It is for that device alone.
            await offer.withdraw()
            return f"{offer.to}, which it was made to, is not there"
        try:
            await offer.remind()
        except SourceChanged as error:
            return str(error)
        return None

    def ended_before(self, transfer: Transfer) -> bool:
        """Whether a transfer that has ended did so, as far as anybody can tell, while no command ran. A receiver's no
        counts whenever it was said.
        """
        if transfer.complete or transfer.state is State.DECLINED or transfer in self._met:
            return False
        if isinstance(transfer.error, Expired):
            return _offer(transfer).expires.timestamp() <= self._began
        return True


def _offer(transfer: Transfer) -> OutgoingOffer:
    return cast(OutgoingOffer, transfer.offer)
