"""A receiver that has everything goes on serving the others of the offer, after a restart too.

For ``seed_after`` seconds. And longer, whatever that is set to, while the sender has not answered that it heard of the
end: then it is perhaps gone, and nobody else may have what the others miss.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

from .backends import Admission, Seed, StorageFailed
from .backends.checkpoint import decode, encode
from .context import Context
from .errors import BackendClosed, BTError
from .lending import Lent
from .manifest import Manifest, ManifestLimits
from .messages import Candidate
from .state import SavedDelegation, SavedSeed
from .storage import published
from .threads import in_thread

log = logging.getLogger(__name__)

#: How often it is looked whether the sender has answered, in seconds.
_TICK = 0.5
#: Who stays for want of a sender goes when nobody has taken anything for so many seconds, and after so many at most.
_QUIET, _MOST = 60.0, 86_400.0
#: So many addresses of others are kept for the next run.
_MAX_PEERS = 64


class Staying:
    """One finished receiver's seed, until nobody needs it any more.

    :param transfer: the id of the transfer by which it came.
    :param until: the end of ``seed_after``, in seconds since the epoch.
    :ivar saved: what is kept of it; None of a part of what was offered.
    :ivar terms: what is needed to admit others in the sender's place; None where that is not meant to be.
    :ivar before_end: waited for before the seed is closed.
    """

    def __init__(
        self, context: Context, seed: Seed, transfer: str, until: float, saved: SavedSeed | None = None,
        terms: SavedDelegation | None = None,
    ) -> None:  # fmt: skip
        self.transfer = transfer
        self.saved = saved
        self.terms = terms
        self.before_end: Callable[[], Awaitable[None]] | None = None
        self._context = context
        self._seed = seed
        self._until = until
        self._broken = asyncio.Event()
        self._lent: Lent | None = None
        context.staying[transfer] = self

    @property
    def is_over(self) -> bool:
        """Whether it serves nobody any more."""
        return self._context.staying.get(self.transfer) is not self

    async def lend(self, admission: Admission) -> Seed:
        """The seed, for somebody who shows `admission` to more others.

        :raises BackendClosed: it is not there any more.
        """
        if self.is_over:
            raise BackendClosed("it is not served any longer")
        await self._seed.admit(admission)
        self._lent = Lent(self._seed, self._returned)
        return self._lent

    def _returned(self) -> None:
        self._lent = None

    async def run(self) -> None:
        """Serve as long as that is of use, then forget it. Cancelled, it is kept for the next run."""
        watcher = self._context.tasks.spawn(self._watch(), f"watch seed {self.transfer}")
        try:
            await self._pause(self._until - self._context.now())
            await self._wait_for_others()
            self._context.state.delete(SavedSeed, self.transfer)
        finally:
            del self._context.staying[self.transfer]
            if self.before_end is not None:
                await self.before_end()
            await self._seed.aclose()
            await asyncio.wait([watcher])

    async def _wait_for_others(self) -> None:
        """Return when the sender knows of the end, or nobody takes anything any more."""
        uploaded, moved = -1, 0.0
        while not (self._broken.is_set() or self._sender_knows):
            now, before = self._context.now(), uploaded
            uploaded = self._seed.status().uploaded
            if uploaded != before:
                moved = now
            if now - moved > _QUIET or now > self._until + _MOST:
                return
            await self._pause(_TICK)

    @property
    def _sender_knows(self) -> bool:
        return not any(end.transfer == self.transfer for end in self._context.outbox.waiting)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._broken.wait()
        except TimeoutError:
            pass

    async def _watch(self) -> None:
        async for event in self._seed.events:
            if self._lent is not None:
                self._lent.tell(event)
            if isinstance(event, StorageFailed):
                log.info("what was received is not served any longer: %s", event.error)
                self._broken.set()


def stay(
    context: Context, seed: Seed, transfer: str, until: float, saved: SavedSeed | None, terms: SavedDelegation | None
) -> None:
    """Go on serving what has arrived.

    :param saved: for the next run; None: it is not kept.
    :param terms: what is needed to admit others, for the next run too; None: that is not meant to be.
    """
    for record in (saved, terms):
        if record is not None:
            context.state.save(record)
    stays = Staying(context, seed, transfer, until, saved, terms)
    context.tasks.spawn(stays.run(), f"seed {transfer}")


def record(
    transfer: str, admission: Admission, manifest: Manifest, layers: Mapping[bytes, bytes], final: Path,
    peers: Iterable[Candidate], until: float,
) -> SavedSeed:  # fmt: skip
    """What :func:`resume` needs of the seed of a finished transfer.

    :param final: the published path.
    :param peers: whom to dial then.
    """
    known = manifest.with_layers(layers) if layers else manifest
    return SavedSeed(
        transfer, admission.mode, until, final, manifest.info, encode(known, ()), tuple(peers)[:_MAX_PEERS],
        certificate=admission.certificate, private_key=admission.key,
    )  # fmt: skip


async def resume(context: Context, took_up: Callable[[Staying], Awaitable[None]]) -> None:
    """Go on with the seeds of an earlier run.

    :param took_up: told of each that is open again.
    :raises StateError: they cannot be read.
    """
    for saved in await context.state.load(SavedSeed):
        context.tasks.spawn(_go_on(context, saved, took_up), f"seed {saved.transfer}")


async def _go_on(context: Context, saved: SavedSeed, took_up: Callable[[Staying], Awaitable[None]]) -> None:
    try:
        seed = await _reopen(context, saved)
    except (BTError, ValueError) as error:
        log.info("%s is not served any longer: %s", saved.published, error)
        context.state.delete(SavedSeed, saved.transfer)
        return
    seed.add_candidates(saved.peers)
    staying = Staying(context, seed, saved.transfer, saved.until, saved)
    try:
        await took_up(staying)
    except BTError as error:
        log.warning("nobody is admitted to %s: %s", saved.published, error)
    await staying.run()


async def _reopen(context: Context, saved: SavedSeed) -> Seed:
    manifest = await in_thread(manifest_of, saved)
    files = await in_thread(published, saved.published, manifest)
    admission = Admission(saved.mode, saved.certificate, saved.private_key)
    return await context.backend.open_seed(manifest, files, admission)


def manifest_of(saved: SavedSeed) -> Manifest:
    """What is served, with its piece layers. What was parsed within the limits once need not be judged again."""
    size = len(saved.info)
    manifest = Manifest.parse(saved.info, ManifestLimits(max_size=2**62, max_files=size, max_length=size))
    return decode(manifest, {}, saved.layers)[1]
