"""What every side that uses XMPP has in common: a slixmpp client that is online before anything is measured."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import slixmpp

from . import End, until

#: Seconds for a login or a stanza's answer.
PATIENCE = 60


class XmppEnd(End):
    """A client.

    :param account: ``jid``, ``password``, ``host``, ``port``, ``ca_certs``.
    """

    def __init__(self, account: dict[str, Any]) -> None:
        self._account = account

    def register(self) -> None:
        """Register the plugins that this way needs."""

    async def open(self) -> dict[str, Any]:
        self.xmpp = slixmpp.ClientXMPP(self._account["jid"], self._account["password"])
        self.xmpp.ca_certs, self.xmpp.enable_direct_tls = Path(self._account["ca_certs"]), False
        self.xmpp.register_plugin("xep_0199")
        self.register()
        online = asyncio.get_running_loop().create_future()
        self.xmpp.add_event_handler("session_start", online.set_result, disposable=True)
        self.xmpp.connect(self._account["host"], self._account["port"])
        await asyncio.wait_for(online, PATIENCE)
        await self.xmpp.get_roster(timeout=PATIENCE)
        self.xmpp.send_presence()
        return {"jid": str(self.xmpp.boundjid)}

    async def see(self, jid: str) -> None:
        """Return when the presence of `jid` is visible."""
        full = slixmpp.JID(jid)
        async with asyncio.timeout(PATIENCE):
            await until(lambda: full.resource in self.xmpp.roster[self.xmpp.boundjid.bare][full.bare].resources)

    async def ping(self, jid: str, count: int) -> list[float]:
        """Seconds of each of `count` round trips to `jid`, one after another."""
        ping = self.xmpp.plugin["xep_0199"].ping
        return [await ping(slixmpp.JID(jid), timeout=PATIENCE) for _ in range(count)]

    async def aclose(self) -> None:
        await self.xmpp.disconnect()
