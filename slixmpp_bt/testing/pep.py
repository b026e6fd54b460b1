"""Personal eventing (XEP-0163 over XEP-0060): each account publishes, and who wants to know is told."""

from __future__ import annotations

from collections.abc import Callable
from xml.etree.ElementTree import Element

from .accounts import Account, Session
from .caps import Capabilities
from .disco import Disco, info, items
from .domain import Domain, Request
from .forms import form, submitted
from .markup import MESSAGE, E, local_name
from .nodes import ERRORS, MAX_ITEMS, Node
from .stanzas import StanzaError, jid, new_id

NS = "http://jabber.org/protocol/pubsub"
PUBSUB, EVENT, OWNER = f"{{{NS}}}", f"{{{NS}#event}}", f"{{{NS}#owner}}"
_MAX_NODES = 200
_FEATURES = (
    *("access-open", "access-presence", "access-roster", "access-whitelist"),
    *("auto-create", "create-and-configure", "create-nodes", "delete-nodes", "purge-nodes"),
    *("config-node", "config-node-max", "meta-data", "modify-affiliations", "publish-options"),
    *("publish", "item-ids", "multi-items", "persistent-items", "delete-items", "retract-items", "retrieve-items"),
    *("subscribe", "filtered-notifications", "presence-notifications", "last-published"),
)


class Pep:
    """Answers pubsub requests to accounts, and notifies.

    :param most: how many items a node may have.
    """

    def __init__(self, domain: Domain, disco: Disco, capabilities: Capabilities, most: int = MAX_ITEMS) -> None:
        self._domain = domain
        self._most = most
        domain.serve(f"{PUBSUB}pubsub", self._answer)
        domain.serve(f"{OWNER}pubsub", self._answer_owner)
        capabilities.listeners.append(self._newcomer)
        disco.account_identities.append(("pubsub", "pep", ""))
        disco.account_features += [NS, *(f"{NS}#{feature}" for feature in _FEATURES)]
        disco.node_info, disco.node_items = self._node_info, self._node_items
        self._actions: dict[str, Callable[[Request, Account, Element], Element | None]] = {
            "publish": self._publish,
            "retract": self._retract,
            "create": self._create,
            "items": self._items,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
        }

    def _answer(self, request: Request) -> Element | None:
        if request.account is None:
            raise StanzaError("service-unavailable")
        if not len(request.payload):
            raise StanzaError("bad-request")
        action = self._actions.get(local_name(request.payload[0].tag))
        if action is None:
            raise StanzaError("feature-not-implemented")
        return action(request, request.account, request.payload[0])

    # For the owner

    def _publish(self, request: Request, account: Account, publish: Element) -> Element:
        request.owner()
        item = publish.find(f"{PUBSUB}item")
        options = submitted(request.payload.find(f"{PUBSUB}publish-options")) or {}
        if item is None or len(item) > 1:
            raise StanzaError("bad-request", "", E(f"{ERRORS}invalid-payload"))
        node = account.nodes.get(publish.get("node", ""))
        if node is None:
            node = self._make(account, publish.get("node"), options)
        elif not node.meets(options):
            raise StanzaError("conflict", "", E(f"{ERRORS}precondition-not-met"))
        item_id = item.get("id") or new_id()
        item.set("id", item_id)
        node.store(item_id, item)
        self._notify(account, node, _event(node, _shown(item, EVENT)))
        return E(
            f"{PUBSUB}pubsub", None, E(f"{PUBSUB}publish", {"node": node.name}, E(f"{PUBSUB}item", {"id": item_id}))
        )

    def _retract(self, request: Request, account: Account, retract: Element) -> None:
        request.owner()
        node, item = _node(account, retract), retract.find(f"{PUBSUB}item")
        if item is None or node.items.pop(item.get("id", ""), None) is None:
            raise StanzaError("item-not-found")
        if retract.get("notify") in ("1", "true") or node.on("notify_retract"):
            self._notify(account, node, _event(node, E(f"{EVENT}retract", {"id": item.get("id")})))

    def _create(self, request: Request, account: Account, create: Element) -> Element:
        request.owner()
        name = create.get("node") or new_id()
        if name in account.nodes:
            raise StanzaError("conflict")
        self._make(account, name, submitted(request.payload.find(f"{PUBSUB}configure")) or {})
        return E(f"{PUBSUB}pubsub", None, E(f"{PUBSUB}create", {"node": name}))

    def _make(self, account: Account, name: str | None, options: dict[str, list[str]]) -> Node:
        if not name:
            raise StanzaError("bad-request", "", E(f"{ERRORS}nodeid-required"))
        if len(account.nodes) >= _MAX_NODES:
            raise StanzaError("resource-constraint")
        node = Node(name, most=self._most)
        node.configure(options)
        account.nodes[name] = node
        return node

    def _answer_owner(self, request: Request) -> Element | None:
        account, child = request.owner(), request.payload[0] if len(request.payload) else None
        if child is None:
            raise StanzaError("bad-request")
        node = _node(account, child)
        action = local_name(child.tag)
        if action == "configure":
            return self._configure(request, node, child)
        if action == "affiliations":
            return self._affiliations(request, node, child)
        if action == "delete":
            del account.nodes[node.name]
            if node.on("notify_delete"):
                self._notify(account, node, E(f"{EVENT}event", None, E(f"{EVENT}delete", {"node": node.name})))
        elif action == "purge":
            node.items.clear()
            self._notify(account, node, E(f"{EVENT}event", None, E(f"{EVENT}purge", {"node": node.name})))
        else:
            raise StanzaError("feature-not-implemented")
        return None

    def _configure(self, request: Request, node: Node, child: Element) -> Element | None:
        if request.is_set:
            node.configure(submitted(child) or {})
            return None
        shown = form(f"{NS}#node_config", node.config)
        return E(f"{OWNER}pubsub", None, E(f"{OWNER}configure", {"node": node.name}, shown))

    def _affiliations(self, request: Request, node: Node, child: Element) -> Element | None:
        if not request.is_set:
            listed = ({"jid": address, "affiliation": word} for address, word in node.affiliations.items())
            entries = (E(f"{OWNER}affiliation", attributes) for attributes in listed)
            return E(f"{OWNER}pubsub", None, E(f"{OWNER}affiliations", {"node": node.name}, *entries))
        for entry in child.findall(f"{OWNER}affiliation"):
            address, word = jid(entry.get("jid", "")).bare, entry.get("affiliation", "")
            if word not in ("none", "member", "outcast"):
                raise StanzaError("not-acceptable")
            node.affiliations[address] = word
        return None

    # For those who may read

    def _items(self, request: Request, account: Account, wanted: Element) -> Element:
        node = _node(account, wanted)
        node.check_access(account, request.sender.bare)
        ids = [item.get("id", "") for item in wanted.findall(f"{PUBSUB}item")]
        found = [node.items[i] for i in ids if i in node.items] if ids else list(node.items.values())
        limit = wanted.get("max_items", "")
        if limit.isascii() and limit.isdigit():
            found = found[max(0, len(found) - int(limit[:9])) :]
        return E(f"{PUBSUB}pubsub", None, E(f"{PUBSUB}items", {"node": node.name}, *found))

    def _subscribe(self, request: Request, account: Account, wanted: Element) -> Element:
        node, subscriber = self._subscription(request, account, wanted)
        node.check_access(account, request.sender.bare)
        node.subscribers.add(subscriber)
        if node.items and node.option("send_last_published_item") != "never":
            self._send_last(account, node, subscriber)
        attributes = {"node": node.name, "jid": subscriber, "subscription": "subscribed"}
        return E(f"{PUBSUB}pubsub", None, E(f"{PUBSUB}subscription", attributes))

    def _unsubscribe(self, request: Request, account: Account, wanted: Element) -> None:
        node, subscriber = self._subscription(request, account, wanted)
        node.subscribers.discard(subscriber)

    def _subscription(self, request: Request, account: Account, wanted: Element) -> tuple[Node, str]:
        subscriber = jid(wanted.get("jid", ""))
        if subscriber.bare != request.sender.bare:
            raise StanzaError("bad-request", "", E(f"{ERRORS}invalid-jid"))
        return _node(account, wanted), subscriber.full

    # Notifications

    def _notify(self, account: Account, node: Node, event: Element) -> None:
        """Tell the filtered (XEP-0163 section 4.3.4) and the subscribed, nobody twice, and only who may know."""
        if not node.on("deliver_notifications"):
            return
        told = {session.jid.full for session in self._audience(account) if f"{node.name}+notify" in session.features}
        for address in node.subscribers:
            told.update([session.jid.full for session in self._domain.available(address)] or [address])
        for address in sorted(told):
            if node.readable_by(account, jid(address).bare):
                self._send(account, address, event)

    def _audience(self, account: Account) -> list[Session]:
        contacts = [contact.jid for contact in account.roster.values() if contact.from_]
        return [session for address in (account.jid, *contacts) for session in self._domain.available(address)]

    def _newcomer(self, session: Session) -> None:
        """Tell somebody who has just come what was published last (XEP-0163 section 4.3.3)."""
        contacts = (self._domain.accounts.get(contact.jid) for contact in session.account.roster.values() if contact.to)
        for account in (session.account, *(account for account in contacts if account is not None)):
            for node in account.nodes.values():
                wanted = f"{node.name}+notify" in session.features
                on_presence = node.option("send_last_published_item") == "on_sub_and_presence"
                if wanted and on_presence and node.items and node.readable_by(account, session.jid.bare):
                    self._send_last(account, node, session.jid.full)

    def _send_last(self, account: Account, node: Node, address: str) -> None:
        last = next(reversed(node.items.values()))
        self._send(account, address, _event(node, _shown(last, EVENT)))

    def _send(self, account: Account, address: str, event: Element) -> None:
        attributes = {"type": "headline", "id": new_id(), "from": account.jid, "to": address}
        self._domain.router.route(E(MESSAGE, attributes, event))

    # Discovery

    def _node_info(self, request: Request, name: str) -> Element:
        assert request.account is not None
        node = request.account.nodes.get(name)
        if node is None or not node.readable_by(request.account, request.sender.bare):
            raise StanzaError("item-not-found")
        shown = form(f"{NS}#meta-data", node.config, kind="result")
        return info([("pubsub", "leaf", node.option("title"))], [NS], shown, node=name)

    def _node_items(self, request: Request, name: str | None) -> Element:
        account = request.account
        assert account is not None
        readable = [node for node in account.nodes.values() if node.readable_by(account, request.sender.bare)]
        if name is None:
            return items((account.jid, node.name, node.option("title") or None) for node in readable)
        found = next((node for node in readable if node.name == name), None)
        if found is None:
            raise StanzaError("item-not-found")
        return items(((account.jid, None, item_id) for item_id in found.items), node=name)


def _node(account: Account, named: Element) -> Node:
    node = account.nodes.get(named.get("node", ""))
    if node is None:
        raise StanzaError("item-not-found")
    return node


def _shown(item: Element, namespace: str) -> Element:
    """An item as an event shows it: the same payload in another namespace."""
    return E(f"{namespace}item", {"id": item.get("id")}, *item)


def _event(node: Node, entry: Element) -> Element:
    return E(f"{EVENT}event", None, E(f"{EVENT}items", {"node": node.name}, entry))
