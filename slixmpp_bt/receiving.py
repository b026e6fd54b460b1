"""The receiver's end of a transfer: it drives. It asks, opens the download, and publishes what arrived."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from slixmpp import JID

from . import addresses, policy, staying
from .asking import Asking, NotNow, Over
from .backends import Admission, Download, Finished, PeerRefused, PieceStored, Seed, StorageFailed
from .backends.checkpoint import encode, recheck
from .constants import Mode, Route, State
from .context import Context
from .deputies import Deputies
from .errors import BackendClosed, BTError, Cancelled, IntegrityError, NoRoute, ProtocolError, StorageError
from .fetching import Fetcher, split
from .manifest import Manifest
from .messages import (
    MAX_CANDIDATES,
    MAX_PEERS,
    Accept,
    Accepted,
    Candidate,
    End,
    Peers,
    Report,
)
from .negotiation import Action, Event, Phase
from .progress import Progress
from .router import Router
from .routing import INLINE_MAX
from .seals import Opener, utc
from .shares import WHOLE
from .state import RouteBytes, SavedCheckpoint, SavedDownload
from .storage import Landing
from .threads import in_thread
from .transfer import Side, heard, tellable

if TYPE_CHECKING:
    from .incoming import IncomingOffer, Select

log = logging.getLogger(__name__)

#: Seconds between two checkpoints; and before the piece layers are known, without which a later run could not tell
#: which of the pieces stored since are right.
_CHECKPOINT, _FIRST_CHECKPOINT = 5.0, 0.1
#: How often a full disk is looked at, in seconds.
_DISK_TICK = 5.0
#: So many addresses are dialled for one download.
_MAX_KNOWN = 512


_NOT_THERE = {Route.SWARM: "the sender has no BitTorrent engine, or does not reveal its address"}


@dataclass(frozen=True, slots=True)
class Resume:
    """What is known of a download of an earlier run."""

    download: SavedDownload
    checkpoint: bytes | None = None
    routes: RouteBytes = ()

    @property
    def select(self) -> frozenset[int] | None:
        """The wanted files."""
        return self.download.select

    @property
    def was_accepted(self) -> bool:
        """Whether the sender is sure to have answered: some bytes have come."""
        return any(count for _, count in self.routes)

    @property
    def ended(self) -> bool:
        """Whether all that was missing was to remove the part files."""
        return self.download.phase in {phase.value for phase in Phase if phase.state.terminal}


class Receiving(Side):
    """Fetches one offer into `dest`."""

    def __init__(
        self, context: Context, offer: IncomingOffer, dest: Path, select: Select | None, resume: Resume | None = None
    ) -> None:
        self._context = context
        self._offer = offer
        self._dest = dest
        self._select = select
        self._resume = resume
        self._started = context.now() if resume is None else resume.download.started
        self._suspended = False
        self._sure = True
        self._disk: StorageError | None = None
        self._disk_watcher: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()
        self._wanted = self._chosen_before()
        self._opener: Opener | None = None
        self._admission = Admission(offer.mode)
        self._renewal: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[Exception | None] | None = None
        self._landing: Landing | None = None
        self._download: Download | None = None
        self._seed: Seed | None = None
        self._layers: Mapping[bytes, bytes] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._router: Router | None = None
        #: Who stands in for the sender while it is away.
        self.deputies = Deputies(context, offer, self._stop_routes)
        self._answer: Accepted | None = None
        self._routes_left_out: dict[Route, str] = {}
        self._known: set[Candidate] = set()
        self._reporter: asyncio.Task[None] | None = None
        self._published = resume.download.published if resume is not None else None
        self._earlier: dict[Route, int] = dict(resume.routes) if resume is not None else {}
        self._inline = 0
        self._last = Progress(sum(self._earlier.values()), offer.size, routes=self._earlier)
        self._why_not = "the sender has not answered yet"

    def _chosen_before(self) -> frozenset[int] | None:
        """The wanted files as far as they can be told already, so that a restart does not forget the choice."""
        if self._resume is not None:
            return self._resume.select
        return self._offer.chosen(self._select) if self._offer.manifest is not None else None

    # Side

    async def do(self, action: Action) -> None:
        """Do what the table asks for."""
        if action is Action.CONTACT:
            await self._contact()
        elif action is Action.DIAL:
            await self._dial()
        elif action is Action.HOLD:
            await self._hold()
        elif action is Action.PUBLISH:
            await self._publish()

    async def _hold(self) -> None:
        if self._router is not None:
            await self._router.stop()
        if self._download is not None:
            try:
                await self._download.pause()
            except StorageError as error:
                if self._disk is None:  # else it stands still for that very reason
                    self._on_disk_trouble(error)

    def measure(self) -> Progress:
        """What is verified, and what a stream has brought of a piece."""
        if self._download is not None:
            with suppress(BackendClosed):
                status = self._download.status()
                streamed, part = self._streamed()
                for route, count in self._earlier.items():
                    if route is not Route.SWARM:
                        streamed[route] = streamed.get(route, 0) + count
                # What could not be stored is fetched again, but a user's bar does not run backwards.
                had = max(min(status.verified + part, self._total()), self._last.transferred)
                routes = {**streamed, Route.SWARM: status.verified - sum(streamed.values())}
                routes = {route: count for route, count in routes.items() if count > 0}
                self._last = Progress(had, self._total(), routes=routes, peers=status.peers)
        return replace(self._last, peers=0) if self.transfer.ended else self._last

    def _streamed(self) -> tuple[dict[Route, int], int]:
        """Bytes stored by the streams, and those of pieces that are not complete."""
        if self._inline:
            return {Route.INLINE: self._inline}, 0
        fetcher = self._router.fetcher if self._router is not None else None
        return (dict(fetcher.stored), fetcher.under_way) if fetcher is not None else ({}, 0)

    def tell(self, state: State, error: BTError | None) -> None:
        """Complete, or why not."""
        if self._suspended:
            return
        reason = "success" if state is State.COMPLETE else getattr(error, "reason", "general-error")
        end = End(
            self._offer.id,
            "complete" if state is State.COMPLETE else "cancel",
            reason,
            transfer=self.transfer.id,
            text=tellable(error),
            seeding=self._context.config.seed_after or None if self._seed is not None else None,
        )
        until = self._context.now() + self._context.config.limits.transfer_ttl
        self._context.outbox.post(end, self._offer.peer, sender=self._offer.local, until=until, owner=self._offer.key)
        self.deputies.tell(end)

    async def release(self) -> None:
        """Close the download; part files go, unless the next run goes on with them; a published file stays."""
        if self._opening is not None:
            await asyncio.wait([self._opening])
        self._stop_renewal()
        if self._router is not None:
            await self._router.stop()
        if self._download is not None:
            self.measure()
            if self._suspended:
                await self._save_checkpoint(self._download)
        await self._close_download()
        await _stop(self._reporter)
        if not self._suspended:
            await self.clean_up()
        if self._seed is not None:
            self._stay(self._seed)
            self._seed = None

    async def _close_download(self) -> None:
        for task in (self._watcher, self._disk_watcher, self._keeper):
            await _stop(task)
        download, self._download = self._download, None
        if download is not None:
            await download.aclose()

    async def clean_up(self) -> None:
        """It is over: remove the part files, of an earlier run too, and what is kept of it."""
        assert self.transfer.id is not None
        if self._landing is None and self._resume is not None and self._offer.manifest is not None:
            self._landing = await asyncio.to_thread(
                Landing.plan, self._dest, self._offer.manifest, self._wanted, self.transfer.id
            )
        if self._landing is not None:
            await self._landing.discard()
        self._context.state.delete(SavedDownload, self.transfer.id)

    def path(self) -> Path | None:
        """The published path."""
        return self._published

    def diagnosis(self) -> dict[Route, str]:
        """Why each route is not in use."""
        if self.transfer.state is State.PAUSED:
            return dict.fromkeys(Route, "paused on this side")
        if self._router is None or self.transfer.state is State.PREPARING:
            return dict.fromkeys(Route, self._why_not)
        return self._router.diagnosis()

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
            if message.share is not None:
                self._download.prefer(message.share)
        senders = set(self._answer.candidates) if self._answer is not None else set()
        if self._router is not None and senders & set(message.left):
            self._set_why_not("the sender has stopped serving for now")
            await self._router.stop()
        elif self._router is not None and (senders & set(message.joined) or not (message.joined or message.left)):
            self._set_why_not("dialling the sender")
            self._router.start(self._routes_left_out)

    # contact

    async def _contact(self) -> None:
        if self._published is not None:  # all was done but for saying so
            self.transfer.feed(Event.HAVE_ALL)
            return
        if not self._offer.is_located:
            self._set_why_not("it is not known yet at which device of the publisher it is")
            self.transfer.feed(Event.NOT_HERE)
            await self.seek()
            return
        asked = self.transfer.peer
        try:
            if self._offer.manifest is None:
                await self._offer.learn(await self._asking.manifest())
            if self._opening is None:
                # A task of its own: a pause may stop the asking, but must not leave this half done.
                self._opening = self._context.tasks.spawn(self._try_to_open(), f"open {self.transfer.id}")
            if (failure := await asyncio.shield(self._opening)) is not None:
                raise failure
            self._answer = await self._asking.accept(await self._accept())
        except NotNow as why:
            self._set_why_not(str(why))
            deputy_lost = self.deputies.lose(asked, str(why))
            self.transfer.feed(Event.NOT_HERE)
            if why.lost or deputy_lost:
                await self.seek()
        except StorageError as error:
            if self._resume is None or not error.temporary:
                raise
            self._opening = None
            self._set_why_not(f"it waits for the disk: {error}")
            self.transfer.feed(Event.NOT_HERE)
        except Over as why:
            if not self._deputy_failed(asked, str(why)):
                self.transfer.feed(*heard("cancel", why.reason, str(why)))
        except BTError as error:
            if not self._deputy_failed(asked, str(error)):
                raise
        else:
            self.deputies.found()
            self.transfer.feed(Event.ACCEPTED)

    async def seek(self) -> None:
        """Ask where the sender is, and who stands in for it."""
        await self._asking.seek(self._offer.peer)
        await self.deputies.seek()

    def _deputy_failed(self, asked: JID, why: str) -> bool:
        """Whether what has failed was asked of a deputy: then only that one is given up."""
        if not self.deputies.lose(asked, why):
            return False
        self.transfer.feed(Event.NOT_HERE)
        return True

    def _stop_routes(self) -> None:
        if self._router is not None:
            self._context.tasks.spawn(self._router.stop(), f"stop routes {self.transfer.id}")

    @property
    def _asking(self) -> Asking:
        assert self.transfer.id is not None
        return Asking(
            self._context, self._offer.message, self.transfer.id, lambda: self.transfer.peer, self._offer.local,
            in_room=self._offer.room is not None,
        )  # fmt: skip

    def _set_why_not(self, why: str) -> None:
        self._why_not = why
        if self._router is not None:
            self._router.why_not = why

    async def _accept(self) -> Accept:
        assert self.transfer.id is not None
        routes = frozenset(set(Route) - self._excluded().keys())
        inline = INLINE_MAX if Route.INLINE in routes and 0 < self._total() <= INLINE_MAX else 0
        own = await self._own() if self._download is not None and Route.SWARM in routes else ()
        request = self._opener.request if self._opener is not None else None
        return Accept(self._offer.id, self.transfer.id, own, routes, self._wanted, inline, request)

    def _excluded(self) -> dict[Route, str]:
        """The routes that this side leaves out, and why."""
        config = self._context.config
        excluded = dict.fromkeys(set(Route) - config.routes, "it is switched off in this side's configuration (routes)")
        if self._offer.mode not in self._context.backend.modes:
            excluded[Route.SWARM] = "this side has no BitTorrent engine"
        elif not policy.reveals_address(self.deputies.source, config):
            excluded[Route.SWARM] = "this side does not reveal its address (reveal_address)"
        return excluded

    async def _own(self) -> tuple[Candidate, ...]:
        listening = await self._context.backend.candidates(self._offer.mode)
        return addresses.own(listening, self._context.config.advertise, ())

    async def _try_to_open(self) -> Exception | None:
        try:
            await self._open()
        except Exception as error:
            return error
        return None

    async def _open(self) -> None:
        manifest = self._offer.manifest
        assert manifest is not None
        try:
            if self._resume is None:
                self._wanted = self._offer.chosen(self._select)
        except ValueError as error:  # a list of files that came late, of which a function chose nothing
            raise Cancelled(str(error)) from None
        self._last = Progress(total=self._total())
        has_bytes = bool(manifest.pieces_of(self._wanted))
        if self._offer.mode is Mode.SEALED and has_bytes:
            assert self.transfer.id is not None
            self._opener = Opener(self._offer.id, self.transfer.id, manifest.extra[b"ssl-cert"])
        assert self.transfer.id is not None
        self._landing = await asyncio.to_thread(Landing.plan, self._dest, manifest, self._wanted, self.transfer.id)
        await self._landing.prepare(self._context.config.limits.min_free_space)
        self._disk_watcher = self._context.tasks.spawn(self._watch_disk(self._landing), f"disk {self.transfer.id}")
        if has_bytes:
            checkpoint: bytes | None = None
            if self._resume is not None:
                wanted = manifest.pieces_of(self._wanted)
                checkpoint, self._sure = await in_thread(
                    recheck, manifest, self._landing.parts, wanted, self._resume.checkpoint
                )
            self._download = await self._context.backend.open_download(
                manifest, self._landing.parts, Admission(self._offer.mode), checkpoint=checkpoint, select=self._wanted
            )
            self._watcher = self._context.tasks.spawn(self._watch(self._download), f"watch {self.transfer.id}")
            if self._context.state.path is not None:
                self._keeper = self._context.tasks.spawn(self._keep(self._download), f"keep {self.transfer.id}")
            self._router = self._new_router(manifest, self._download)

    def _new_router(self, manifest: Manifest, download: Download) -> Router:
        assert self.transfer.id is not None
        fetcher = Fetcher(
            self._context, manifest, download, manifest.pieces_of(self._wanted),
            offer=self._offer.id, transfer=self.transfer.id, peer=lambda: self.transfer.peer,
            local=self._offer.local, moved=self.transfer.touch, opener=self._opener,
        )  # fmt: skip
        return Router(
            self._context, download, fetcher,
            fail=self._fail, over=self._is_over,
            left=lambda: self._total() - self.measure().transferred,
            time_left=lambda: self.transfer.time_left,
        )  # fmt: skip

    def _fail(self, error: BTError) -> None:
        if not isinstance(error, NoRoute) or not self._deputy_failed(self.transfer.peer, str(error)):
            self.transfer.feed(Event.FAIL, error)

    def _is_over(self, error: ProtocolError) -> None:
        if self._deputy_failed(self.transfer.peer, str(error)):
            return
        self.transfer.feed(*heard("cancel", error.reason or "cancel", f"the sender has ended the offer: {error}"))

    def _total(self) -> int:
        manifest = self._offer.manifest
        if manifest is None:
            return self._offer.size
        return sum(f.size for f in manifest.files if self._wanted is None or f.index in self._wanted)

    # pieces

    async def _dial(self) -> None:
        answer = self._answer
        assert answer is not None
        if self._download is None or self._router is None:
            self.transfer.feed(Event.HAVE_ALL)
            return
        if self._disk is not None:
            return
        if self._opener is not None:
            try:
                await self._admit(self._opener, answer.certificate, self._download)
            except (IntegrityError, ProtocolError) as error:
                if not self._deputy_failed(self.transfer.peer, str(error)):
                    raise
                return
        if answer.content is not None and await self._take_content(answer.content):
            return
        excluded = self._excluded()
        for route in set(Route) - (answer.routes or set(Route)) - excluded.keys():
            excluded[route] = _NOT_THERE.get(route, "the sender does not use it")
        if Route.SWARM not in excluded and (why := await self._dial_swarm(answer)) is not None:
            if self._download.status().downloaded:  # somebody's address is just changing
                self._set_why_not(why)
            else:
                excluded[Route.SWARM] = why
        self._routes_left_out = excluded
        self._router.start(excluded)
        if answer.report is not None and self._reporter is None:
            self._reporter = self._context.tasks.spawn(self._report(answer.report), f"report {self.transfer.id}")

    async def _admit(self, opener: Opener, certificate: bytes | None, download: Download) -> None:
        """Show the certificate that the sender gave, and ask for another before it ends."""
        now = self._context.now()
        self._admission = opener.admit(certificate, utc(now))
        await download.admit(self._admission)
        assert opener.renew is not None
        self._stop_renewal()
        wait = max(60.0, opener.renew.timestamp() - now)
        self._renewal = asyncio.get_running_loop().call_later(wait, self.transfer.feed, Event.FOUND)

    def _stop_renewal(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()

    async def _dial_swarm(self, answer: Accepted) -> str | None:
        """Dial whom the sender named. Returns why nobody can be dialled."""
        own = await self._own()
        theirs = addresses.acceptable((*answer.candidates, *answer.peers), own, most=MAX_CANDIDATES + MAX_PEERS)
        # A sender without an address can still dial this side.
        if not theirs and (answer.candidates or not own):
            return addresses.explain(own, answer.candidates) or "the sender offers no address that may be dialled"
        self._set_why_not(addresses.explain(own, theirs) or "dialling the sender")
        self._add(theirs)
        assert self._download is not None
        self._download.prefer(answer.share or WHOLE)
        await self._download.resume()
        return None

    async def _take_content(self, content: bytes) -> bool:
        """Store what came inside the answer; False if it is not what was offered."""
        manifest, download = self._offer.manifest, self._download
        assert manifest is not None
        assert download is not None
        try:
            if self._opener is not None:
                content = self._opener.open("content", 0, content)
            pieces = split(manifest, manifest.pieces_of(self._wanted), content)
        except IntegrityError as error:
            log.warning("%s: what came with the answer is of no use: %s", self.transfer, error)
            return False
        for piece, data in pieces:
            await download.write(piece, data)
        self._inline = sum(len(data) for _, data in pieces)
        return True

    def _add(self, candidates: tuple[Candidate, ...]) -> None:
        """Dial these, as far as there is room: who offers could name addresses without end."""
        new = tuple(c for c in candidates if c not in self._known)[: _MAX_KNOWN - len(self._known)]
        self._known.update(new)
        assert self._download is not None
        self._download.add_candidates(c for c in candidates if c in self._known)

    async def _watch(self, download: Download) -> None:
        async for event in download.events:
            if isinstance(event, PieceStored):
                self._arrived.set()
            elif isinstance(event, Finished):
                self.transfer.feed(Event.HAVE_ALL)
            elif isinstance(event, StorageFailed):
                self._on_disk_trouble(event.error)
            elif isinstance(event, PeerRefused) and self._is_senders(event.candidate):
                self._set_why_not(f"the sender's address does not answer: {event.reason}")

    def _on_disk_trouble(self, error: StorageError) -> None:
        """What may pass is waited for; another trouble ends the transfer."""
        if not error.temporary:
            self.transfer.feed(Event.FAIL, error)
            return
        if self._disk is None:
            self._disk = error
            self._set_why_not(f"it waits for the disk: {error}")
        self.transfer.feed(Event.BLOCKED)

    async def _watch_disk(self, landing: Landing) -> None:
        """Stop before the disk is full, and go on once it takes the rest."""
        while True:
            await asyncio.sleep(_DISK_TICK)
            reserve = self._context.config.limits.min_free_space
            try:
                if self._disk is None:
                    await landing.check_reserve(reserve)
                else:
                    await landing.check_space(reserve)
                    await self._go_on()
            except StorageError as error:
                self._on_disk_trouble(error)

    async def _go_on(self) -> None:
        download = self._download
        if download is not None:
            await download.resume()
        self._disk = None
        self._set_why_not("dialling the sender")
        all_here = self._landing is not None and (download is None or await download.finished())
        self.transfer.feed(Event.HAVE_ALL if all_here else Event.FOUND)

    async def _keep(self, download: Download) -> None:
        """Save now and then how far it has come, as long as pieces arrive."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            known = self._disk is None and await self._save_checkpoint(download)
            await asyncio.sleep(_CHECKPOINT if known else _FIRST_CHECKPOINT)

    async def _save_checkpoint(self, download: Download) -> bool:
        """Returns whether the next run can tell by it which pieces are right."""
        manifest = self._offer.manifest
        assert manifest is not None
        assert self.transfer.id is not None
        try:
            layers = await download.layers()
            data = await download.checkpoint()
        except BTError as error:
            log.debug("%s: no checkpoint: %s", self.transfer, error)
            return False
        routes = tuple(self.measure().routes.items())
        self._context.state.save(SavedCheckpoint(self.transfer.id, data, routes))
        return bool(layers) or manifest.verifiable

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
        if landing is None:  # published in an earlier run
            self.transfer.feed(Event.PUBLISHED)
            return
        if download is not None and not await self._is_stored(download):
            return
        self.measure()
        if self._router is not None:
            await self._router.stop()
        layers = await download.layers() if download is not None and not self._sure else None
        seeding = download is not None and (self._context.config.seed_after > 0 or self._has_company)
        if download is not None and (not seeding or not landing.linkable):
            # Where there are no hard links the files are moved, so the engine has to let go of them first.
            seeding = False
            self._download = None
            await download.aclose()
        if layers is not None and (right := await self._recheck_all(layers, landing)) is not None:
            await self._begin_again(right)
            return
        try:
            self._published = await landing.publish()
        except StorageError as error:
            self._on_disk_trouble(error)
            return
        self._suspended = False  # even if the plugin ends just now, there is nothing left to go on with
        self.save()
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

    async def _is_stored(self, download: Download) -> bool:
        """Whether every byte is flushed. If not, the rest is fetched again as soon as the disk takes it."""
        try:
            if await download.finished():
                return True
            trouble = StorageError("not everything that arrived could be stored", errno.EIO)
        except StorageError as error:
            trouble = error
        self._on_disk_trouble(trouble)
        return False

    async def _recheck_all(self, layers: Mapping[bytes, bytes], landing: Landing) -> bytes | None:
        """None if the part files are what the manifest says, else a checkpoint of what is right in them."""
        manifest = self._offer.manifest
        assert manifest is not None
        known = manifest.with_layers(layers) if layers else manifest
        wanted = manifest.pieces_of(self._wanted)
        everything = encode(known, wanted)
        right, _ = await in_thread(recheck, manifest, landing.parts, wanted, everything)
        return None if right == everything else right

    async def _begin_again(self, checkpoint: bytes) -> None:
        """What an earlier run left, and could not be checked before, is not all right: fetch the rest."""
        log.warning("%s: part files were changed between two runs: what was changed is fetched again", self.transfer)
        assert self._resume is not None
        self._resume = replace(self._resume, checkpoint=checkpoint)
        await self._close_download()
        self._router = self._opening = None
        self.transfer.feed(Event.DAMAGED)

    @property
    def _has_company(self) -> bool:
        """Whether there are other receivers, who may need this one if the sender is gone."""
        senders = self._answer.candidates if self._answer is not None else ()
        return bool(self._known.difference(senders))

    async def _seed_on(self, download: Download, landing: Landing) -> Seed | None:
        try:
            self._layers = await download.layers()
            return await download.publish(landing.finals)
        except BTError as error:
            log.warning("%s: does not serve others: %s", self.transfer, error)
            await download.aclose()
            return None

    def _stay(self, seed: Seed) -> None:
        """Go on serving others, in the next run too unless it is only a part."""
        assert self.transfer.id is not None
        assert self._published is not None
        manifest, until = self._offer.manifest, self._context.now() + self._context.config.seed_after
        saved, terms = None, None
        if manifest is not None and self._wanted is None:
            peers = sorted(self._known, key=str)
            saved = staying.record(
                self.transfer.id, self._admission, manifest, self._layers, self._published, peers, until
            )
            self._context.state.save(saved)
            if self._offer.message.delegate:
                terms = self._offer.terms(self.transfer.id)
                self._context.state.save(terms)
        stays = staying.Staying(self._context, seed, self.transfer.id, until, saved, terms)
        self._context.tasks.spawn(stays.run(), f"seed {self.transfer.id}")

    # what outlasts the process

    def changed(self) -> None:
        """Keep it as it is now; once it has ended, until the part files are gone."""
        if not self._suspended:
            self.save()
            if self.transfer.ended:
                self._offer.save()
        if self.transfer.state is State.WAITING and self._disk is None:
            self.deputies.stalled(self.measure().transferred)

    def save(self) -> None:
        """Keep it as it is now."""
        assert self.transfer.id is not None
        manifest = self._offer.manifest
        phase = self.transfer.phase
        self._context.state.save(
            SavedDownload(
                self.transfer.id, self._offer.key, self._offer.id, self._dest, phase.value, self._started,
                select=self._wanted, paused=phase is Phase.PAUSED, info=manifest.info if manifest is not None else None,
                published=self._published,
            )
        )  # fmt: skip

    def suspend(self) -> None:
        """The plugin ends: part files stay, and what is kept stays as it is."""
        if not (self._suspended or self.transfer.ended):
            self.save()
            self._suspended = True


async def _stop(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait([task])
