"""The receiver's end of a transfer: it drives. It asks, opens the download, and publishes what arrived."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from . import addresses, policy
from .backends import Admission, Download, Finished, PeerRefused, Seed, StorageFailed
from .constants import Route, State
from .context import Context
from .errors import (
    BackendClosed,
    BTError,
    LimitExceeded,
    NoRoute,
    PeerGone,
    ProtocolError,
    StorageError,
)
from .messages import (
    MAX_CANDIDATES,
    MAX_META_CHUNK,
    MAX_PEERS,
    Accept,
    Accepted,
    Candidate,
    End,
    Meta,
    MetaChunk,
    Peers,
    Reply,
    Report,
    Request,
)
from .negotiation import Action, Event
from .outbox import NOT_NOW
from .progress import Progress
from .storage import Landing
from .transfer import Side, heard

if TYPE_CHECKING:
    from .incoming import IncomingOffer, Select

log = logging.getLogger(__name__)

#: So many addresses are dialled for one download.
_MAX_KNOWN = 512


class _NotNow(Exception):
    """The sender cannot be asked now; the text says why."""


class _Over(Exception):
    """The sender says that the offer has ended, and how."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Receiving(Side):
    """Fetches one offer into `dest`."""

    def __init__(self, context: Context, offer: IncomingOffer, dest: Path, select: Select | None) -> None:
        self._context = context
        self._offer = offer
        self._dest = dest
        self._select = select
        self._wanted: frozenset[int] | None = None
        self._opening: asyncio.Task[Exception | None] | None = None
        self._landing: Landing | None = None
        self._download: Download | None = None
        self._seed: Seed | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._answer: Accepted | None = None
        self._known: set[Candidate] = set()
        self._reporter: asyncio.Task[None] | None = None
        self._published: Path | None = None
        self._last = Progress(total=offer.size)
        self._why_not = "the sender has not answered yet"

    # Side

    async def do(self, action: Action) -> None:
        """Do what the table asks for."""
        if action is Action.CONTACT:
            await self._contact()
        elif action is Action.DIAL:
            await self._dial()
        elif action is Action.HOLD and self._download is not None:
            await self._download.pause()
        elif action is Action.PUBLISH:
            await self._publish()

    def measure(self) -> Progress:
        """What is verified."""
        if self._download is not None:
            with suppress(BackendClosed):
                status = self._download.status()
                # What could not be stored is fetched again, but a user's bar does not run backwards.
                verified = max(status.verified, self._last.transferred)
                routes = {Route.SWARM: verified} if verified else {}
                self._last = Progress(verified, self._total(), routes=routes, peers=status.peers)
        return replace(self._last, peers=0) if self.transfer.ended else self._last

    def tell(self, state: State, error: BTError | None) -> None:
        """Complete, or why not."""
        reason = "success" if state is State.COMPLETE else getattr(error, "reason", "general-error")
        end = End(
            self._offer.id,
            "complete" if state is State.COMPLETE else "cancel",
            reason,
            transfer=self.transfer.id,
            text=None if state is State.COMPLETE else str(error),
            seeding=self._context.config.seed_after if self._seed is not None else None,
        )
        until = self._context.now() + self._context.config.limits.transfer_ttl
        self._context.outbox.post(end, self.transfer.peer, sender=self._offer.local, until=until)

    async def release(self) -> None:
        """Close the download; part files go, a published file stays."""
        if self._opening is not None:
            await asyncio.wait([self._opening])
        for task in (self._watcher, self._reporter):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if self._download is not None:
            self.measure()
            download, self._download = self._download, None
            await download.aclose()
        if self._landing is not None:
            await self._landing.discard()
        if self._seed is not None:
            seed, self._seed = self._seed, None
            self._context.tasks.spawn(self._go_on_seeding(seed), f"seed {self.transfer.id}")

    def path(self) -> Path | None:
        """The published path."""
        return self._published

    def diagnosis(self) -> dict[Route, str]:
        """Why no bytes come by the swarm."""
        if self.transfer.state is State.RUNNING:
            return {}
        if self.transfer.state is State.PAUSED:
            return {Route.SWARM: "paused on this side"}
        return {Route.SWARM: self._why_not}

    # what comes from the sender

    async def peers(self, message: Peers) -> None:
        """Others joined or left the swarm."""
        if self._download is None or self.transfer.state is State.PAUSED:
            return
        own = await self._own()
        if self._download is None:
            return
        with suppress(BackendClosed):  # everything is here already
            self._download.remove_candidates(message.left)
            self._known.difference_update(message.left)
            self._add(addresses.acceptable(message.joined, own, most=MAX_PEERS))
        senders = set(self._answer.candidates) if self._answer is not None else set()
        if senders & set(message.left):
            self._why_not = "the sender has stopped serving for now"
        elif senders & set(message.joined):
            self._why_not = "dialling the sender"

    # contact

    async def _contact(self) -> None:
        try:
            if self._offer.manifest is None:
                await self._offer.learn(await self._fetch_manifest())
            if self._opening is None:
                # A task of its own: a pause may stop the asking, but must not leave this half done.
                self._opening = self._context.tasks.spawn(self._try_to_open(), f"open {self.transfer.id}")
            if (failure := await asyncio.shield(self._opening)) is not None:
                raise failure
            answer = await self._ask(await self._accept())
        except _NotNow as why:
            self._why_not = str(why)
            self.transfer.feed(Event.NOT_HERE)
        except _Over as why:
            self.transfer.feed(*heard("cancel", why.reason, f"the sender has ended the offer: {why}"))
        else:
            self._answer = cast(Accepted, answer)
            self.transfer.feed(Event.ACCEPTED)

    async def _accept(self) -> Accept:
        assert self.transfer.id is not None
        own: tuple[Candidate, ...] = ()
        if self._download is not None:
            self._check_swarm()
            own = await self._own()
        routes = frozenset({Route.SWARM}) & self._context.config.routes
        return Accept(self._offer.id, self.transfer.id, own, routes, self._wanted)

    async def _own(self) -> tuple[Candidate, ...]:
        listening = await self._context.backend.candidates(self._offer.mode)
        return addresses.own(listening, self._context.config.advertise, ())

    async def _ask(self, request: Request) -> Reply:
        try:
            return await self._context.wire.request(request, self.transfer.peer, sender=self._offer.local)
        except PeerGone as error:
            raise _NotNow(f"the sender cannot be reached: {error}") from error
        except ProtocolError as error:
            if error.condition == "gone":
                raise _Over(error.reason or "cancel", str(error)) from error
            if error.condition in NOT_NOW:
                raise _NotNow(f"the sender cannot serve it now: {error}") from error
            raise

    async def _fetch_manifest(self) -> bytes:
        assert self.transfer.id is not None
        message, info = self._offer.message, bytearray()
        if message.info_length > self._context.config.limits.max_manifest_size:
            raise LimitExceeded(f"a manifest of {message.info_length} bytes is over max_manifest_size")
        await self._ask(Accept(self._offer.id, self.transfer.id))
        while len(info) < message.info_length:
            length = min(MAX_META_CHUNK, message.info_length - len(info))
            chunk = await self._ask(Meta(self._offer.id, self.transfer.id, len(info), length))
            if not isinstance(chunk, MetaChunk) or chunk.offset != len(info) or not 0 < len(chunk.data) <= length:
                raise ProtocolError("the sender's manifest came in disorder")
            info += chunk.data
        return bytes(info)

    async def _try_to_open(self) -> Exception | None:
        try:
            await self._open()
        except Exception as error:
            return error
        return None

    async def _open(self) -> None:
        manifest = self._offer.manifest
        assert manifest is not None
        self._wanted = self._offer.chosen(self._select)
        self._last = Progress(total=self._total())
        has_bytes = bool(manifest.pieces_of(self._wanted))
        if has_bytes:
            self._check_swarm()
        assert self.transfer.id is not None
        self._landing = await asyncio.to_thread(Landing.plan, self._dest, manifest, self._wanted, self.transfer.id)
        await self._landing.prepare(self._context.config.limits.min_free_space)
        if has_bytes:
            self._download = await self._context.backend.open_download(
                manifest, self._landing.parts, Admission(self._offer.mode), select=self._wanted
            )
            self._watcher = self._context.tasks.spawn(self._watch(self._download), f"watch {self.transfer.id}")

    def _check_swarm(self) -> None:
        if self._offer.mode not in self._context.backend.modes:
            why = "this side has no BitTorrent engine"
        elif not policy.reveals_address(self._offer.source, self._context.config):
            why = "this side does not reveal its address (reveal_address)"
        else:
            return
        raise NoRoute(f"no way to the sender: {why}", {Route.SWARM: why})

    def _total(self) -> int:
        manifest = self._offer.manifest
        if manifest is None:
            return self._offer.size
        return sum(f.size for f in manifest.files if self._wanted is None or f.index in self._wanted)

    # pieces

    async def _dial(self) -> None:
        answer = self._answer
        assert answer is not None
        if self._download is None:
            self.transfer.feed(Event.HAVE_ALL)
            return
        own = await self._own()
        theirs = addresses.acceptable((*answer.candidates, *answer.peers), own, most=MAX_CANDIDATES + MAX_PEERS)
        # A sender without an address can still dial this side.
        if not theirs and (answer.candidates or not own):
            why = addresses.explain(own, answer.candidates) or "the sender offers no address that may be dialled"
            raise NoRoute(f"no way to the sender: {why}", {Route.SWARM: why})
        self._why_not = addresses.explain(own, theirs) or "dialling the sender"
        self._add(theirs)
        await self._download.resume()
        if answer.report is not None and self._reporter is None:
            self._reporter = self._context.tasks.spawn(self._report(answer.report), f"report {self.transfer.id}")

    def _add(self, candidates: tuple[Candidate, ...]) -> None:
        """Dial these, as far as there is room: who offers could name addresses without end."""
        new = tuple(c for c in candidates if c not in self._known)[: _MAX_KNOWN - len(self._known)]
        self._known.update(new)
        assert self._download is not None
        self._download.add_candidates(c for c in candidates if c in self._known)

    async def _watch(self, download: Download) -> None:
        async for event in download.events:
            if isinstance(event, Finished):
                self.transfer.feed(Event.HAVE_ALL)
            elif isinstance(event, StorageFailed):
                self.transfer.feed(Event.FAIL, event.error)
            elif isinstance(event, PeerRefused) and self._is_senders(event.candidate):
                self._why_not = f"the sender's address does not answer: {event.reason}"

    def _is_senders(self, candidate: Candidate) -> bool:
        return self._answer is not None and candidate in self._answer.candidates

    async def _report(self, pace: int) -> None:
        assert self.transfer.id is not None
        while True:
            await asyncio.sleep(max(5, pace))
            now = self.measure()
            if self.transfer.state is State.RUNNING:
                report = Report(self._offer.id, self.transfer.id, now.transferred, now.total, tuple(now.routes.items()))
                try:
                    await self._context.wire.request(report, self.transfer.peer, sender=self._offer.local)
                except BTError as error:
                    log.debug("%s did not take a report: %s", self.transfer.peer, error)

    async def _publish(self) -> None:
        landing, download = self._landing, self._download
        assert landing is not None
        if download is not None and not await download.finished():
            raise StorageError("not everything that arrived could be stored")
        self.measure()
        seeding = download is not None and self._context.config.seed_after > 0
        if download is not None and (not seeding or not landing.linkable):
            # Where there are no hard links the files are moved, so the engine has to let go of them first.
            seeding = False
            await download.aclose()
        self._published = await landing.publish()
        if download is not None and seeding:
            self._seed = await self._seed_on(download, landing)
        self._download = None
        # Before anybody hears of it: dropping the part names changes the published file's ctime.
        try:
            await landing.discard()
        except StorageError as error:
            log.warning("%s: part files are left: %s", self.transfer, error)
        self._last = Progress(self._total(), self._total(), routes=self._last.routes)
        self.transfer.feed(Event.PUBLISHED)

    async def _seed_on(self, download: Download, landing: Landing) -> Seed | None:
        try:
            return await download.publish(landing.finals)
        except BTError as error:
            log.warning("%s: does not serve others: %s", self.transfer, error)
            await download.aclose()
            return None

    async def _go_on_seeding(self, seed: Seed) -> None:
        try:
            await asyncio.sleep(self._context.config.seed_after)
        finally:
            await seed.aclose()
