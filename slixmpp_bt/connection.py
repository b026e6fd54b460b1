"""The wire over slixmpp: messages and requests leave as stanzas, and nothing waits past the end of a session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Literal, cast
from xml.etree.ElementTree import Element

from slixmpp import JID, BaseXMPP, ComponentXMPP, Iq, Message
from slixmpp.exceptions import IqError, IqTimeout

from . import messages, stanza
from .constants import STANZA_BUDGET, Route
from .errors import PeerGone, ProtocolError
from .rooms import Rooms
from .streams.inband import InBandStreams
from .streams.relay import RelayStreams
from .wire import Expected, Stream, StreamBroken

_MessageType = Literal["chat", "normal", "groupchat", "headline"]


class Connection:
    """Implements :class:`~slixmpp_bt.wire.Wire` for a client or a component.

    :ivar hidden: whether a peer (the first) may not learn the address of an own JID (the second): then only proxies of
        the own server are used.
    """

    def __init__(self, xmpp: BaseXMPP, rooms: Rooms) -> None:
        self.hidden: Callable[[JID, JID], bool] = lambda peer, local: False
        self._xmpp = xmpp
        self._rooms = rooms
        self._started = asyncio.Event()
        #: Who waits for an answer from whom; the result is why it will not come.
        self._asking: dict[asyncio.Future[str], JID] = {}
        self._streams: dict[Route, InBandStreams | RelayStreams] = {}

    def close(self) -> None:
        """Undo every hook in the client."""
        for streams in self._streams.values():
            streams.close()
        self._streams.clear()

    def session_started(self) -> None:
        """A session is there."""
        self._started.set()

    def session_ended(self) -> None:
        """The session is over: who waits for an answer waits in vain."""
        self._started.clear()
        self._give_up(list(self._asking), "the session ended before the answer came")
        for streams in self._streams.values():
            streams.session_ended()

    @property
    def is_online(self) -> bool:
        """Whether there is a session."""
        return self._started.is_set()

    async def online(self) -> None:
        """Return once there is a session."""
        await self._started.wait()

    async def entered(self, room: JID, *, sender: JID) -> None:
        """See :meth:`slixmpp_bt.wire.Wire.entered`."""
        await self._rooms.entered(room, sender)

    async def send(self, message: messages.Message, to: JID, *, sender: JID, mtype: str) -> str:
        """See :meth:`slixmpp_bt.wire.Wire.send`. An offer whose info dict does not fit goes out without it."""
        self._check_session()
        if mtype != "groupchat":
            self._check_occupant(to, sender)
        elif not self._rooms.joined(to, sender):
            raise PeerGone(f"this side is not in {to}")
        first, *others = self._addressees(to, mtype)
        for other in others:
            await self.send(message, other, sender=sender, mtype=mtype)
        built = self._message(message, first, sender, mtype)
        if isinstance(message, messages.Offer) and stanza.size_of(built) > STANZA_BUDGET:
            built = self._message(replace(message, info=None), first, sender, mtype)
        stanza.within_budget(built)
        built.send()
        return str(built["id"])

    async def request(
        self, request: messages.Request, to: JID, *, sender: JID, timeout: float = 30.0
    ) -> messages.Reply:
        """See :meth:`slixmpp_bt.wire.Wire.request`."""
        self._check_session()
        self._check_occupant(to, sender)
        iq = self._xmpp.make_iq(ito=to, itype="get" if isinstance(request, messages.Meta) else "set")
        self._address(iq, sender)
        iq.append(stanza.build(request))
        return _reply(await self._ask(iq, timeout), request)

    async def query(self, payload: Element, to: JID, kind: Literal["get", "set"]) -> Element:
        """See :class:`slixmpp_bt.catalogue.Query`. Cancelling it forgets the answer."""
        self._check_session()
        iq = self._xmpp.make_iq(ito=to, itype=kind)
        iq.append(payload)
        return (await self._ask(iq, 30.0)).xml

    async def _ask(self, iq: Iq, timeout: float) -> Iq:
        stanza.within_budget(iq)
        answer = asyncio.ensure_future(iq.send(timeout=timeout))
        over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._asking[over] = JID(iq["to"])
        waiting: set[asyncio.Future[Any]] = {answer, over}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise PeerGone(over.result())
            result: Iq = answer.result()
            return result
        except IqTimeout as error:
            raise PeerGone(f"{iq['to']} did not answer within {timeout:g} s") from error
        except IqError as error:
            raise stanza.read_error(error.iq) from error
        finally:
            del self._asking[over]
            self._forget(iq, answer)

    def break_off(self, peer: JID) -> None:
        """See :meth:`slixmpp_bt.wire.Wire.break_off`."""
        lost = [over for over, to in self._asking.items() if peer in (to, JID(to.bare))]
        self._give_up(lost, f"{peer} is not there any more")
        streams = self._streams.get(Route.IN_BAND)
        if isinstance(streams, InBandStreams):
            streams.break_off(peer)

    def expect_stream(self, route: Route, sid: str, peer: JID, *, sender: JID) -> AbstractAsyncContextManager[Expected]:
        """See :meth:`slixmpp_bt.wire.Wire.expect_stream`."""
        if route is Route.RELAY:
            return self._relay.expect(sid, peer, sender=sender, own_only=self.hidden(peer, sender))
        return self._in_band.expect(sid, peer, sender=sender)

    async def open_stream(
        self, route: Route, sid: str, to: JID, *, sender: JID, hosts: tuple[messages.StreamHost, ...] = ()
    ) -> Stream:
        """See :meth:`slixmpp_bt.wire.Wire.open_stream`."""
        if route is Route.RELAY:
            return await self._relay.open(sid, to, sender=sender, hosts=hosts, own_only=self.hidden(to, sender))
        return await self._in_band.open(sid, to, sender=sender)

    async def relays(self, *, sender: JID) -> tuple[messages.StreamHost, ...]:
        """See :meth:`slixmpp_bt.wire.Wire.relays`."""
        return await self._relay.relays(sender=sender) if self.is_online else ()

    # Made when they are needed: slixmpp loads the plugins that they use after it has made ours.

    @property
    def _in_band(self) -> InBandStreams:
        self._check_session_for_streams()
        if Route.IN_BAND not in self._streams:
            self._streams[Route.IN_BAND] = InBandStreams(self._xmpp)
        return cast(InBandStreams, self._streams[Route.IN_BAND])

    @property
    def _relay(self) -> RelayStreams:
        self._check_session_for_streams()
        if Route.RELAY not in self._streams:
            self._streams[Route.RELAY] = RelayStreams(self._xmpp)
        return cast(RelayStreams, self._streams[Route.RELAY])

    def _check_session_for_streams(self) -> None:
        if not self.is_online:
            raise StreamBroken("there is no session")

    def _check_session(self) -> None:
        if not self._started.is_set():
            raise PeerGone("there is no session")

    def _give_up(self, waiting: Iterable[asyncio.Future[str]], why: str) -> None:
        for over in waiting:
            if not over.done():
                over.set_result(why)

    def _check_occupant(self, to: JID, sender: JID) -> None:
        """What is for an occupant must not go to the room, nor to whoever has the nick now and was not seen to come."""
        if self._rooms.absent(to, sender):
            raise PeerGone(f"nobody is at {to} now")

    def _message(self, message: messages.Message, to: JID, sender: JID, mtype: str) -> Message:
        built = self._xmpp.make_message(mto=to, mtype=cast(_MessageType, mtype))
        built["id"] = self._xmpp.new_id()
        self._address(built, sender)
        stanza.fill_message(built, message)
        return built

    def _addressees(self, to: JID, mtype: str) -> list[JID]:
        """Prosody drops a headline from an account to itself, so that goes to each of its devices."""
        own = JID(self._xmpp.boundjid)
        if mtype != "headline" or to.full != own.bare:
            return [to]
        devices = self._xmpp.roster[own.bare][own.bare].resources
        return [JID(f"{own.bare}/{name}") for name in devices if name != own.resource] or [to]

    def _address(self, built: Message | Iq, sender: JID) -> None:
        if isinstance(self._xmpp, ComponentXMPP):
            built["from"] = sender

    def _forget(self, iq: Iq, answer: asyncio.Future[Iq]) -> None:
        if answer.done():
            if not answer.cancelled():
                answer.exception()  # seen, even where a cancellation came at the same moment
            return
        # slixmpp keeps the handler and the timer of an iq until its answer or its timeout.
        answer.cancel()
        self._xmpp.remove_handler(f"IqCallback_{iq['id']}")
        self._xmpp.cancel_schedule(f"IqTimeout_{iq['id']}")


def _reply(iq: Iq, request: messages.Request) -> messages.Reply:
    reply = stanza.find(iq)
    expected: type[messages.Reply] = messages.Done
    if isinstance(request, messages.Accept):
        expected = messages.Accepted
    elif isinstance(request, messages.Meta):
        expected = messages.MetaChunk
    elif isinstance(request, messages.Fetch):
        expected = messages.Fetching
    if not isinstance(reply, expected) or getattr(reply, "id", request.id) != request.id:
        raise ProtocolError("the answer is not to what was asked", "undefined-condition")
    return reply
