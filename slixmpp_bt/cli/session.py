"""The command's own XMPP client: it logs in, stays logged in, and leaves in bounded time."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import slixmpp
from slixmpp import JID
from slixmpp.exceptions import IqError, IqTimeout

from ..plugin import XEP_BT, get_plugin
from .account import Account
from .failures import NO_LOGIN, Failure

#: Seconds until a login is given up, and until leaving is.
_LOGIN_PATIENCE = 30.0
_LEAVING_PATIENCE = 10.0
#: How long a contact's presence may take to come after the login, in seconds.
_PRESENCE_PATIENCE = 3.0
#: A connection that was lost is made anew after so many seconds; slixmpp waits longer and longer if that fails.
_PAUSE = 1.0


@asynccontextmanager
async def session(account: Account, config: Mapping[str, Any]) -> AsyncIterator[Client]:
    """A client that is logged in.

    At the end whatever runs is cancelled, the other sides are told, and the client is disconnected, in some ten
    seconds at most.

    :param config: the plugin's configuration.
    :raises Failure: no way in, be it now or after the connection was lost.
    :raises ConfigError: `config` is wrong.
    """
    task = asyncio.current_task()
    assert task is not None
    client = Client(account, config, give_up=task.cancel)
    try:
        await client.log_in()
        yield client
    except asyncio.CancelledError:
        if client.failure is None:
            raise
        task.uncancel()
        raise client.failure from None
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVING_PATIENCE):
                await client.leave()


class Client(slixmpp.ClientXMPP):
    """A client with the plugin. It lets nobody into the roster by itself: the account is a person's.

    :param give_up: called when it cannot come back after its connection was lost.
    :ivar failure: why it gave up.
    """

    def __init__(self, account: Account, config: Mapping[str, Any], give_up: Callable[[], object]) -> None:
        # The same device again after a reconnect, so that the other side finds it.
        resource = account.jid.resource or f"slixmpp-bt-{secrets.token_hex(4)}"
        super().__init__(f"{account.jid.bare}/{resource}", account.password)
        self.auto_authorize = None
        self.auto_subscribe = False
        if account.ca_certs is not None:
            self.ca_certs = account.ca_certs
        self.register_plugin("xep_bt", {"state_dir": None, **config})
        self._where = (account.host, account.port) if account.host else (None, None)
        self.failure: Failure | None = None
        self._give_up = give_up
        self._why = ""
        self._entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._leaving = False
        self._again: asyncio.TimerHandle | None = None
        for event, handler in self._handlers().items():
            self.add_event_handler(event, handler)

    @property
    def bt(self) -> XEP_BT:
        """The plugin."""
        return get_plugin(self)

    async def log_in(self) -> None:
        """Connect, log in, fetch the roster and become available.

        :raises Failure: no way in.
        """
        self.connect(*self._where)
        try:
            async with asyncio.timeout(_LOGIN_PATIENCE):
                await self._entered
        except TimeoutError:
            raise Failure(f"cannot log in as {self.requested_jid.bare}: {self._why or 'no answer'}", NO_LOGIN) from None

    async def meet(self, jid: JID) -> None:
        """Give the presence of a contact, or of a device of the own account, time to come.

        It has not come yet right after the login, and without it an offer would go to an account blindly.
        """
        if jid.resource or not self._sees(jid) or self._visible(jid):
            return
        came = asyncio.Event()

        def look(_: object) -> None:
            if self._visible(jid):
                came.set()

        self.add_event_handler("presence_available", look)
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(came.wait(), _PRESENCE_PATIENCE)
        finally:
            self.del_event_handler("presence_available", look)

    async def leave(self) -> None:
        """End transfers, telling the other sides, and disconnect. Cancelling it drops the connection."""
        self._leaving = True
        self._entered.cancel()
        if self._again is not None:
            self._again.cancel()
        try:
            for transfer in self.bt.transfers:
                await transfer.cancel("the command was stopped")
            await self.bt.aclose()
            await self.disconnect()
        finally:
            self.cancel_connection_attempt()
            self.abort()

    def _sees(self, jid: JID) -> bool:
        """Whether the server will tell of the devices of `jid`."""
        if jid.bare == self.boundjid.bare:
            return True
        return self.client_roster.has_jid(jid.bare) and self.client_roster[jid.bare]["subscription"] in ("to", "both")

    def _visible(self, jid: JID) -> bool:
        """Whether a device of `jid`, and not this one, is known to be there."""
        if not self.client_roster.has_jid(jid.bare):
            return False
        return any(
            JID(f"{jid.bare}/{name}") != self.boundjid for name in self.client_roster[jid.bare].resources if name
        )

    # events

    def _handlers(self) -> dict[str, Any]:
        return {
            "session_start": self._start,
            "connection_failed": self._note,
            "connected": self._connected,
            "reconnect_delay": self._no_connection,
            "ssl_invalid_chain": self._no_trust,
            "stream_error": self._note_stream_error,
            "failed_all_auth": self._no_login,
            "disconnected": self._lost,
        }

    async def _start(self, _: object) -> None:
        try:
            await self.get_roster()
        except (IqError, IqTimeout) as error:
            self._fail(f"the server does not give the roster: {error.condition}")
            return
        self.send_presence()
        if not self._entered.done():
            self._entered.set_result(None)

    def _note(self, reason: object) -> None:
        if isinstance(reason, str):  # slixmpp's words for a name without an address; they always name the JID's domain
            self._why = f"there is no address for the name {self._where[0] or self.boundjid.domain}"
        else:
            self._why = str(getattr(reason, "strerror", None) or reason)

    def _connected(self, _: object) -> None:
        self._why = ""  # the address that was tried before this one does not matter any more

    def _note_stream_error(self, error: Any) -> None:
        self._why = error["text"] or error["condition"].replace("-", " ")

    def _no_connection(self, _: object) -> None:
        """Every address was tried once. Before the first login that is enough."""
        self._fail(f"cannot connect: {self._why}")

    def _no_trust(self, error: object) -> None:
        self._fail(f"the server's certificate is not trusted: {getattr(error, 'verify_message', error)}")
        self.abort()

    def _no_login(self, _: object) -> None:
        words = f"cannot log in as {self.requested_jid.bare}: the server refuses the account or its password"
        if self._entered.done() and not self._leaving:
            self._leaving = True
            self.failure = Failure(words, NO_LOGIN)
            self._give_up()
        self._fail(words)

    def _lost(self, reason: object) -> None:
        if isinstance(reason, ssl.SSLCertVerificationError):
            self._no_trust(reason)
        self._fail(f"the connection was lost: {self._why or reason or 'without a word'}")
        if not self._leaving and self._entered.done() and self._again is None:
            self._again = asyncio.get_running_loop().call_later(_PAUSE, self._reconnect)

    def _reconnect(self) -> None:
        self._again = None
        if not self._leaving:
            self.connect(*self._where)

    def _fail(self, words: str) -> None:
        """Before the first login: give up."""
        if not self._entered.done():
            self._leaving = True
            self._entered.set_exception(Failure(words, NO_LOGIN))
