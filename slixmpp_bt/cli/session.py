"""The command's own XMPP client: it logs in, stays logged in, and leaves in bounded time."""

from __future__ import annotations

import argparse
import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import slixmpp
from slixmpp import JID
from slixmpp.exceptions import IqError, IqTimeout

from ..plugin import XEP_BT, get_plugin
from .account import Account
from .again import Unfinished
from .failures import NO_LOGIN, Failure
from .keeping import Keep

#: Seconds until a login is given up, and until leaving is.
_LOGIN_PATIENCE = 30.0
_LEAVING_PATIENCE = 10.0
#: How long the answers to the last words of transfers are waited for, in seconds.
_LAST_WORDS_PATIENCE = 3.0
#: How long a contact's presence may take to come after the login, in seconds.
_PRESENCE_PATIENCE = 3.0
#: A connection that was lost is made anew after so many seconds; slixmpp waits longer and longer if that fails.
_PAUSE = 1.0


@asynccontextmanager
async def session(client: Client, options: argparse.Namespace, *, asks: bool = False) -> AsyncIterator[None]:
    """`client` is logged in, and has taken up what earlier commands have kept.

    At the end it is disconnected, in some ten seconds at most. What is unfinished then is kept, and noted to be said;
    or, if nothing is kept, cancelled with the other sides told.

    :param asks: whether offers that nobody has answered are a question to the user.
    :raises Failure: no way in, be it now or after the connection was lost.
    """
    task = asyncio.current_task()
    assert task is not None
    client.give_up = task.cancel
    try:
        await client.log_in()
        yield
        await client.bt.untold(_LAST_WORDS_PATIENCE)
    except asyncio.CancelledError:
        if client.failure is None:
            raise
        task.uncancel()
        raise client.failure from None
    finally:
        unfinished = Unfinished(client.bt, options, asks=asks)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVING_PATIENCE):
                await client.leave()
        client.keep.note(unfinished.lines())


class Client(slixmpp.ClientXMPP):
    """A client with the plugin. It lets nobody into the roster by itself: the account is a person's.

    :param config: the plugin's configuration.
    :ivar keep: where it keeps what is unfinished.
    :ivar give_up: called when it cannot come back after its connection was lost.
    :ivar failure: why it gave up.
    :raises ConfigError: `config` is wrong.
    """

    def __init__(self, account: Account, config: Mapping[str, Any], keep: Keep) -> None:
        # The same device again after a reconnect and in the next run, so that the other side finds it.
        super().__init__(f"{account.jid.bare}/{account.jid.resource or keep.resource}", account.password)
        self.auto_authorize = None
        self.auto_subscribe = False
        if account.ca_certs is not None:
            self.ca_certs = account.ca_certs
        self.keep = keep
        self.register_plugin("xep_bt", {"state_dir": keep.directory, "instance": keep.instance, **config})
        self._where = (account.host, account.port) if account.host else (None, None)
        self.failure: Failure | None = None
        self.give_up: Callable[[], object] = lambda: None
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
        """Connect, log in, fetch the roster, become available, and take up what earlier commands have kept.

        :raises Failure: no way in.
        """
        self.connect(*self._where)
        try:
            async with asyncio.timeout(_LOGIN_PATIENCE):
                await self._entered
                await self.bt.restored()
                if not self.bt.persistent:
                    self.keep.fail()
        except TimeoutError:
            raise Failure(f"cannot log in as {self.requested_jid.bare}: {self._why or 'no answer'}", NO_LOGIN) from None

    async def meet(self, jid: JID) -> None:
        """Give the presence of a contact, or of a device of the own account, time to come.

        It has not come yet right after the login, and without it an offer would go to an account blindly.
        """
        if jid.resource or not self._sees(jid) or self.devices(jid):
            return
        came = asyncio.Event()

        def look(_: object) -> None:
            if self.devices(jid):
                came.set()

        self.add_event_handler("presence_available", look)
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(came.wait(), _PRESENCE_PATIENCE)
        finally:
            self.del_event_handler("presence_available", look)

    async def leave(self) -> None:
        """Disconnect. If nothing is kept, end transfers first and tell the other sides. Cancelling it drops the
        connection."""
        self._leaving = True
        self._entered.cancel()
        if self._again is not None:
            self._again.cancel()
        try:
            for transfer in () if self.keep.directory else self.bt.transfers:
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

    def devices(self, jid: JID) -> set[str]:
        """The devices of `jid`, but for this one, that are known to be there."""
        if not self.client_roster.has_jid(jid.bare):
            return set()
        names = self.client_roster[jid.bare].resources
        return {name for name in names if name and JID(f"{jid.bare}/{name}") != self.boundjid}

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
            self.give_up()
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
