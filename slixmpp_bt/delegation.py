"""What a receiver that has everything does for others, if the sender lets it: it admits them in the sender's place.

Whom it admits follows from what it was offered itself: devices of its own account or, of what was offered in a room,
the room's occupants. It has the offer's key for that (docs/protocol, section "Delegation"), serves what it has
published, by the seed that it keeps open for others anyway, and only as long as that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from slixmpp import JID

from . import policy
from .answering import Answering
from .backends import Admission, Seed
from .constants import Mode, State
from .content import Content
from .context import Context
from .errors import BTError, Cancelled, ProtocolError
from .incoming import IncomingOffer
from .manifest import Made
from .messages import Accept, Accepted, Delegate, Fetch, Fetching, Meta, MetaChunk
from .outgoing import OutgoingOffer
from .policy import Peer
from .sealing import Authority, info_for, unseal
from .seals import Admitting, utc
from .sources import Stamp, stamp
from .state import SavedDelegation, SavedSeed
from .staying import Staying, manifest_of
from .storage import published
from .threads import in_thread

log = logging.getLogger(__name__)

#: So long a disk has for keeping the leave, in seconds. One that takes nothing costs what would outlast a restart.
_SAVED_WITHIN = 3.0
#: So many offers of others are served in their senders' places at once.
_MAX_OFFERS = 1_000


class Received(Content):
    """What was received and published, as what is offered.

    :param staying: what keeps it open for others.
    """

    def __init__(self, context: Context, staying: Staying, saved: SavedSeed, terms: SavedDelegation) -> None:
        super().__init__(context, terms.offer, saved.published, saved.mode)
        self._staying = staying
        self._saved = saved
        self._terms = terms

    async def _reopen(self) -> Made:
        made = await in_thread(_made, self._saved, self._terms.stamps)
        if self._saved.mode is Mode.SEALED and self.admitting is None:
            key = self._terms.authority_key or b""
            self.admitting = Admitting(Authority.load(made.manifest.extra[b"ssl-cert"], key))
        return made

    async def open_seed(self, admission: Admission) -> Seed:
        """The seed that is open already; see :class:`~slixmpp_bt.content.Content`."""
        return await self._staying.lend(admission)


class DelegatedOffer(OutgoingOffer):
    """Somebody else's offer, whose sender has let this side admit others.

    It is not in ``bt.offers``, nothing of it is announced or kept, and how the offer itself ends it never says: only
    the sender knows that.

    :param over: called when it cannot be served any more.
    """

    is_own = False

    def __init__(
        self, context: Context, staying: Staying, saved: SavedSeed, terms: SavedDelegation,
        over: Callable[[DelegatedOffer], None],
    ) -> None:  # fmt: skip
        super().__init__(
            context, to=terms.room or JID(terms.local.bare), local=terms.local, path=saved.published, mode=saved.mode,
            expires=utc(terms.expires), mtype="chat" if terms.room is None else "groupchat", id=terms.offer,
            in_room=terms.room is not None, content=Received(context, staying, saved, terms),
        )  # fmt: skip
        self.terms = terms
        self.answering = _Modest(context, self, self._content, self.receivers, self.seeding)
        self._over = over
        self._state = State.OFFERED

    @property
    def size(self) -> int:
        """Bytes; 0 while nobody asks for it."""
        made = self._content.loaded
        return made.manifest.size if made is not None else 0

    def wants(self, device: JID) -> bool:
        """Nobody is told of it."""
        return False

    def fail(self, error: BTError) -> None:
        """It cannot be served any more: those who fetch it look for somebody else."""
        self.suspend()
        super().fail(error)
        self._over(self)

    async def aclose(self) -> None:
        """Serve nobody any more, and give the seed back."""
        error = Cancelled("it is not served any longer")
        self.fail(error)
        await asyncio.gather(*(transfer.aclose(error) for transfer in self.transfers))


class _Modest(Answering):
    """Answers as a sender does, but never that the offer has ended."""

    async def accept(self, message: Accept, source: Peer) -> Accepted:
        with _not_here():
            return await super().accept(message, source)

    async def meta(self, message: Meta, peer: JID) -> MetaChunk:
        with _not_here():
            return await super().meta(message, peer)

    async def fetch(self, message: Fetch, peer: JID) -> Fetching:
        with _not_here():
            return await super().fetch(message, peer)


@contextmanager
def _not_here() -> Iterator[None]:
    try:
        yield
    except ProtocolError as error:
        if error.condition != "gone":
            raise
        raise ProtocolError("no such offer", "item-not-found") from error


class Delegation:
    """What one plugin serves in the place of others.

    :param incoming: what others offer, by owner and id.
    :ivar offers: by the offer's id.
    """

    def __init__(self, context: Context, incoming: Mapping[tuple[str, str], IncomingOffer]) -> None:
        self.offers: dict[str, OutgoingOffer] = {}
        self._context = context
        self._aside = context.aside()
        self._incoming = incoming
        self._closed = False

    async def grant(self, message: Delegate, peer: Peer, local: JID) -> None:
        """The sender lets this side admit others. Returns once that is kept.

        :raises ProtocolError: ``item-not-found``: nothing of that sender's is served for others here, or it was not
            to be delegated; ``not-acceptable``: the key is not the offer's.
        """
        fetched = self._incoming.get((peer.owner, message.id))
        transfer = fetched.transfer if fetched is not None else None
        if transfer is not None and transfer.id == message.transfer and transfer.complete:
            await transfer.released()  # then what is served for others is known
        staying = self._context.staying.get(message.transfer)
        saved, terms = (staying.saved, staying.terms) if staying is not None else (None, None)
        if staying is None or saved is None or terms is None or terms.offer != message.id:
            raise ProtocolError("no such offer", "item-not-found")
        if not policy.may_delegate(peer, local, terms.sender, terms.local):
            raise ProtocolError("no such offer", "item-not-found")
        if terms.granted:
            return
        try:
            terms = await in_thread(_granted, message, saved, terms)
        except BTError as error:
            log.warning("nobody is admitted to %s in the place of %s: %s", saved.published, peer.jid, error)
            raise ProtocolError("that is of no use", "not-acceptable") from error
        staying.terms = terms
        await asyncio.wait([self._context.state.save(terms)], timeout=_SAVED_WITHIN)
        self._open(staying, saved, terms)

    async def took_up(self, staying: Staying) -> None:
        """What an earlier run has received is served for others again.

        :raises StateError: what is kept cannot be read.
        """
        staying.terms = await self._context.state.find(SavedDelegation, staying.transfer)
        if staying.saved is not None and staying.terms is not None and staying.terms.granted:
            self._open(staying, staying.saved, staying.terms)

    def withdrawn(self, id: str, owner: str) -> None:
        """The sender has withdrawn the offer: nobody is admitted any more, and the key goes."""
        for staying in self._context.staying.values():
            if staying.terms is not None and (staying.terms.offer, staying.terms.sender) == (id, owner):
                staying.terms = None
                self._context.state.delete(SavedDelegation, staying.transfer)
        offer = self.offers.get(id)
        if isinstance(offer, DelegatedOffer) and offer.terms.sender == owner:
            offer.fail(Cancelled("the sender has withdrawn the offer"))

    def _open(self, staying: Staying, saved: SavedSeed, terms: SavedDelegation) -> None:
        if self._closed or staying.is_over or terms.offer in self.offers or len(self.offers) >= _MAX_OFFERS:
            return
        offer = self.offers[terms.offer] = DelegatedOffer(self._aside, staying, saved, terms, self._drop)
        staying.before_end = offer.aclose
        log.info("others are admitted to %s in the sender's place", saved.published)

    def _drop(self, offer: DelegatedOffer) -> None:
        if self.offers.get(offer.id) is offer:
            del self.offers[offer.id]

    async def aclose(self) -> None:
        """Serve nobody any more. The next run goes on."""
        self._closed = True
        closing: list[Awaitable[None]] = [o.aclose() for o in self.offers.values() if isinstance(o, DelegatedOffer)]
        await asyncio.gather(*closing)


def _granted(message: Delegate, saved: SavedSeed, terms: SavedDelegation) -> SavedDelegation:
    """`terms`, granted, with the key.

    :raises BTError: the key is not that of the manifest's authority, or a file is not there any more.
    """
    manifest = manifest_of(saved)
    key: bytes | None = None
    if saved.mode is Mode.SEALED:
        info = info_for(terms.offer, terms.transfer, "authority", 0)
        key = unseal(saved.private_key or b"", info, message.key or b"")
        Authority.load(manifest.extra[b"ssl-cert"], key)
    paths = published(saved.published, manifest)
    return replace(terms, granted=True, stamps=tuple(stamp(paths[index]) for index in sorted(paths)), authority_key=key)


def _made(saved: SavedSeed, stamps: tuple[Stamp, ...]) -> Made:
    manifest = manifest_of(saved)
    paths: Mapping[int, Path] = published(saved.published, manifest)
    return Made(manifest, paths, dict(zip(sorted(paths), stamps, strict=True)))
