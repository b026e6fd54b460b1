"""Whom a catalogue lets in: as a user says it, as it is kept, and what a PubSub node makes of it."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, Self

from slixmpp import JID
from slixmpp.jid import InvalidJID

Model = Literal["presence", "open", "group", "whitelist"]

#: How a roster group is told from a JID.
_GROUP = "group:"
#: So many names, and so many characters of one, at most.
_MAX_NAMES, _MAX_NAME = 500, 1_023


@dataclass(frozen=True, slots=True)
class Access:
    """An access model (XEP-0060 section 4.5), and for whom.

    :ivar model: ``presence``: who sees the account's presence; ``open``: anybody; ``group``: those of them who are in
        one of the roster groups `names`; ``whitelist``: the bare JIDs `names`.
    """

    model: Model
    names: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, given: object) -> Self:
        """Read ``"presence"``, ``"open"``, a bare JID, ``"group:Friends"``, or a collection of JIDs or of groups.

        :raises ValueError: it is none of these, or mixes them.
        """
        if given in ("presence", "open"):
            return cls("presence" if given == "presence" else "open")
        if isinstance(given, str | JID):
            given = [given]
        if not isinstance(given, Collection) or not 0 < len(given) <= _MAX_NAMES:
            raise ValueError(f"access must be 'presence', 'open', some bare JIDs or some 'group:Name', not {given!r}")
        texts = [str(name) for name in given]
        groups = frozenset(text[len(_GROUP) :] for text in texts if text.startswith(_GROUP))
        if not groups:
            return cls("whitelist", frozenset(map(_bare, texts)))
        if not all(text.startswith(_GROUP) for text in texts) or not all(0 < len(g) <= _MAX_NAME for g in groups):
            raise ValueError(f"access is either for roster groups or for JIDs, not {given!r}")
        return cls("group", groups)

    @classmethod
    def restore(cls, text: str | None) -> Self:
        """What :meth:`__str__` wrote. What makes no sense lets nobody in."""
        try:
            return cls.parse(json.loads(text or "null"))
        except (ValueError, RecursionError):
            return cls("whitelist")

    def __str__(self) -> str:
        """It, as JSON."""
        prefix = _GROUP if self.model == "group" else ""
        return json.dumps(sorted(prefix + name for name in self.names) or self.model)

    def __repr__(self) -> str:
        return f"<Access {self.model}{''.join(f' {name!r}' for name in sorted(self.names))}>"


def _bare(text: str) -> str:
    try:
        jid = JID(text)
    except InvalidJID as error:
        raise ValueError(f"access: {text!r} is not a JID") from error
    if not jid.domain or jid.resource:
        raise ValueError(f"access: {text!r} is not a bare JID; for a roster group say 'group:{text}'")
    return str(jid.bare)
