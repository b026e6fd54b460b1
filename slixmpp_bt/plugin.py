"""XEP_BT: the slixmpp plugin. It builds the parts, connects them with the stream, and is what a user calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, cast

from slixmpp import JID, BaseXMPP, ClientXMPP, ComponentXMPP, Iq, Message, Presence
from slixmpp.plugins import BasePlugin
from slixmpp.xmlstream.handler.base import BaseHandler

from . import engine, stanza
from .access import Access
from .arguments import Expires, parse_desc, parse_expires, parse_jid, parse_source
from .catalogue import Catalogue
from .config import Config
from .connection import Connection
from .constants import Mode, Route
from .context import Context
from .directory import Directory
from .errors import BTError, ConfigError, NotSupported, StateError
from .exchange import Exchange
from .features import Features, features
from .inbound import Inbound, handlers
from .incoming import IncomingOffer
from .leaving import Leaving
from .occupancy import Occupancy
from .outbox import Outbox
from .outgoing import OutgoingOffer
from .policy import Peer, reveals_address
from .rooms import Rooms
from .state import SavedIncoming, State
from .tasks import Tasks
from .transfer import Transfer

log = logging.getLogger(__name__)

#: What this version can do; more is designed (docs/explanation/decisions).
MODES = frozenset(Mode)
ROUTES = frozenset(Route)
#: What takes effect only when the plugin starts.
_FIXED = frozenset({"backend", "listen", "port_mapping", "state_dir", "instance"})


class XEP_BT(BasePlugin):
    """File transfer by BitTorrent, agreed on over XMPP.

    ``import slixmpp_bt`` makes it known; then ``xmpp.register_plugin("xep_bt", {...})`` before or after connecting.

    Plugin Parameters: see :class:`slixmpp_bt.Config`. A wrong one raises :class:`~slixmpp_bt.ConfigError`, and the
    client can register the plugin again with a right one.

    Events: ``bt_offer``, ``bt_offer_end``, ``bt_transfer_start``, ``bt_progress``, ``bt_transfer_end``.
    """

    name = "xep_bt"
    description = "slixmpp_bt: file transfer by BitTorrent"
    dependencies: ClassVar[set[str]] = {"xep_0030", "xep_0047", "xep_0115"}
    stanza = stanza

    def __init__(self, xmpp: ClientXMPP | ComponentXMPP, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(xmpp, config)
        self._rooms = Rooms(xmpp, self._watcher)
        self._directory = Directory(xmpp, self._rooms)
        self._leaving = Leaving(xmpp, self._close_once)
        self._features = Features(xmpp, self._current, lambda work: self._context.tasks.spawn(work, "update caps"))
        self._handlers: list[BaseHandler] = []
        self._ended = False
        try:
            self._config = _checked(Config.parse(config))
            self._build()
        except Exception:
            # slixmpp has marked the plugin as enabled already, and would ignore a corrected registration.
            xmpp.plugin._enabled.discard(self.name)  # type: ignore[attr-defined]
            raise

    # slixmpp's own life cycle

    def plugin_init(self) -> None:
        """Begin to listen for offers and requests."""
        stanza.register()
        self.api.register(cast(Any, self._default_authorize), "authorize", default=True)
        self._handlers = handlers(self.xmpp.default_ns, lambda: self._inbound)
        for handler in self._handlers:
            self.xmpp.register_handler(handler)
        for event, function in self._events():
            self.xmpp.add_event_handler(event, function)
        self._rooms.attach()
        if self._config.auto_accept == "roster" and self.xmpp.auto_authorize:
            log.error(
                "auto_accept is 'roster', but auto_authorize lets everybody into the roster, so nothing is accepted: "
                "set xmpp.auto_authorize = None (or False), or list the JIDs in auto_accept"
            )
        if self.xmpp.session_bind_event.is_set():
            self._session_started(None)

    def session_bind(self, jid: JID | str) -> None:
        """Announce the feature. Runs again at every connection."""
        self._features.announce(JID(str(jid)))

    def plugin_end(self) -> None:
        """Undo everything; what runs is closed in the background (see :meth:`aclose`)."""
        for handler in self._handlers:
            self.xmpp.remove_handler(handler.name)
        for event, function in self._events():
            self.xmpp.del_event_handler(event, function)
        self._rooms.detach()
        self._features.conceal()
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        self._leaving.close(self._finish())

    def _events(self) -> tuple[tuple[str, Callable[[Any], None]], ...]:
        return (
            ("session_start", self._session_started),
            ("session_resumed", self._session_started),
            ("session_end", self._session_ended),
            ("disconnected", self._disconnected),
            ("message_error", self._bounced),
            ("presence_available", self._device_available),
            ("blocked", self._on_blocked),
            ("unblocked", self._on_unblocked),
            ("roster_update", self._roster_changed),
        )

    async def _finish(self) -> None:
        if self.xmpp.is_connected() and not isinstance(self.xmpp, ComponentXMPP):
            await self._features.update_caps()
        await self.aclose()

    # what a user calls

    async def send_file(
        self, jid: JID | str, path: str | Path, *, desc: str | None = None, mode: Mode | str | None = None,
        expires: Expires = None, ifrom: JID | str | None = None,
    ) -> Transfer:  # fmt: skip
        """Offer a file or directory to one account or device, and return the transfer of the first device that
        accepts. Returns within one round trip; hashing and all else goes on behind the transfer. Cancelling the call
        offers nothing.

        A bare JID means the visible device of highest priority that supports this; while none is visible the offer
        goes to the account and waits. While this side is not connected, the offer waits for that, too.

        :param desc: words about it.
        :param mode: by default as configured.
        :param expires: until when it can be accepted: seconds from now, a timedelta or an aware datetime; by default
            ``limits.offer_ttl``.
        :param ifrom: components only: the JID to speak as.
        :raises PathError: the path cannot be offered; the message names what is wrong with which path.
        :raises NotSupported: the other side's devices are visible and none supports this, or `mode` is not there yet.
        :raises PeerNotFound: a device was named that is not there, or a domain that cannot be reached.
        :raises ValueError: an argument makes no sense.
        """
        to, local, source, how, until = await self._arguments(jid, path, mode, expires, ifrom)
        desc = parse_desc(desc)
        if self._connection.is_online:
            to = await self._directory.resolve(to, local, how)
        offer = self._exchange.offer(
            to=to, local=local, path=source, mode=how, expires=until, desc=desc, single=True,
            in_room=self._rooms.is_room(to),
        )  # fmt: skip
        assert offer.single is not None
        return offer.single

    async def offer(
        self, to: JID | str, path: str | Path, *, mtype: str = "chat", desc: str | None = None,
        mode: Mode | str | None = None, expires: Expires = None, delegate: bool = False,
        ifrom: JID | str | None = None,
    ) -> OutgoingOffer:  # fmt: skip
        """Offer a file or directory to all devices of an account (a bare JID), to one device or occupant (a full JID),
        or to a room (XEP-0045) that this side has joined. Returns within one round trip; cancelling the call offers
        nothing. For the other parameters and errors see :meth:`send_file`.

        Every device that is visible and supports this is told, and those that come online while the offer lasts; while
        none is visible the offer goes to the account and waits. A room is told once, as by any message; who comes later
        finds it in the room's history. If the room refuses the message, for want of voice say, the offer fails.

        :param mtype: the type of the message: ``chat`` or ``normal``; ``groupchat`` for a room.
        :param delegate: let receivers that have everything, and stay for ``seed_after``, admit others of the same
            account or room while this side is away. They get the offer's key for that.
        :raises NotSupported: the account's devices are visible and none supports this.
        :raises PeerNotFound: this side has not joined the room.
        :raises ValueError: `delegate` is for a single device, or another argument makes no sense.
        """
        if mtype not in ("chat", "normal", "groupchat"):
            raise ValueError(f"mtype must be 'chat', 'normal' or 'groupchat', not {mtype!r}")
        jid, local, source, how, until = await self._arguments(to, path, mode, expires, ifrom)
        desc = parse_desc(desc)
        if delegate and jid.resource:
            raise ValueError(f"delegate is for an account or a room: {jid} has nobody to admit")
        in_room = mtype == "groupchat" or self._rooms.is_room(jid)
        if mtype == "groupchat":
            targets: tuple[JID, ...] = (self._directory.room(jid, local),)
        else:
            targets = await self._directory.audience(jid, local, how)
        return self._exchange.offer(
            to=jid, local=local, path=source, mode=how, expires=until, mtype=mtype, desc=desc, targets=targets,
            in_room=in_room, delegate=delegate,
        )  # fmt: skip

    async def publish(
        self, path: str | Path, *, node: str | None = None, access: str | JID | Collection[str | JID] = "presence",
        desc: str | None = None, mode: Mode | str | None = None, expires: Expires = None, delegate: bool = False,
    ) -> OutgoingOffer:  # fmt: skip
        """Offer a file or directory in the account's PEP catalogue (XEP-0163, items after XEP-0498): who is let in can
        list it, is told of it at once, and fetches it as long as the offer lasts, over restarts of both sides.

        Returns within some round trips; hashing and publishing go on behind the offer, which ends with an error if the
        server refuses. While this side is not connected it waits for that. :meth:`~OutgoingOffer.withdraw` retracts
        the item. Cancelling the call publishes nothing. For the other parameters and errors see :meth:`send_file`.

        :param access: whom to let in, now and whenever somebody accepts: ``"presence"`` (who sees this account's
            presence), ``"open"``, a bare JID or some, ``"group:Friends"`` or some roster groups.
        :param node: by default one for each kind of `access`, which everybody with this plugin is told about.
        :param delegate: let receivers that have everything, and stay for ``seed_after``, admit the other devices of
            their own account while this side is away. They get the offer's key for that.
        :raises ConfigError: what is in the node is for other people than `access` says.
        :raises LimitExceeded: the server keeps no more items: one more would push out the oldest.
        :raises NotSupported: the server has no PEP, or not such access; components have none.
        :raises ValueError: an argument makes no sense.
        """
        if isinstance(self.xmpp, ComponentXMPP):
            raise NotSupported("catalogues of components are not part of this version")
        whom, account = Access.parse(access), JID(self.xmpp.boundjid.bare)
        name = self._catalogue.node_for(whom, node)
        _, local, source, how, until = await self._arguments(account, path, mode, expires, None)
        desc = parse_desc(desc)
        if self._connection.is_online:
            await self._ready.wait()
            await self._catalogue.prepare(name, whom)
        return self._exchange.offer(
            to=account, local=local, path=source, mode=how, expires=until, mtype="headline", desc=desc,
            node=name, access=whom, delegate=delegate,
        )  # fmt: skip

    async def catalogue(self, jid: JID | str | None = None, *, node: str | None = None) -> list[IncomingOffer]:
        """What an account publishes, as far as it lets this one in; without what this very client publishes, which is
        in :attr:`offers`. At most 1,000 that nobody has answered are taken of one account, whatever
        ``max_offers_per_peer`` says; what is beyond the other limits is left out. When it returns, what an earlier run
        has left is in :attr:`offers`, too. Cancelling it does no harm.

        :param jid: by default one's own account: what its other devices publish.
        :param node: by default all that :meth:`publish` chooses by itself. Another one is watched from now on: what
            appears there is told by ``bt_offer``, too.
        :raises PeerNotFound: the account's server cannot be reached.
        :raises PeerGone: this side is not connected, or there is no answer.
        :raises ProtocolError: the account does not let this one read `node`.
        :raises NotSupported: this is a component.
        """
        if isinstance(self.xmpp, ComponentXMPP):
            raise NotSupported("catalogues for components are not part of this version")
        local = self._local(None)
        if self._connection.is_online:
            await self._ready.wait()
        return await self._catalogue.read(local if jid is None else parse_jid(jid), node)

    async def supports(self, jid: JID | str, *, ifrom: JID | str | None = None) -> bool | None:
        """Whether `jid` supports this. A full JID (or a domain) is asked; of a bare JID, any of the visible devices.
        None if none is visible or it does not answer. Cancelling it does no harm.
        """
        return await self._directory.supports(parse_jid(jid), self._local(ifrom))

    @property
    def offers(self) -> tuple[OutgoingOffer | IncomingOffer, ...]:
        """All offers that are alive, own ones and others'."""
        return self._exchange.registry.offers

    @property
    def transfers(self) -> tuple[Transfer, ...]:
        """All transfers that have not ended."""
        return self._exchange.registry.transfers

    async def restored(self) -> dict[IncomingOffer, BTError]:
        """Wait until what an earlier run has left is in :attr:`offers` and :attr:`transfers`: it is taken up when the
        first session begins. Cancelling it does no harm.

        Returns what cannot be gone on with now, and why: most often it is beyond the limits, which were others then. It
        stays kept for a later run.
        """
        await self._ready.wait()
        return dict(self._exchange.registry.left)

    @property
    def persistent(self) -> bool:
        """Whether what there is outlasts this run. False before :meth:`restored` returns, without a ``state_dir``,
        while another process uses it, and where it cannot be used; the log says why."""
        return self._context.state.path is not None

    async def untold(self, timeout: float = 3.0) -> frozenset[str]:
        """Wait until those whose transfers have ended have answered that they know, or cannot be reached. To be called
        by a program that is about to end. Cancelling it does no harm.

        Returns the ids of the offers of which somebody has not answered; they are told at the next contact, by a later
        run too if this one is :attr:`persistent`.

        :param timeout: how long it may take, in seconds.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._context.outbox.tried()
        return frozenset(end.id for end in self._context.outbox.waiting)

    def handle_offer(self, message: Message) -> IncomingOffer | None:
        """Take an offer from a message that did not come by the stream, such as one from an archive (XEP-0313).

        Returns None if it carries no new offer that is within the limits, or ``receive`` is off. What the policy makes
        of it, and ``bt_offer``, come afterwards as for any other.
        """
        found = self._inbound.take_offers(message, archived=True)
        return found[0] if found else None

    def configure(self, **changes: Any) -> None:
        """Change the configuration while it runs: all `changes`, or none.

        :raises ConfigError: one of them is wrong, or takes effect only at registration.
        """
        new = _checked(self._config.replace(**changes))
        for key in sorted(_FIXED & set(changes)):
            if getattr(new, key) != getattr(self._config, key):
                raise ConfigError(f"{key} cannot be changed while the plugin runs: disable it and register it again")
        before, self._config = self._current(), new
        self._context.configure(new)
        if before != self._current():
            self._features.change(before)
        self._context.tasks.spawn(self._backend.set_limits(engine.rates(new)), "set limits")

    @property
    def settings(self) -> Config:
        """The configuration in force."""
        return self._config

    async def aclose(self) -> None:
        """End everything, in bounded time: transfers, the engine, files. Idempotent. After it the plugin is of no
        use until the client starts a new session. Cancelling it is discouraged: it may leave part files behind.
        """
        self._leaving.closing()
        self._ended = True
        if self._restoring is not None and self._restoring is not asyncio.current_task():
            self._restoring.cancel()
            await asyncio.wait([self._restoring])
        await self._exchange.aclose()
        await self._context.tasks.aclose()
        await self._backend.aclose()
        await self._context.state.aclose()
        self._connection.close()
        self._ready.set()  # whoever still waits is told that nothing is here

    # inside

    def _build(self) -> None:
        self._ended = False
        self._ready = asyncio.Event()
        self._restoring: asyncio.Task[None] | None = None
        self._connection = Connection(self.xmpp, self._rooms)
        self._connection.hidden = self._is_hidden
        self._backend = engine.make(self._config)
        tasks = Tasks()
        self._context = Context(
            config=self._config,
            wire=self._connection,
            backend=self._backend,
            notify=self.xmpp.event,
            tasks=tasks,
            outbox=Outbox(self._connection, tasks),
            running=lambda: self._exchange.registry.running(),
        )
        self._exchange = Exchange(self._context, self._authorize)
        self._exchange.occupancy.greet = self._greet
        self._backend.on_candidates_changed(self._exchange.addresses_changed)
        self._catalogue = Catalogue(
            self._context, self._exchange.registry, self._exchange.intake, self._connection.query,
            local=lambda: self._local(None), peer_of=self._directory.peer, watch=self._features.watch,
            members=lambda groups: self._directory.members(groups, self._local(None)),
            withdrawn=self._exchange.delegation.withdrawn,
        )  # fmt: skip
        self._context.shelf = self._catalogue.nodes
        self._inbound = Inbound(
            self._context, self._exchange, self._directory, self._catalogue, self._ready, lambda: self._local(None)
        )

    def _is_hidden(self, peer: JID, local: JID) -> bool:
        return not reveals_address(self._directory.peer(peer, local), self._config)

    async def _arguments(
        self, jid: JID | str, path: str | Path, mode: Mode | str | None, expires: Expires, ifrom: JID | str | None
    ) -> tuple[JID, JID, Path, Mode, datetime]:
        to, local = parse_jid(jid), self._local(ifrom)
        how = self._config.mode if mode is None else Mode(mode)
        if how not in MODES:
            raise NotSupported(f"the mode {how!s} is not part of this version")
        if to == local:
            raise ValueError(f"{to} is this very device")
        until = parse_expires(expires, self._config.limits.offer_ttl)
        source = await asyncio.to_thread(parse_source, path)
        self._features.use(local)
        return to, local, source, how, until

    def _local(self, ifrom: JID | str | None) -> JID:
        own = JID(self.xmpp.boundjid)
        if ifrom is None:
            return own
        local = parse_jid(ifrom)
        domain = own.domain
        if not isinstance(self.xmpp, ComponentXMPP) or not f".{local.domain}".endswith(f".{domain}"):
            # A server ends the stream of who speaks as somebody else.
            raise ValueError(f"ifrom: {local} is not a name that {own} may speak as")
        return local

    def _current(self) -> list[str]:
        return features(self._config, () if isinstance(self.xmpp, ComponentXMPP) else self._catalogue.watched)

    async def _default_authorize(self, jid: JID, node: str | None, ifrom: JID, offer: IncomingOffer) -> bool:
        return await self._exchange.intake.allows(offer)

    async def _authorize(self, offer: IncomingOffer) -> bool:
        return bool(await self.api["authorize"](offer.local, offer.id, offer.peer, offer))

    # events of the stream

    def _session_started(self, _: object) -> None:
        if self._ended:
            unsaid = self._context.outbox
            self._build()
            self._context.outbox.take_over(unsaid)
        self._leaving.session_started()
        self._connection.session_started()
        self._context.tasks.spawn(self._directory.learn_blocked(), "block list")
        if self._config.state_dir is None or self._context.state.path is not None:
            self._ready.set()
            self._exchange.session_started()
            self._catalogue.session_started()
        elif self._restoring is None or self._restoring.done():
            self._restoring = self._context.tasks.spawn(self._restore(self._config.state_dir), "restore")

    async def _restore(self, directory: Path) -> None:
        """Open the state, and take up what an earlier run has left; without it, if that cannot be."""
        account = JID(self.xmpp.boundjid.bare)
        try:
            self._context.state = self._context.outbox.state = await State.open(
                directory, account, self._config.instance
            )
            await self._exchange.restore(self._peer_of)
            self._rooms.know(room for offer in self._exchange.registry.offers if (room := _room(offer)) is not None)
            for owner, jid in self._rooms.occupants():
                self._exchange.occupancy.came(owner, jid)
        except StateError as error:
            log.warning("going on without persistence: %s", error)
            await self._context.state.aclose()
            self._context.state = self._context.outbox.state = State.nothing()
        self._ready.set()
        self._exchange.session_started()
        self._catalogue.session_started()

    def _peer_of(self, saved: SavedIncoming) -> Peer:
        if saved.room is not None:  # until the occupant is seen
            return Peer(jid=JID(saved.room), bare=saved.bare, room=saved.room, occupant=saved.sender)
        return self._directory.peer(saved.peer, saved.local)

    async def _close_once(self) -> None:
        if not self._ended:
            await self.aclose()

    def _bounced(self, message: Message) -> None:
        self._inbound.error(message)

    def _session_ended(self, _: object) -> None:
        self._connection.session_ended()
        self._rooms.clear()

    def _disconnected(self, _: object) -> None:
        if not self._ended:
            self._leaving.disconnected()

    def _device_available(self, presence: Presence) -> None:
        device = presence["from"]
        if self._rooms.is_room(device):
            return
        if not self._ended:
            self._exchange.contact(device)
        if not self._ended and self._exchange.offers_for(device):
            self._greet(device)

    def _watcher(self) -> Occupancy | None:
        return None if self._ended else self._exchange.occupancy

    def _roster_changed(self, _: object) -> None:
        if not self._ended:
            self._catalogue.roster_changed()

    def _on_blocked(self, iq: Iq) -> None:
        if self._is_from_own_server(iq):
            self._directory.blocked(_items(iq))

    def _on_unblocked(self, iq: Iq) -> None:
        if self._is_from_own_server(iq):
            self._directory.unblocked(_items(iq))

    def _is_from_own_server(self, iq: Iq) -> bool:
        """slixmpp's plugin takes such pushes from anybody."""
        return iq["from"].full in ("", self.xmpp.boundjid.bare, self.xmpp.boundjid.domain)

    def _greet(self, device: JID) -> None:
        self._context.tasks.spawn(self._offer_to(device), f"offer to {device}")

    async def _offer_to(self, device: JID) -> None:
        """Own offers to the whole account, or room, reach who has just come, too."""
        for offer in self._exchange.offers_for(device):
            if await self._directory.supports(device, offer.local):
                await offer.send_to(device)


def get_plugin(xmpp: BaseXMPP) -> XEP_BT:
    """The plugin of `xmpp`, typed: ``xmpp.plugin["xep_bt"]`` is unknown to type checkers.

    :raises slixmpp.plugins.base.PluginNotFound: it was not registered.
    """
    return cast(XEP_BT, cast(Any, xmpp.plugin)["xep_bt"])


def _checked(config: Config) -> Config:
    if config.mode not in MODES:
        raise NotSupported(f"the mode {config.mode!s} is not part of this version")
    return config


def _room(offer: OutgoingOffer | IncomingOffer) -> JID | None:
    """The room that an offer was made in."""
    if isinstance(offer, IncomingOffer):
        return offer.room
    return JID(offer.to.bare) if offer.in_room else None


def _items(iq: Iq) -> list[str]:
    """Whom a push of XEP-0191 names."""
    return [item.get("jid", "") for item in iq.xml.iter("{urn:xmpp:blocking}item")]
