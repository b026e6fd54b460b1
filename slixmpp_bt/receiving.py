"""The receiver's end of a transfer: it drives. It asks the sender, has the download filled, and publishes what arrived.

What fills the download is in :mod:`slixmpp_bt.filling`, what is looked at in the end in :mod:`slixmpp_bt.finishing`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from slixmpp import JID

from . import finishing, policy, staying
from .asking import Asking, NotNow, Over
from .backends import Seed
from .constants import Route, State
from .context import Context
from .deputies import Deputies
from .endings import heard, tellable
from .errors import BTError, Cancelled, IntegrityError, NoRoute, ProtocolError, StorageError
from .filling import Filling
from .messages import Accept, End, Peers
from .negotiation import Action, Event, Phase
from .progress import Progress
from .reporting import report
from .resuming import Resume
from .routing import INLINE_MAX
from .state import SavedDownload
from .storage import Landing
from .tasks import end
from .transfer import Side

if TYPE_CHECKING:
    from .incoming import IncomingOffer, Select

log = logging.getLogger(__name__)


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
        self._wanted = self._chosen_before()
        self._opening: asyncio.Task[Exception | None] | None = None
        self._filling: Filling | None = None
        #: Who stands in for the sender while it is away.
        self.deputies = Deputies(context, offer, self._stop_routes)
        self._reporter: asyncio.Task[None] | None = None
        self._published = resume.download.published if resume is not None else None
        self._seed: Seed | None = None
        self._layers: Mapping[bytes, bytes] = {}
        self._earlier: dict[Route, int] = dict(resume.routes) if resume is not None else {}
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
            if self._filling is not None:
                await self._filling.hold()
        elif action is Action.PUBLISH:
            await self._publish()

    def measure(self) -> Progress:
        """What is verified, and what a stream has brought of a piece."""
        if self._filling is not None:
            self._last = self._filling.measure()
        return replace(self._last, peers=0) if self.transfer.ended else self._last

    def tell(self, state: State, error: BTError | None) -> None:
        """Complete, or why not."""
        if self._suspended:
            return
        reason = "success" if state is State.COMPLETE else getattr(error, "reason", "general-error")
        message = End(
            self._offer.id,
            "complete" if state is State.COMPLETE else "cancel",
            reason,
            transfer=self.transfer.id,
            text=tellable(error),
            seeding=self._context.config.seed_after or None if self._seed is not None else None,
        )
        until = self._context.now() + self._context.config.limits.transfer_ttl
        offer = self._offer
        self._context.outbox.post(message, offer.peer, sender=offer.local, until=until, owner=offer.key)
        self.deputies.tell(message)

    async def release(self) -> None:
        """Close the download; part files go, unless the next run goes on with them; a published file stays."""
        if self._opening is not None:
            await asyncio.wait([self._opening])
        if self._filling is not None:
            await self._filling.close(keep=self._suspended)
            self.measure()
        if self._reporter is not None:
            await end(self._reporter)
        if not self._suspended:
            await self.clean_up()
        if self._seed is not None:
            self._stay(self._seed)
            self._seed = None

    async def clean_up(self) -> None:
        """It is over: remove the part files, of an earlier run too, and what is kept of it."""
        assert self.transfer.id is not None
        if self._filling is not None:
            await self._filling.landing.discard()
        elif self._resume is not None and self._offer.manifest is not None:
            await (await self._plan()).discard()
        self._context.state.delete(SavedDownload, self.transfer.id)

    async def _plan(self) -> Landing:
        assert self._offer.manifest is not None
        assert self.transfer.id is not None
        return await asyncio.to_thread(Landing.plan, self._dest, self._offer.manifest, self._wanted, self.transfer.id)

    def path(self) -> Path | None:
        """The published path."""
        return self._published

    def diagnosis(self) -> dict[Route, str]:
        """Why each route is not in use."""
        if self.transfer.state is State.PAUSED:
            return dict.fromkeys(Route, "paused on this side")
        reasons = self._filling.diagnosis() if self._filling is not None else None
        if reasons is None or self.transfer.state is State.PREPARING:
            return dict.fromkeys(Route, self._why_not)
        return reasons

    # what comes from the sender

    async def peers(self, message: Peers) -> None:
        """Others joined or left the swarm."""
        if self._filling is not None:
            await self._filling.peers(message)

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
            assert self._filling is not None
            self._filling.answer = await self._asking.accept(await self._accept(self._filling))
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
        if self._filling is not None:
            self._context.tasks.spawn(self._filling.stop_routes(), f"stop routes {self.transfer.id}")

    @property
    def _asking(self) -> Asking:
        assert self.transfer.id is not None
        return Asking(
            self._context, self._offer.message, self.transfer.id, lambda: self.transfer.peer, self._offer.local,
            in_room=self._offer.room is not None,
        )  # fmt: skip

    def _set_why_not(self, why: str) -> None:
        self._why_not = why
        if self._filling is not None:
            self._filling.explain(why)

    async def _accept(self, filling: Filling) -> Accept:
        assert self.transfer.id is not None
        routes = frozenset(set(Route) - self._excluded().keys())
        inline = INLINE_MAX if Route.INLINE in routes and 0 < self._total() <= INLINE_MAX else 0
        own = await filling.own() if Route.SWARM in routes else ()
        request = filling.opener.request if filling.opener is not None else None
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
        if self._filling is not None:  # the disk did not take it the last time
            await self._filling.close()
        self._filling = Filling(
            self._context, self._offer.message, manifest, self.transfer, self._offer.local,
            wanted=self._wanted, landing=await self._plan(), earlier=self._earlier,
            fail=self._fail, over=self._is_over, why=self._set_why_not,
        )  # fmt: skip
        await self._filling.open(self._resume)

    def _fail(self, error: BTError) -> None:
        if not isinstance(error, NoRoute) or not self._deputy_failed(self.transfer.peer, str(error)):
            self.transfer.feed(Event.FAIL, error)

    def _is_over(self, error: ProtocolError) -> None:
        if self._deputy_failed(self.transfer.peer, str(error)):
            return
        self.transfer.feed(*heard("cancel", error.reason or "cancel", f"the sender has ended the offer: {error}"))

    def _total(self) -> int:
        manifest = self._offer.manifest
        return self._offer.size if manifest is None else manifest.size_of(self._wanted)

    # pieces

    async def _dial(self) -> None:
        filling = self._filling
        assert filling is not None
        assert filling.answer is not None
        try:
            at_work, pace = await filling.dial(self._excluded()), filling.answer.report
        except (IntegrityError, ProtocolError) as error:
            if not self._deputy_failed(self.transfer.peer, str(error)):
                raise
            return
        if at_work and pace is not None and self._reporter is None:
            reports = report(self._context, self.transfer, self._offer.local, pace, self.measure)
            self._reporter = self._context.tasks.spawn(reports, f"report {self.transfer.id}")

    async def _publish(self) -> None:
        filling = self._filling
        if filling is None:  # published in an earlier run
            self.transfer.feed(Event.PUBLISHED)
            return
        landing = filling.landing
        if filling.download is not None and (trouble := await finishing.trouble(filling.download)) is not None:
            filling.disk_failed(trouble)
            return
        self.measure()
        await filling.stop_routes()
        layers = await filling.download.layers() if filling.download is not None and not filling.sure else None
        if not (landing.linkable and (self._context.config.seed_after > 0 or filling.has_company)):
            # Where there are no hard links the files are moved, so the engine has to let go of them first.
            await filling.let_go()
        if layers is not None and (right := await self._damage(filling, layers)) is not None:
            await self._begin_again(filling, right)
            return
        try:
            self._published = await landing.publish()
        except StorageError as error:
            filling.disk_failed(error)
            return
        self._suspended = False  # even if the plugin ends just now, there is nothing left to go on with
        self.save()
        if filling.download is not None:
            self._seed, self._layers = await finishing.serve_on(self.transfer, filling.download, landing)
        filling.complete()
        # Before anybody hears of it: dropping the part names changes the published file's ctime.
        try:
            await landing.discard()
        except StorageError as error:
            log.warning("%s: part files are left: %s", self.transfer, error)
        self.transfer.feed(Event.PUBLISHED)

    async def _damage(self, filling: Filling, layers: Mapping[bytes, bytes]) -> bytes | None:
        assert self._offer.manifest is not None
        return await finishing.damage(self._offer.manifest, filling.pieces, filling.landing, layers)

    async def _begin_again(self, filling: Filling, checkpoint: bytes) -> None:
        """What an earlier run left, and could not be checked before, is not all right: fetch the rest."""
        log.warning("%s: part files were changed between two runs: what was changed is fetched again", self.transfer)
        assert self._resume is not None
        self._resume = replace(self._resume, checkpoint=checkpoint)
        await filling.close()
        self._opening = None
        self.transfer.feed(Event.DAMAGED)

    def _stay(self, seed: Seed) -> None:
        """Go on serving others, in the next run too unless it is only a part."""
        filling, manifest, final = self._filling, self._offer.manifest, self._published
        assert self.transfer.id is not None
        assert filling is not None
        assert final is not None
        until, saved, terms = self._context.now() + self._context.config.seed_after, None, None
        if manifest is not None and self._wanted is None:
            peers = sorted(filling.known, key=str)
            saved = staying.record(self.transfer.id, filling.admission, manifest, self._layers, final, peers, until)
            terms = self._offer.terms(self.transfer.id) if self._offer.message.delegate else None
        staying.stay(self._context, seed, self.transfer.id, until, saved, terms)

    # what outlasts the process

    def changed(self) -> None:
        """Keep it as it is now; once it has ended, until the part files are gone."""
        if not self._suspended:
            self.save()
            if self.transfer.ended:
                self._offer.save()
        if self.transfer.state is State.WAITING and not (self._filling is not None and self._filling.is_blocked):
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
