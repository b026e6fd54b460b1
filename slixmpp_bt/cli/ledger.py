"""What went over XMPP, told apart: the library's own stanzas, and everything else."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from xml.etree.ElementTree import Element, fromstring

from slixmpp import JID

from ..constants import NS
from ..testing import LoopbackServer

_OURS = (f"{{{NS}}}", "{urn:xmpp:sfs:0}")


@dataclass(slots=True)
class Share:
    """Bytes of XML, and stanzas."""

    size: int = 0
    stanzas: int = 0


class Ledger:
    """Counts from now on what `server` passes between its users for transfers: offers, requests, and the answers to
    them. Service discovery and presence are not for a transfer; they tell what a client can do. Each account is
    expected to have one device.
    """

    def __init__(self, server: LoopbackServer) -> None:
        self._server = server
        self._shares: defaultdict[str, Share] = defaultdict(Share)
        self._asked: set[tuple[str, str]] = set()
        server.tap(self._overhear)

    def transfers(self, jid: JID) -> Share:
        """What `jid` was sent for transfers."""
        return self._shares[jid.bare]

    def rest(self, jid: JID) -> Share:
        """What the device `jid` was sent besides, since its session began: roster, presence, service discovery."""
        total, ours = self._server.traffic[jid], self.transfers(jid)
        return Share(total.bytes_out - ours.size, total.stanzas_out - ours.stanzas)

    def _overhear(self, sender: JID, to: JID, xml: bytes) -> None:
        stanza = fromstring(xml)  # noqa: S314 (the server has parsed and written it)
        if self._is_ours(stanza, sender, to):
            share = self._shares[to.bare]
            share.size += len(xml)
            share.stanzas += 1

    def _is_ours(self, stanza: Element, sender: JID, to: JID) -> bool:
        key = stanza.get("id", "")
        if stanza.get("type") in ("result", "error"):
            # An answer may be empty; what it answers tells whose it is.
            return (to.full, key) in self._asked
        ours = any(child.tag.startswith(_OURS) for child in stanza)
        if ours:
            self._asked.add((sender.full, key))
        return ours
