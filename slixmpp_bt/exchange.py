"""Each message is handed to the offer or transfer that it is for, and the time and the session reach them all.

Which there are is in :mod:`slixmpp_bt.registry`, how others' offers get there in :mod:`slixmpp_bt.intake`, and what an
earlier run has left in :mod:`slixmpp_bt.restoring`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import ChainMap
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from pathlib import Path

from slixmpp import JID

from . import policy
from .access import Access
from .constants import Mode
from .context import Context
from .delegation import Delegation
from .endings import heard
from .errors import BTError, Cancelled, ProtocolError, TransferError
from .incoming import IncomingOffer
from .intake import Intake
from .messages import Accept, Delegate, Done, End, Fetch, Here, Meta, Peers, Reply, Report, Request, Seek, Withdraw
from .negotiation import Event
from .occupancy import Occupancy
from .outgoing import OutgoingOffer
from .policy import Agreement, Peer
from .registry import Registry
from .restoring import Restoring
from .state import SavedIncoming
from .transfer import Transfer

log = logging.getLogger(__name__)

#: At most one answer to those who seek the same in so many seconds, of so many who are remembered for that.
_HERE_PACE, _MAX_SAID = 3.0, 500


class Exchange:
    """Offers, transfers and what goes to and fro between the two sides of each.

    :ivar registry: what there is.
    :ivar intake: others' offers come in by it.
    :ivar delegation: what this side serves in the place of others.
    :ivar occupancy: is told who comes to rooms and goes.
    :param authorize: asked whether an offer within the limits is to be accepted without asking the application.
    """

    def __init__(self, context: Context, authorize: Callable[[IncomingOffer], Awaitable[bool]]) -> None:
        self.registry = Registry(context)
        self.intake = Intake(context, self.registry, authorize)
        self.delegation = Delegation(context, self.registry.incoming)
        #: Own offers, and others' that this side serves in their senders' places.
        self._served = ChainMap(self.registry.outgoing, self.delegation.offers)
        self.occupancy = Occupancy(context, self._served, self.registry.incoming, self._end)
        self._context = context
        self._said_here: dict[tuple[str, str], float] = {}

    # own offers

    def offer(
        self, *, to: JID, local: JID, path: Path, mode: Mode, expires: datetime,
        mtype: str = "chat", desc: str | None = None, single: bool = False, targets: Sequence[JID] = (),
        in_room: bool = False, node: str | None = None, access: Access | None = None, delegate: bool = False,
    ) -> OutgoingOffer:  # fmt: skip
        """Begin an own offer: it is hashed, then sent."""
        if self.registry.closed:
            raise Cancelled("the plugin is closed: the client has left, and has not connected again")
        offer = OutgoingOffer(
            self._context, to=to, local=local, path=path, mode=mode, expires=expires,
            mtype=mtype, desc=desc, single=single, targets=targets, in_room=in_room, node=node, access=access,
            delegate=delegate,
        )  # fmt: skip
        self.registry.outgoing[offer.id] = offer
        offer.start()
        self.registry.schedule()
        return offer

    def bounced(self, stanza_id: str, peer: JID, error: BTError) -> None:
        """A message of ours came back as an error."""
        for offer in list(self.registry.outgoing.values()):
            offer.bounced(stanza_id, peer, error)

    # others' offers

    def withdrawn(self, message: Withdraw, peer: Peer) -> None:
        """Somebody takes an offer back."""
        self.delegation.withdrawn(message.id, peer.owner)
        offer = self.registry.incoming.get((peer.owner, message.id))
        if offer is not None:
            self._end(offer, Event.PEER_CANCEL, Cancelled("the sender has withdrawn the offer"))

    def _end(self, offer: IncomingOffer, event: Event, error: TransferError) -> None:
        self.registry.void(offer)
        if offer.transfer is not None:
            offer.transfer.feed(event, error)

    # requests

    async def receive(self, request: Request, peer: Peer, local: JID) -> Reply:
        """Somebody asks something.

        :raises ProtocolError: no; ``item-not-found`` for an unknown id as for somebody who is not invited.
        """
        if peer.room is not None and peer.occupant is None:
            raise ProtocolError("no such offer", "item-not-found")
        try:
            return await self._answer(request, peer, local)
        except ProtocolError:
            raise
        except BTError as error:
            # Its words may speak of this side's disk.
            log.warning("a request of %s failed: %s", peer.jid, error)
            raise ProtocolError("it failed on this side", "internal-server-error") from error

    async def _answer(self, request: Request, peer: Peer, local: JID) -> Reply:
        if isinstance(request, Accept):
            return await self._invited(request, peer, local).answering.accept(request, peer)
        if isinstance(request, Meta):
            return await self._agreed(request, peer, local).answering.meta(request, peer.jid)
        if isinstance(request, Fetch):
            return await self._agreed(request, peer, local).answering.fetch(request, peer.jid)
        if isinstance(request, Here):
            self._here(request, peer, local)
        elif isinstance(request, Report):
            self._agreed(request, peer, local).receivers.of(request.transfer, peer.jid).report(request)
        elif isinstance(request, Peers):
            await self._fetching(request, peer, local).peers(request)
        elif isinstance(request, Delegate):
            await self.delegation.grant(request, peer, local)
            return Done()
        else:
            await self._ended(request, peer, local)
        self._context.outbox.retry(self._context.now(), peer.jid, peer.owner)
        return Done()

    def _invited(self, request: Accept | End, peer: Peer, local: JID) -> OutgoingOffer:
        offer = self._own(request.id, peer, local)
        if offer is None or not offer.receivers.invites(peer, request.transfer):
            raise ProtocolError("no such offer", "item-not-found")
        return offer

    def _own(self, id: str, peer: Peer, local: JID) -> OutgoingOffer | None:
        """The own offer with this id, as far as `peer` may speak of it at all."""
        offer = self._served.get(id)
        return offer if offer is not None and offer.local.bare == local.bare and offer.lets_in(peer) else None

    def _agreed(self, request: Meta | Fetch | Report, peer: Peer, local: JID) -> OutgoingOffer:
        offer = self._served.get(request.id)
        transfer = _transfer_of(offer, request.transfer)
        if offer is None or transfer is None or not _may(request, peer, local, transfer):
            raise ProtocolError("no such offer", "item-not-found")
        return offer

    def _fetching(self, request: Peers | End, peer: Peer, local: JID) -> IncomingOffer:
        offer = self.registry.incoming.get((peer.owner, request.id))
        if offer is None and isinstance(request, Peers):
            offer = next((o for o in self._named(request.id, local) if o.deputy == peer.jid), None)
        transfer = offer.transfer if offer is not None else None
        if offer is None or transfer is None or not _may(request, peer, local, transfer):
            raise ProtocolError("no such offer", "item-not-found")
        return offer

    def sought(self, message: Seek, peer: Peer, local: JID) -> None:
        """A receiver has lost sight of the sender: say that it is here, if it is."""
        now = self._context.now()
        # Who seeks is back, and may have to be told how something ended.
        self._context.outbox.retry(now, peer.jid, peer.owner)
        offer = self._own(message.id, peer, local)
        if offer is None or not offer.receivers.knows(peer):
            return
        if now - self._said_here.get((peer.jid.full, message.id), 0.0) < _HERE_PACE:
            return
        if len(self._said_here) >= _MAX_SAID:
            self._said_here.clear()
        self._said_here[peer.jid.full, message.id] = now
        self._context.tasks.spawn(self._say_here(message.id, peer.jid, local), f"here {message.id}")

    async def _say_here(self, id: str, to: JID, local: JID) -> None:
        try:
            await self._context.wire.request(Here(id), to, sender=local)
        except BTError as error:
            log.debug("%s was not told that the offer is here: %s", to, error)

    def _here(self, request: Here, peer: Peer, local: JID) -> None:
        offer = self.registry.incoming.get((peer.owner, request.id))
        if offer is not None and offer.local.bare == local.bare:
            offer.moved(peer.jid)
            return
        deputed = [other.stand_in(peer) for other in self._named(request.id, local)]
        if not any(deputed) and not any(end.id == request.id for end in self._context.outbox.waiting):
            raise ProtocolError("no such offer", "item-not-found")

    def _named(self, id: str, local: JID) -> list[IncomingOffer]:
        """The offers with this id, whoever made them."""
        return [o for o in self.registry.incoming.values() if o.id == id and o.local.bare == local.bare]

    async def _ended(self, request: End, peer: Peer, local: JID) -> None:
        own = self._served.get(request.id)
        transfer = _transfer_of(own, request.transfer)
        if own is not None and transfer is not None and _may(request, peer, local, transfer):
            own.end(request, peer)
            await own.delegating.grant(request, peer, local)
        elif own is not None:
            self._invited(request, peer, local).end(request, peer)
            await own.delegating.grant(request, peer, local)
        elif (peer.owner, request.id) not in self.registry.past:
            self._fetching(request, peer, local).ended(*heard(request.kind, request.reason, request.text))

    # time

    def session_started(self) -> None:
        """There is a session again: whoever waits for the other side tries at once."""
        self._context.outbox.retry(self._context.now())
        for own in self.registry.outgoing.values():
            own.announce_again()
        for transfer in self.registry.incoming_transfers():
            transfer.feed(Event.RETRY)

    def addresses_changed(self) -> None:
        """This side listens elsewhere now: whoever it transfers with has to know."""
        for own in self._served.values():
            own.seeding.addresses_changed()
        for transfer in self.registry.incoming_transfers():
            transfer.feed(Event.FOUND)

    def offers_for(self, device: JID) -> list[OutgoingOffer]:
        """Own offers that a device which has come online may have missed."""
        return [offer for offer in self.registry.outgoing.values() if offer.wants(device)]

    def contact(self, peer: JID) -> None:
        """`peer` has come online."""
        self._context.outbox.retry(self._context.now(), peer)
        for offer in self.registry.incoming.values():
            offer.contact(peer)

    async def restore(self, peer_of: Callable[[SavedIncoming], Peer]) -> None:
        """Take up what an earlier run has kept, and keep what there is in this one.

        :param peer_of: what is known now of who made an offer.
        :raises StateError: it cannot be read.
        """
        await Restoring(self._context, self.registry, self.intake, self.occupancy, self.delegation).run(peer_of)

    async def aclose(self) -> None:
        """End everything and let go of it all; takes some seconds at most. Idempotent.

        What is kept goes on with the next run, and nobody is told; without a state the other sides are told that it is
        over.
        """
        self.registry.close()
        error = Cancelled("this side was shut down")
        await self.delegation.aclose()
        if self._context.state.path is not None:
            for own in self.registry.outgoing.values():
                own.suspend()
            await asyncio.gather(*(transfer.suspend(error) for transfer in self.registry.all_transfers()))
            return
        for offer in self.registry.incoming.values():
            offer.closed = True
        for transfer in self.registry.transfers:
            transfer.feed(Event.CANCEL, error)
        for own in self.registry.outgoing.values():
            own.fail(error)
        await asyncio.sleep(0)  # what was just said leaves
        await asyncio.gather(*(transfer.aclose(error) for transfer in self.registry.all_transfers()))


def _transfer_of(offer: OutgoingOffer | None, id: str | None) -> Transfer | None:
    sending = offer.receivers.find(id) if offer is not None else None
    return sending.transfer if sending is not None else None


def _may(request: Meta | Fetch | Report | Peers | End, peer: Peer, local: JID, transfer: Transfer) -> bool:
    """Whether `request` is from the other side of `transfer`.

    Who knows the id of a transfer, which nobody can guess, may end it from another device of the same account too: the
    name of a device often changes when it connects again.
    """
    there = transfer.peer
    if isinstance(request, End) and isinstance(transfer.offer, IncomingOffer):
        there = transfer.offer.peer  # whoever stands in for the sender
    if isinstance(request, End) and peer.bare is not None and peer.bare == there.bare:
        there = peer.jid
    if transfer.offer.local.bare != local.bare:
        return False
    sender, receiver = (there, local) if transfer.incoming else (local, there)
    return policy.may(request, peer.jid, local, Agreement(transfer.offer.id, transfer.id or "", sender, receiver))
