"""Somebody who speaks the protocol by hand: a client or component without the plugin, which says whatever a test
wants, true or not."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any, cast
from xml.etree.ElementTree import Element

import slixmpp
from slixmpp import JID
from slixmpp.exceptions import IqError
from slixmpp.stanza import Iq, Message
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath, StanzaPath
from slixmpp.xmlstream.stanzabase import StanzaBase

from slixmpp_bt import stanza
from slixmpp_bt.messages import Offer, Request, Withdraw
from slixmpp_bt.stanza import AnyMessage

from ..servers import Server
from ..world import PATIENCE

#: What answers a request: a message, an error condition, or nothing at all (None).
Answer = Callable[[AnyMessage, Iq], AnyMessage | Element | str | None]


class Raw:
    """One of them.

    :ivar offers: what it was offered, in order.
    :ivar asked: what it was asked, in order, with the JID that it was asked as.
    """

    def __init__(self, xmpp: slixmpp.ClientXMPP | slixmpp.ComponentXMPP, answer: Answer | None = None) -> None:
        stanza.register()
        self.xmpp = xmpp
        self.offers: list[Offer] = []
        self.asked: list[AnyMessage] = []
        self._answer = answer or (lambda request, iq: "item-not-found")
        path = MatchXPath(f"{{{xmpp.default_ns}}}message/{{urn:xmpp:sfs:0}}file-sharing")
        xmpp.register_handler(Callback("raw offer", path, self._offered))
        for kind in ("set/bt_here", "set/bt_accept", "get/bt_meta", "set/bt_fetch", "set/bt_peers", "set/bt_report",
                     "set/bt_end", "set/bt_delegate"):  # fmt: skip
            xmpp.register_handler(Callback(f"raw {kind}", StanzaPath(f"iq@type={kind}"), self._request))

    @property
    def jid(self) -> JID:
        return self.xmpp.boundjid

    async def expect_offer(self, count: int = 1) -> Offer:
        async with asyncio.timeout(PATIENCE):
            while len(self.offers) < count:
                await asyncio.sleep(0.005)
        return self.offers[count - 1]

    async def expect_asked(self, kind: type[AnyMessage]) -> Any:
        async with asyncio.timeout(PATIENCE):
            while not (found := [request for request in self.asked if isinstance(request, kind)]):
                await asyncio.sleep(0.005)
        return found[0]

    async def ask(self, to: JID, request: Request | Element, *, kind: str = "set", ifrom: JID | None = None) -> Element:
        """The whole answer to a request, be it a result or an error."""
        iq = self.xmpp.make_iq(ito=to, itype=kind, ifrom=ifrom)  # type: ignore[arg-type]
        iq.append(request if isinstance(request, Element) else stanza.build(request))
        try:
            found: Element = (await iq.send(timeout=60)).xml
        except IqError as error:
            found = error.iq.xml
        return found

    def tell(self, to: JID, message: Offer | Withdraw, *, ifrom: JID | None = None, mtype: str = "chat") -> None:
        """Send a message."""
        built = self.xmpp.make_message(mto=to, mtype=mtype, mfrom=ifrom)  # type: ignore[arg-type]
        built["id"] = secrets.token_hex(4)
        stanza.fill_message(built, message)
        built.send()

    def _offered(self, message: StanzaBase) -> None:
        self.offers += stanza.find_offers(cast(Message, message))

    def _request(self, received: StanzaBase) -> None:
        iq = cast(Iq, received)
        request = stanza.find(iq)
        assert request is not None
        self.asked.append(request)
        answer = self._answer(request, iq)
        if answer is None:
            return
        reply = iq.reply()
        if isinstance(answer, str):
            reply["type"] = "error"
            reply["error"]["condition"] = answer
        elif isinstance(answer, Element):
            reply.append(answer)
        elif (payload := stanza.payload(answer)) is not None:  # type: ignore[arg-type]
            reply.append(payload)
        reply.send()


async def raw(server: Server, jid: JID | str, answer: Answer | None = None) -> Raw:
    """A connected client."""
    one = Raw(server.client(jid), answer)
    one.xmpp.register_plugin("xep_0030")
    await server.connect(one.xmpp)
    return one


def condition(answer: Element) -> str | None:
    """The error that an answer is; None for a result."""
    error = answer.find("{*}error")
    return None if error is None else str(error[0].tag).partition("}")[2]


def anonymous(answer: Element) -> str:
    """An answer without what tells it from another to somebody else: for comparing."""
    text = str(slixmpp.Iq(xml=answer))
    for name in ("id", "to", "from"):
        if value := answer.get(name):
            text = text.replace(f'{name}="{value}"', "")
    return text
