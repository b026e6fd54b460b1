"""One download while it is open: its part files, and all that fills them. What is said to the sender, and what becomes
of the files, is in :mod:`slixmpp_bt.receiving`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from slixmpp import JID

from .backends import Admission, Download, Finished, PeerRefused, PieceStored, StorageFailed
from .backends.checkpoint import recheck
from .checkpointing import Checkpoints
from .constants import Mode, Route, State
from .context import Context
from .dialling import Dialling
from .disk import Disk
from .errors import BackendClosed, BTError, IntegrityError, ProtocolError, StorageError
from .fetching import Fetcher, split
from .manifest import Manifest
from .messages import Accepted, Candidate, Offer, Peers
from .negotiation import Event
from .progress import Progress
from .resuming import Resume
from .router import Router
from .seals import Opener, utc
from .storage import Landing
from .tasks import end
from .threads import in_thread
from .transfer import Transfer

log = logging.getLogger(__name__)

_NOT_THERE = {Route.SWARM: "the sender has no BitTorrent engine, or does not reveal its address"}


class Filling:
    """The part files of one download, from their opening until they are complete or let go of.

    :ivar landing: where it lands.
    :ivar download: None while it is not open, and where there are no bytes to fetch.
    :ivar pieces: those that are wanted.
    :ivar total: bytes that are wanted.
    :ivar opener: of a sealed offer: opens what is sealed to this receiver.
    :ivar admission: what the backend shows to others.
    :ivar answer: the sender's last one to an Accept.
    :ivar sure: whether all that an earlier run has left could be checked.
    :param wanted: the files; None for all.
    :param fail: ends the transfer.
    :param over: the sender says that the offer has ended.
    :param why: is told in words why nothing moves.
    """

    def __init__(
        self, context: Context, message: Offer, manifest: Manifest, transfer: Transfer, local: JID, *,
        wanted: frozenset[int] | None, landing: Landing, earlier: Mapping[Route, int],
        fail: Callable[[BTError], None], over: Callable[[ProtocolError], None], why: Callable[[str], None],
    ) -> None:  # fmt: skip
        assert transfer.id is not None
        self.landing = landing
        self.download: Download | None = None
        self.pieces = manifest.pieces_of(wanted)
        self.total = manifest.size_of(wanted)
        self.opener: Opener | None = None
        self.admission = Admission(message.mode)
        self.sure = True
        self.answer: Accepted | None = None
        self._context = context
        self._message = message
        self._manifest = manifest
        self._transfer = transfer
        self._id = transfer.id
        self._local = local
        self._wanted = wanted
        self._earlier = earlier
        self._fail = fail
        self._over = over
        self._why = why
        self._disk = Disk(context, landing, transfer, why, self._go_on)
        self._checkpoints: Checkpoints | None = None
        self._dialling: Dialling | None = None
        self._router: Router | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._renewal: asyncio.TimerHandle | None = None
        self._left_out: dict[Route, str] = {}
        self._inline = 0
        self._last = Progress(total=self.total)

    async def open(self, resume: Resume | None) -> None:
        """Make the part files, or take up those of an earlier run. To be closed whatever comes of it.

        :raises StorageError: the disk does not take them.
        """
        if self._message.mode is Mode.SEALED and self.pieces:
            self.opener = Opener(self._message.id, self._id, self._manifest.extra[b"ssl-cert"])
        await self.landing.prepare(self._context.config.limits.min_free_space)
        self._spawn(self._disk.watch(), "disk")
        if not self.pieces:
            return
        checkpoint: bytes | None = None
        if resume is not None:
            checkpoint, self.sure = await in_thread(
                recheck, self._manifest, self.landing.parts, self.pieces, resume.checkpoint
            )
        self.download = await self._context.backend.open_download(
            self._manifest, self.landing.parts, self.admission, checkpoint=checkpoint, select=self._wanted
        )
        self._fill(self.download)

    def _fill(self, download: Download) -> None:
        self._checkpoints = Checkpoints(
            self._context, self._id, self._manifest, download,
            routes=lambda: tuple(self.measure().routes.items()), takes=lambda: self._disk.trouble is None,
        )  # fmt: skip
        self._spawn(self._watch(download, self._checkpoints), "watch")
        if self._context.state.path is not None:
            self._spawn(self._checkpoints.keep(), "keep")
        self._dialling = Dialling(self._context, self._message.mode, download, self._why)
        fetcher = Fetcher(
            self._context, self._manifest, download, self.pieces,
            offer=self._message.id, transfer=self._id, peer=lambda: self._transfer.peer,
            local=self._local, moved=self._transfer.touch, opener=self.opener,
        )  # fmt: skip
        self._router = Router(
            self._context, download, fetcher,
            fail=self._fail, over=self._over,
            left=lambda: self.total - self.measure().transferred,
            time_left=lambda: self._transfer.time_left,
        )  # fmt: skip

    def _spawn(self, work: Coroutine[Any, Any, None], what: str) -> None:
        self._tasks.append(self._context.tasks.spawn(work, f"{what} {self._id}"))

    # how far it is

    def measure(self) -> Progress:
        """What is verified, and what a stream has brought of a piece."""
        if self.download is not None:
            with suppress(BackendClosed):
                status = self.download.status()
                streamed, part = self._streamed()
                for route, count in self._earlier.items():
                    if route is not Route.SWARM:
                        streamed[route] = streamed.get(route, 0) + count
                # What could not be stored is fetched again, but a user's bar does not run backwards.
                had = max(min(status.verified + part, self.total), self._last.transferred)
                routes = {**streamed, Route.SWARM: status.verified - sum(streamed.values())}
                routes = {route: count for route, count in routes.items() if count > 0}
                self._last = Progress(had, self.total, routes=routes, peers=status.peers)
        return self._last

    def _streamed(self) -> tuple[dict[Route, int], int]:
        """Bytes stored by the streams, and those of pieces that are not complete."""
        if self._inline:
            return {Route.INLINE: self._inline}, 0
        fetcher = self._router.fetcher if self._router is not None else None
        return (dict(fetcher.stored), fetcher.under_way) if fetcher is not None else ({}, 0)

    def diagnosis(self) -> dict[Route, str] | None:
        """Why each route is not in use; None if there is nothing to fetch."""
        return self._router.diagnosis() if self._router is not None else None

    def explain(self, why: str) -> None:
        """In words, why the swarm does not move."""
        if self._router is not None:
            self._router.why_not = why

    @property
    def is_blocked(self) -> bool:
        """Whether it waits for the disk."""
        return self._disk.trouble is not None

    # where it comes from

    @property
    def has_company(self) -> bool:
        """Whether there are other receivers, who may need this one if the sender is gone."""
        return bool(self.known - self._senders)

    @property
    def known(self) -> frozenset[Candidate]:
        """Whom it has dialled."""
        return frozenset(self._dialling.known) if self._dialling is not None else frozenset()

    @property
    def _senders(self) -> frozenset[Candidate]:
        return frozenset(self.answer.candidates) if self.answer is not None else frozenset()

    async def own(self) -> tuple[Candidate, ...]:
        """Where this side listens for it."""
        return await self._dialling.own() if self.download is not None and self._dialling is not None else ()

    async def dial(self, excluded: dict[Route, str]) -> bool:
        """The sender has answered: fetch. Returns whether routes are at work from now on.

        :param excluded: what this side leaves out, and why.
        """
        answer = self.answer
        assert answer is not None
        if self.download is None or self._router is None or self._dialling is None:
            self._transfer.feed(Event.HAVE_ALL)
            return False
        if self._disk.trouble is not None:
            return False
        if self.opener is not None:
            await self._admit(self.opener, answer.certificate, self.download)
        if answer.content is not None and await self._take_content(answer.content, self.download):
            return False
        for route in set(Route) - (answer.routes or set(Route)) - excluded.keys():
            excluded[route] = _NOT_THERE.get(route, "the sender does not use it")
        if Route.SWARM not in excluded and (why := await self._dialling.dial(answer)) is not None:
            if self.download.status().downloaded:  # somebody's address is just changing
                self._why(why)
            else:
                excluded[Route.SWARM] = why
        self._left_out = excluded
        self._router.start(excluded)
        return True

    async def _admit(self, opener: Opener, certificate: bytes | None, download: Download) -> None:
        """Show the certificate that the sender gave, and ask for another before it ends."""
        now = self._context.now()
        self.admission = opener.admit(certificate, utc(now))
        await download.admit(self.admission)
        assert opener.renew is not None
        self._stop_renewal()
        wait = max(60.0, opener.renew.timestamp() - now)
        self._renewal = asyncio.get_running_loop().call_later(wait, self._transfer.feed, Event.FOUND)

    def _stop_renewal(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()

    async def _take_content(self, content: bytes, download: Download) -> bool:
        """Store what came inside the answer; False if it is not what was offered."""
        try:
            if self.opener is not None:
                content = self.opener.open("content", 0, content)
            pieces = split(self._manifest, self.pieces, content)
        except IntegrityError as error:
            log.warning("%s: what came with the answer is of no use: %s", self._transfer, error)
            return False
        for piece, data in pieces:
            await download.write(piece, data)
        self._inline = sum(len(data) for _, data in pieces)
        return True

    async def peers(self, message: Peers) -> None:
        """Others joined or left the swarm."""
        if self.download is None or self._dialling is None or self._transfer.state is State.PAUSED:
            return
        with suppress(BackendClosed):  # everything is here already
            await self._dialling.change(message, self._senders)
        if self.download is None:
            return
        if self._router is not None and self._senders.intersection(message.left):
            self._why("the sender has stopped serving for now")
            await self._router.stop()
        elif self._router is not None and (
            self._senders.intersection(message.joined) or not (message.joined or message.left)
        ):
            self._why("dialling the sender")
            self._router.start(self._left_out)

    async def _watch(self, download: Download, checkpoints: Checkpoints) -> None:
        async for event in download.events:
            if isinstance(event, PieceStored):
                checkpoints.arrived()
            elif isinstance(event, Finished):
                self._transfer.feed(Event.HAVE_ALL)
            elif isinstance(event, StorageFailed):
                self._disk.failed(event.error)
            elif isinstance(event, PeerRefused) and event.candidate in self._senders:
                self._why(f"the sender's address does not answer: {event.reason}")

    async def _go_on(self) -> bool:
        """The disk takes something again. Returns whether everything is there already."""
        if self.download is None:
            return True
        await self.download.resume()
        return await self.download.finished()

    # its end

    def disk_failed(self, error: StorageError) -> None:
        """What may pass is waited for; another trouble ends the transfer."""
        self._disk.failed(error)

    async def hold(self) -> None:
        """Move nothing until the next :meth:`dial`."""
        await self.stop_routes()
        if self.download is not None:
            try:
                await self.download.pause()
            except StorageError as error:
                if self._disk.trouble is None:  # else it stands still for that very reason
                    self._disk.failed(error)

    async def stop_routes(self) -> None:
        """Close the stream, if there is one, and open none."""
        if self._router is not None:
            await self._router.stop()

    async def let_go(self) -> None:
        """Close the download; the part files stay."""
        self.measure()
        download, self.download = self.download, None
        if download is not None:
            await download.aclose()

    def complete(self) -> None:
        """Everything is published, and the download has become a seed or was let go of."""
        self.download = None
        self._last = Progress(self.total, self.total, routes=self._last.routes)

    async def close(self, *, keep: bool = False) -> None:
        """Let go of everything; the part files stay.

        :param keep: save how far it has come.
        """
        self._stop_renewal()
        await self.stop_routes()
        if keep and self.download is not None and self._checkpoints is not None:
            await self._checkpoints.save()
        await end(*self._tasks)
        await self.let_go()
