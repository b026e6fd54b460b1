"""A PEP node: its items, its configuration, and who may read it (XEP-0060 sections 4.5 and 16.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from .accounts import Account
from .markup import E
from .stanzas import StanzaError

ERRORS = "{http://jabber.org/protocol/pubsub#errors}"
#: The most items of a node, also where its owner says "max".
MAX_ITEMS = 10_000
DEFAULTS: Mapping[str, tuple[str, ...]] = {
    "pubsub#title": ("",),
    "pubsub#access_model": ("presence",),
    "pubsub#roster_groups_allowed": (),
    "pubsub#max_items": ("1",),
    "pubsub#persist_items": ("1",),
    "pubsub#deliver_notifications": ("1",),
    "pubsub#deliver_payloads": ("1",),
    "pubsub#notify_retract": ("1",),
    "pubsub#notify_delete": ("1",),
    "pubsub#send_last_published_item": ("on_sub_and_presence",),
    "pubsub#publish_model": ("publishers",),
    "pubsub#type": ("",),
    "pubsub#notification_type": ("headline",),
}
_ALLOWED: Mapping[str, frozenset[str]] = {
    "pubsub#access_model": frozenset({"open", "presence", "roster", "whitelist"}),
    "pubsub#send_last_published_item": frozenset({"never", "on_sub", "on_sub_and_presence"}),
    "pubsub#publish_model": frozenset({"publishers"}),
}
_FLAGS = frozenset(
    f"pubsub#{name}"
    for name in ("persist_items", "deliver_notifications", "deliver_payloads", "notify_retract", "notify_delete")
)


@dataclass(slots=True)
class Node:
    """A node. `items` by id, oldest first; `subscribers` are the JIDs that asked for more than the filter gives;
    `most` is how many items the server lets it have."""

    name: str
    config: dict[str, tuple[str, ...]] = field(default_factory=lambda: dict(DEFAULTS))
    items: dict[str, Element] = field(default_factory=dict)
    subscribers: set[str] = field(default_factory=set)
    affiliations: dict[str, str] = field(default_factory=dict)
    most: int = MAX_ITEMS

    def option(self, name: str) -> str:
        """The first value of an option, without its prefix."""
        return (self.config[f"pubsub#{name}"] or ("",))[0]

    def on(self, name: str) -> bool:
        """Whether a flag is set."""
        return self.option(name) in ("1", "true")

    @property
    def max_items(self) -> int:
        """How many items are kept."""
        limit = self.option("max_items")
        return self.most if limit == "max" else min(int(limit), self.most)

    def configure(self, values: Mapping[str, list[str]]) -> None:
        """Take a submitted form.

        :raises StanzaError: not-acceptable, and nothing is changed: an unknown option or a value that is none.
        """
        for name, value in values.items():
            _check(name, value, self.most)
        self.config.update({name: tuple(value) for name, value in values.items()})
        self._shorten()

    def meets(self, values: Mapping[str, list[str]]) -> bool:
        """Whether the configuration is what publish-options ask for (XEP-0060 section 7.1.5)."""
        return all(_same(self.config.get(name), tuple(value), name) for name, value in values.items())

    def store(self, item_id: str, item: Element) -> None:
        """Keep an item as the newest; the oldest make room."""
        self.items.pop(item_id, None)
        if self.on("persist_items"):
            self.items[item_id] = item
            self._shorten()

    def _shorten(self) -> None:
        while len(self.items) > self.max_items:
            del self.items[next(iter(self.items))]

    def check_access(self, account: Account, reader: str) -> None:
        """Whether a bare JID may read.

        :raises StanzaError: why not, in the words of XEP-0060 section 6.5.9.
        """
        affiliation = self.affiliations.get(reader)
        if reader == account.jid or affiliation in ("owner", "publisher", "member"):
            return
        if affiliation == "outcast":
            raise StanzaError("forbidden")
        model = self.option("access_model")
        if model == "presence" and not account.shows_presence_to(reader):
            raise StanzaError("not-authorized", "", E(f"{ERRORS}presence-subscription-required"))
        if model == "roster" and not self._in_group(account, reader):
            raise StanzaError("not-authorized", "", E(f"{ERRORS}not-in-roster-group"))
        if model == "whitelist":
            raise StanzaError("not-allowed", "", E(f"{ERRORS}closed-node"))

    def readable_by(self, account: Account, reader: str) -> bool:
        """Whether a bare JID may read."""
        try:
            self.check_access(account, reader)
        except StanzaError:
            return False
        return True

    def _in_group(self, account: Account, reader: str) -> bool:
        contact, allowed = account.contact(reader), set(self.config["pubsub#roster_groups_allowed"])
        return contact.from_ and not allowed.isdisjoint(contact.groups)


def _check(name: str, value: list[str], most: int) -> None:
    if name not in DEFAULTS:
        raise StanzaError("not-acceptable", f"there is no option {name}")
    first = value[0] if value else ""
    if name == "pubsub#max_items":
        valid = first == "max" or (first.isascii() and first.isdigit() and 0 < int(first[:9]) <= most)
    elif name in _FLAGS:
        valid = first in ("0", "1", "true", "false")
    else:
        valid = name not in _ALLOWED or first in _ALLOWED[name]
    if not valid:
        raise StanzaError("not-acceptable", f"{name} cannot be {first!r}")


def _same(had: tuple[str, ...] | None, wanted: tuple[str, ...], name: str) -> bool:
    if had is not None and name in _FLAGS:
        truth = {"1": "true", "0": "false"}
        return [truth.get(v, v) for v in had] == [truth.get(v, v) for v in wanted]
    return had is not None and set(had) == set(wanted)
