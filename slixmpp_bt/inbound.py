"""What comes by the stream: stanzas become values here, and go to who they are for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from slixmpp import JID, Iq, Message
from slixmpp.xmlstream.handler import Callback, CoroutineCallback
from slixmpp.xmlstream.handler.base import BaseHandler
from slixmpp.xmlstream.matcher import MatchXPath, StanzaPath
from slixmpp.xmlstream.stanzabase import StanzaBase

from . import stanza
from .catalogue import Catalogue
from .context import Context
from .directory import Directory
from .errors import LimitExceeded, PeerGone, ProtocolError
from .exchange import Exchange
from .incoming import IncomingOffer
from .messages import Offer, Request, Seek, Withdraw
from .stanza.pubsub import EVENT_XPATH

log = logging.getLogger(__name__)

#: So long a request waits for what an earlier run has left, in seconds.
_PATIENCE = 10.0
_REQUESTS = (
    "set/bt_here",
    "set/bt_accept",
    "get/bt_meta",
    "set/bt_fetch",
    "set/bt_peers",
    "set/bt_report",
    "set/bt_end",
    "set/bt_delegate",
)


class Inbound:
    """Messages and requests.

    :param ready: set once what an earlier run has left is taken up; until then everything waits.
    :param local: the own JID that a stanza without an addressee is for.
    """

    def __init__(
        self, context: Context, exchange: Exchange, directory: Directory, catalogue: Catalogue, ready: asyncio.Event,
        local: Callable[[], JID],
    ) -> None:  # fmt: skip
        self._context = context
        self._exchange = exchange
        self._directory = directory
        self._catalogue = catalogue
        self._ready = ready
        self._local = local

    def message(self, message: Message) -> None:
        """One has come."""
        if self._ready.is_set():
            self._take(message)
        else:
            self._context.tasks.spawn(self._take_later(message), "message")

    async def _take_later(self, message: Message) -> None:
        await self._ready.wait()
        self._take(message)

    def _take(self, message: Message) -> None:
        try:
            self.take_offers(message)
        except ProtocolError as error:
            log.info("an offer of %s is ignored: %s", message["from"], error)

    def take_offers(self, message: Message, *, archived: bool = False) -> list[IncomingOffer]:
        """Those that are new and within the limits; all else that a message may say is done.

        :param archived: it does not come from the stream.
        :raises ProtocolError: it is malformed.
        """
        if message["type"] not in ("chat", "normal", "headline", "groupchat"):
            return []
        local = self._addressee(message)
        if not archived:
            self._catalogue.heard(message.xml, message["from"])
        peer = self._directory.author(message, local, archived=archived)
        if peer is None:
            return []
        found = stanza.find(message)
        if isinstance(found, Withdraw):
            self._exchange.withdrawn(found, peer)
        if isinstance(found, Seek):
            self._exchange.sought(found, peer, local)
        if message["type"] == "headline" or not isinstance(found, Offer) or not self._context.config.receive:
            return []
        intake = self._exchange.intake
        offers = (intake.receive_offer(offer, peer, local) for offer in stanza.find_offers(message))
        return [offer for offer in offers if offer is not None]

    def _addressee(self, stanza: StanzaBase) -> JID:
        return JID(stanza["to"]) if stanza["to"].bare else self._local()

    async def request(self, iq: Iq) -> None:
        """Answer a request.

        :raises slixmpp.exceptions.XMPPError: no.
        """
        local = self._addressee(iq)
        try:
            request = cast(Request, stanza.find(iq))
            async with asyncio.timeout(_PATIENCE):
                await self._ready.wait()
            reply = await self._exchange.receive(request, self._directory.peer(iq["from"], local), local)
        except ProtocolError as error:
            raise stanza.error(error) from None
        except TimeoutError:
            raise stanza.error(ProtocolError("not ready yet", "resource-constraint")) from None
        answer = iq.reply()
        payload = stanza.payload(reply)
        if payload is not None:
            answer.append(payload)
        try:
            stanza.within_budget(answer)
        except LimitExceeded as error:
            log.error("an answer to %s was not sent: %s", iq["from"], error)
            raise stanza.error(ProtocolError("the answer does not fit a stanza", "internal-server-error")) from None
        answer.send()

    def error(self, message: Message) -> None:
        """A message of ours has come back."""
        condition = message["error"]["condition"]
        text = message["error"]["text"] or condition.replace("-", " ")
        self._exchange.bounced(message["id"], message["from"], PeerGone(f"{message['from'].bare}: {text}"))


def handlers(namespace: str, inbound: Callable[[], Inbound]) -> list[BaseHandler]:
    """What a stream needs.

    :param namespace: the stream's.
    :param inbound: the one that is in use.
    """

    def message(heard: StanzaBase) -> None:
        inbound().message(cast(Message, heard))

    async def request(asked: StanzaBase) -> None:
        await inbound().request(cast(Iq, asked))

    messages = {
        "BT offer": MatchXPath(f"{{{namespace}}}message/{{urn:xmpp:sfs:0}}file-sharing"),
        "BT withdraw": StanzaPath("message/bt_withdraw"),
        "BT seek": StanzaPath("message/bt_seek"),
        "BT catalogue": MatchXPath(EVENT_XPATH.replace("*", namespace)),
    }
    requests = (CoroutineCallback(f"BT {path}", StanzaPath(f"iq@type={path}"), request) for path in _REQUESTS)
    return [*(Callback(name, matcher, message) for name, matcher in messages.items()), *requests]
