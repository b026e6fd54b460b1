"""Others' offers on their way in: looked at once, and accepted, declined or told of. Too many are left out."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import cast

from slixmpp import JID

from . import policy
from .context import Context
from .errors import BTError, LimitExceeded, TransferError
from .incoming import GRACE, IncomingOffer
from .messages import End, Offer
from .policy import Counts, Peer, Verdict
from .registry import Key, Registry
from .seals import utc

log = logging.getLogger(__name__)

#: An info dict of so many bytes at most is parsed at once; a longer one in a thread.
_PARSED_AT_ONCE = 8 * 1024
#: So many offers, and so many bytes of info dicts in them, wait for an answer: of all strangers together, and of all
#: whom the user knows, so that nobody crowds out a contact. A parsed dict costs ten times its bytes.
_MAX_WAITING, _MAX_WAITING_BYTES = 2_000, 8 * 1024 * 1024
#: The log tells of a flood of offers once in so many seconds.
_COMPLAINT_PACE = 60.0
#: So many unanswered items of one publisher are taken.
_MAX_ITEMS = 1_000


class Intake:
    """Takes others' offers into the registry.

    :ivar authorize: asked whether an offer within the limits is to be accepted without asking the application.
    """

    def __init__(
        self, context: Context, registry: Registry, authorize: Callable[[IncomingOffer], Awaitable[bool]]
    ) -> None:
        self._context = context
        self._registry = registry
        self.authorize = authorize
        self._complained = 0.0

    def receive_offer(self, message: Offer, peer: Peer, local: JID) -> IncomingOffer | None:
        """Somebody offers something. Returns the offer if it is new and within the limits."""
        key = (peer.owner, message.id)
        if self._registry.closed or self._registry.is_known(key, message) or self._registry.is_own(message.id, peer):
            return None
        if not self._has_room(message, peer):
            self._complain(peer)
            return None
        if message.expires.timestamp() + GRACE < self._context.now():
            log.info("an offer of %s has expired already", peer.jid)
            return None
        offer = IncomingOffer(self._context, self._within_reason(message), peer, local)
        verdict = self._judge(offer, peer, self._counts(peer))
        if verdict.kind == "decline":
            self._refuse(key, offer, verdict.error)
            return None
        self._registry.add(offer)
        self.announce(offer)
        return offer

    def take_item(self, message: Offer, peer: Peer, local: JID, node: str) -> IncomingOffer | None:
        """An offer in a catalogue, known or new; nobody is told. None for an own one, and beyond the limits."""
        key = (peer.owner, message.id)
        known = self._registry.incoming.get(key)
        if known is not None and not known.is_void:
            return known if known.message.info_hash == message.info_hash else None
        expired = message.expires.timestamp() + GRACE < self._context.now()
        if self._registry.closed or expired or self._registry.is_own(message.id, peer):
            return None
        if not self._has_room(message, peer):
            return None
        if sum(not item.answered for item in self._registry.items_of(peer.owner)) >= _MAX_ITEMS:
            log.warning("an item of %s is left out: so many are taken of one publisher only", peer.jid)
            return None
        offer = IncomingOffer(self._context, self._within_reason(message), peer, local, node)
        if self._judge(offer, peer, Counts()).kind == "decline":
            return None
        self._registry.add(offer)
        return offer

    def _has_room(self, message: Offer, peer: Peer) -> bool:
        """Whether one more may wait for an answer."""
        known = policy.knows(peer, self._context.config)
        waiting = [o.message for o in self._registry.incoming.values() if not o.answered and o.from_known == known]
        size = sum(len(each.info or b"") for each in (*waiting, message))
        return len(waiting) < _MAX_WAITING and size <= _MAX_WAITING_BYTES

    def _complain(self, peer: Peer) -> None:
        """Log it, but not as often as somebody else likes."""
        now = self._context.now()
        level = logging.WARNING if now - self._complained > _COMPLAINT_PACE else logging.DEBUG
        if level == logging.WARNING:
            self._complained = now
        log.log(level, "an offer of %s is ignored: too many others wait for an answer", peer.jid)

    def _within_reason(self, message: Offer) -> Offer:
        """No offer is kept longer than a transfer may live, whatever date it names."""
        latest = utc(self._context.now() + self._context.config.limits.transfer_ttl)
        return replace(message, expires=min(message.expires, latest))

    def _judge(self, offer: IncomingOffer, peer: Peer, counts: Counts) -> Verdict:
        verdict = policy.decide(offer.message, peer, self._context.config, counts)
        info = offer.message.info
        if verdict.kind == "decline" or info is None or len(info) > _PARSED_AT_ONCE:
            return verdict
        try:
            offer.learn_now(info)
        except LimitExceeded as error:
            return Verdict("decline", error)
        except BTError:
            return Verdict("decline", None)
        return verdict

    def _counts(self, peer: Peer) -> Counts:
        """How many offers of `peer` wait. Those still being decided upon do not count, up to as many as may run."""
        sent = (offer for offer in self._registry.incoming.values() if offer.node is None)
        theirs = [offer for offer in sent if not offer.answered and offer.key == peer.owner]
        waiting = sum(offer.announced for offer in theirs)
        undecided = len(theirs) - waiting
        return Counts(offers=waiting + max(0, undecided - self._context.config.limits.max_transfers))

    def _refuse(self, key: Key, offer: IncomingOffer, error: TransferError | None) -> None:
        self._registry.incoming.pop(key, None)
        self._registry.remember(key, offer)
        offer.answered = offer.closed = True
        log.info("%r was declined: %s", offer, error or "it is malformed")
        # A stranger learns nothing, not even that somebody is there.
        if isinstance(error, LimitExceeded) and policy.may_be_told(offer.source, self._context.config):
            end = End(offer.id, "decline", "decline", text=str(error))
            until = offer.expires.timestamp()
            self._context.outbox.post(end, offer.peer, sender=offer.local, until=until, owner=offer.key)

    async def allows(self, offer: IncomingOffer) -> bool:
        """What the configured ``auto_accept`` says."""
        verdict = policy.decide(offer.message, offer.source, self._context.config, Counts(), offer.manifest)
        if verdict.kind == "consult":
            rule = cast(Callable[[IncomingOffer], Awaitable[bool]], self._context.config.auto_accept)
            return bool(await rule(offer))
        return verdict.kind == "accept"

    def announce(self, offer: IncomingOffer) -> None:
        """Ask whether it is to be accepted; if not, tell the application."""
        self._context.tasks.spawn(self._announce(offer), f"announce {offer.id}")

    async def _announce(self, offer: IncomingOffer) -> None:
        key = (offer.key, offer.id)
        if offer.message.info is not None and offer.manifest is None:
            try:
                await offer.learn(offer.message.info)
            except BTError as error:
                self._refuse(key, offer, error if isinstance(error, LimitExceeded) else None)
        try:
            if not offer.answered and await self.authorize(offer) and not offer.answered:
                await offer.accept()
        except LimitExceeded as error:
            self._refuse(key, offer, error)
        except BTError as error:
            log.warning("%r was not accepted by itself: %s", offer, error)
        except Exception:
            log.exception("%r: the function that decides about offers failed", offer)
        if offer.answered or self._registry.closed:
            return
        limits = self._context.config.limits
        exceeded = policy.limits_exceeded(offer.message, offer.manifest, limits, self._counts(offer.source))
        if exceeded is not None:
            self._refuse(key, offer, exceeded)
            return
        offer.announced = True
        offer.save()
        self._context.notify("bt_offer", offer)
