"""How everything leaves this side: a small interface, so that what decides need not know slixmpp."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from slixmpp import JID

from .constants import Route
from .errors import BTError
from .messages import Message, Reply, Request, StreamHost


class StreamBroken(BTError):
    """A stream did not come about, or broke.

    :ivar final: whether trying again is of no use: the other side, its server or this one does not have such streams.
    """

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class Stream(Protocol):
    """An ordered stream of bytes between two full JIDs, by whichever route. One direction is enough: the side that
    opened it sends."""

    async def send(self, data: bytes) -> None:
        """Send `data`; returns when there is room for more, which is the back-pressure.

        Cancelling it leaves the stream of no use but for :meth:`aclose`.

        :raises StreamBroken: the stream is broken, closed by the other side, or its session has ended.
        """

    async def receive(self) -> bytes:
        """The next bytes, in order, as soon as there are some; empty once the other side has closed it in good order.

        Cancelling it loses nothing.

        :raises StreamBroken: it is broken, its session has ended, or nothing came for as long as its rate makes likely.
        """

    async def aclose(self) -> None:
        """Close it: what was sent is delivered first, as far as that succeeds within some seconds. Idempotent, and
        never raises but for a cancellation, after which nothing is left open either."""


class Expected(Protocol):
    """A stream that the other side is about to open."""

    async def opened(self) -> Stream:
        """Wait for it. Cancelling it, or a time-out around it, loses nothing.

        :raises StreamBroken: it cannot come about any more.
        """


class Wire(Protocol):
    """Sends messages and requests. `sender` is the own JID to speak as; a client has only one."""

    async def online(self) -> None:
        """Return once there is a session; at once if there is one."""

    async def entered(self, room: JID, *, sender: JID) -> None:
        """Return once `sender` is in `room` (XEP-0045); at once if it is."""

    async def send(self, message: Message, to: JID, *, sender: JID, mtype: str) -> str:
        """Send a message stanza of type `mtype` and return its id. It is not acknowledged.

        :raises LimitExceeded: it does not fit a stanza.
        :raises PeerGone: there is no session; or it is for an occupant of a room who is not there, or for a room that
            `sender` is not in.
        """

    async def request(self, request: Request, to: JID, *, sender: JID, timeout: float = 30.0) -> Reply:
        """Send an iq and return its answer. Cancelling it forgets the answer; the other side may act all the same.

        :param timeout: seconds.
        :raises ProtocolError: the other side refused; `condition` says how.
        :raises PeerGone: no answer in time, no session, or the session ended meanwhile; or it would be for an occupant
            of a room who is not there.
        :raises LimitExceeded: it does not fit a stanza.
        """

    def break_off(self, peer: JID) -> None:
        """An occupant of a room is not to be reached under this JID any more, nor are all in a room if it is the
        room's: who waits for an answer from there waits in vain, and in-band streams break."""

    def expect_stream(self, route: Route, sid: str, peer: JID, *, sender: JID) -> AbstractAsyncContextManager[Expected]:
        """Let exactly `peer` (a full JID) open exactly the stream `sid` by `route` (``relay`` or ``in-band``), once,
        as long as the context lasts. Leaving it closes the stream, or withdraws the permission.

        :raises StreamBroken: there is no session, or this side has no such streams.
        """

    async def open_stream(
        self, route: Route, sid: str, to: JID, *, sender: JID, hosts: tuple[StreamHost, ...] = ()
    ) -> Stream:
        """Open the stream `sid`, which `to` expects.

        :param hosts: for ``relay``: proxies that the other side found on its own server, beside those found here.
        :raises StreamBroken: the other side refuses, no proxy works, no session.
        """

    async def relays(self, *, sender: JID) -> tuple[StreamHost, ...]:
        """The proxies (XEP-0065) that the own server offers; asked for once in each session. Empty without."""
