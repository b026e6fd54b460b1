"""What this side can, as others find it by service discovery and capabilities (XEP-0030, XEP-0115)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any

from slixmpp import JID, BaseXMPP, ComponentXMPP

from .config import Config
from .constants import FEATURE_IN_BAND, FEATURE_RELAY, FEATURE_SEALED, NS, Route

_ROUTES = {Route.RELAY: FEATURE_RELAY, Route.IN_BAND: FEATURE_IN_BAND}


def features(config: Config, watched: Collection[str]) -> list[str]:
    """What a side really can; nothing that others would send it anything for, if it does not receive.

    :param watched: the PubSub nodes whose news are wanted.
    """
    if not config.receive:
        return []
    news = (f"{node}+notify" for node in sorted(watched))
    return [NS, FEATURE_SEALED, *(feature for route, feature in _ROUTES.items() if route in config.routes), *news]


class Features:
    """Shows them for every JID that is used; a component has many.

    :param current: what this side can now.
    :param spawn: owns a task.
    """

    def __init__(
        self, xmpp: BaseXMPP, current: Callable[[], list[str]], spawn: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        self._xmpp = xmpp
        self._current = current
        self._spawn = spawn
        self._announced: set[JID] = set()

    def announce(self, jid: JID) -> None:
        """Show them for `jid`, again in each session of a client."""
        if jid in self._announced and isinstance(self._xmpp, ComponentXMPP):
            return
        self._announced.add(jid)
        self._add(jid, self._current())
        if not isinstance(self._xmpp, ComponentXMPP):
            self._spawn(self.update_caps())

    def use(self, jid: JID) -> None:
        """See that they are shown for `jid`."""
        if jid not in self._announced:
            self.announce(jid)

    def conceal(self) -> None:
        """Show them for nobody."""
        for jid in self._announced:
            self._remove(jid, self._current())

    def change(self, before: Iterable[str]) -> None:
        """They are others now."""
        announced, self._announced = self._announced, set()
        for jid in announced:
            self._remove(jid, before)
            self.announce(jid)

    def watch(self, node: str) -> None:
        """Have the server tell of what happens to a node (XEP-0163 section 4.3.4)."""
        for jid in self._announced:
            self._add(jid, [f"{node}+notify"])
        self._spawn(self.update_caps())

    async def update_caps(self) -> None:
        """Say it in presence. Presence is the application's to begin; what it has sent is sent again."""
        seen = self._xmpp.roster[self._xmpp.boundjid.bare].last_status is not None
        await self._xmpp.plugin["xep_0115"].update_caps(broadcast=seen)

    def _add(self, jid: JID, names: Iterable[str]) -> None:
        for feature in names:
            self._xmpp.plugin["xep_0030"].add_feature(feature, jid=jid)

    def _remove(self, jid: JID, names: Iterable[str]) -> None:
        for feature in names:
            self._xmpp.plugin["xep_0030"].del_feature(jid=jid, feature=feature)
