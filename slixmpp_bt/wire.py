"""How everything leaves this side: a small interface, so that what decides need not know slixmpp."""

from __future__ import annotations

from typing import Protocol

from slixmpp import JID

from .messages import Message, Reply, Request


class Wire(Protocol):
    """Sends messages and requests. `sender` is the own JID to speak as; a client has only one."""

    async def online(self) -> None:
        """Return once there is a session; at once if there is one."""

    async def send(self, message: Message, to: JID, *, sender: JID, mtype: str) -> str:
        """Send a message stanza of type `mtype` and return its id. It is not acknowledged.

        :raises LimitExceeded: it does not fit a stanza.
        :raises PeerGone: there is no session.
        """

    async def request(self, request: Request, to: JID, *, sender: JID, timeout: float = 30.0) -> Reply:
        """Send an iq and return its answer. Cancelling it forgets the answer; the other side may act all the same.

        :param timeout: seconds.
        :raises ProtocolError: the other side refused; `condition` says how.
        :raises PeerGone: no answer in time, no session, or the session ended meanwhile.
        :raises LimitExceeded: it does not fit a stanza.
        """
