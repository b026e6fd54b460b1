"""What others offer, as their users hold it."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from slixmpp import JID

from .constants import Mode
from .context import Context
from .errors import ConfigError, Expired, IntegrityError, LimitExceeded, PathError, StorageError, TransferError
from .filenames import safe_name, safe_paths
from .manifest import Manifest, ManifestLimits
from .messages import End, Offer, Peers
from .negotiation import Event, Negotiation, Phase, Role
from .policy import Peer, knows, lasts
from .receiving import Receiving
from .resuming import Resume
from .sealing import check_authority
from .state import SavedDelegation, SavedDownload, SavedIncoming
from .storage import Landing
from .transfer import Transfer

log = logging.getLogger(__name__)

#: Receivers hide an offer this many seconds past its expiry: clocks differ (protocol section 1).
GRACE = 600.0


@dataclass(frozen=True, slots=True)
class OfferedFile:
    """A file of an offer.

    :ivar path: below the offered directory, or the file's own name; made safe, so for showing and choosing.
    :ivar size: bytes.
    """

    path: PurePosixPath
    size: int
    index: int


#: Which files are wanted: some of ``offer.files``, or a function that is asked for each.
Select = Collection[OfferedFile] | Callable[[OfferedFile], bool]


class IncomingOffer:
    """What somebody offers: accept it or decline it.

    :ivar id: the offer's id, chosen by the sender.
    :ivar peer: the JID to talk to; in a room the occupant's, or the room's own while the occupant is not there.
    :ivar sender: the real bare JID of who offers; None if a room hides it.
    :ivar room: the room it was offered in; None outside of rooms.
    :ivar node: the PubSub node it is published in; None if it was sent.
    :ivar name: of the file or directory, made safe.
    :ivar size: bytes.
    :ivar desc: the sender's words about it.
    :ivar mode: how private it is.
    :ivar expires: until when it can be accepted.
    """

    def __init__(self, context: Context, message: Offer, peer: Peer, local: JID, node: str | None = None) -> None:
        self.message = message
        self.manifest: Manifest | None = None
        self.local = local
        self.source = peer
        self.id = message.id
        self.peer = peer.jid
        self.sender = peer.bare
        self.room = peer.room
        self.node = node
        self.name = safe_name(message.name)
        self.size = message.size
        self.desc = message.desc
        self.mode = message.mode
        self.expires = message.expires
        self.transfer: Transfer | None = None
        #: Whether it was accepted, declined, withdrawn or expired.
        self.answered = False
        #: Whether it cannot be accepted any more, or again.
        self.closed = False
        #: Whether the application was told of it.
        self.announced = False
        #: Whether the user knew who offers it when it came.
        self.from_known = knows(peer, context.config)
        self._context = context
        self._received = context.now()
        self._side: Receiving | None = None
        self._files: tuple[OfferedFile, ...] = ()

    @classmethod
    def restore(cls, context: Context, saved: SavedIncoming, peer: Peer) -> Self:
        """An offer of an earlier run."""
        self = cls(context, saved.offer, peer, saved.local, saved.node)
        self.answered, self.closed, self._received = saved.answered, saved.closed, saved.received
        return self

    @property
    def key(self) -> str:
        """Whose it is; with :attr:`id` it tells it from all others."""
        return self.source.owner

    @property
    def files(self) -> tuple[OfferedFile, ...]:
        """The files. Empty while the list is too long for the offer itself and was not fetched yet: then a function
        as `select` chooses."""
        return self._files

    @property
    def alive(self) -> bool:
        """Whether it can still be accepted, or is being fetched."""
        return not self.answered or (self.transfer is not None and not self.transfer.ended)

    async def accept(self, dest: str | Path | None = None, *, select: Select | None = None) -> Transfer:
        """Fetch it into the directory `dest`, by default ``download_dir``.

        Returns at once. Accepting again returns the same transfer while it lives, and begins a new one after a failure.

        :param select: some of :attr:`files`, or a function that takes one and says whether it is wanted.
        :raises ConfigError: there is neither `dest` nor ``download_dir``.
        :raises PathError: `dest` is not a directory.
        :raises ValueError: `select` chooses nothing, or what is not in the offer; `dest` is empty.
        :raises Expired: it has expired, was withdrawn or declined.
        :raises LimitExceeded: ``max_transfers`` are running.
        """
        if (current := self._current()) is not None:
            return current
        if self.transfer is not None:
            await self.transfer.released()
        directory = await asyncio.to_thread(self._directory, dest)
        if (current := self._current()) is not None:  # it was accepted twice at once
            return current
        if self.manifest is not None:
            self.chosen(select)
        limit = self._context.config.limits.max_transfers
        if self._context.running() >= limit:
            raise LimitExceeded(f"max_transfers ({limit}) are running")
        return self._begin(directory, select)

    async def decline(self, reason: str | None = None) -> None:
        """Say no; `reason` is shown to the sender, unless it was published for others, too. No effect once it was
        accepted or is over."""
        if self.answered:
            return
        self.answered = self.closed = True
        self.save()
        if self.node is not None:
            return
        end = End(self.id, "decline", "decline", text=reason)
        until = self.expires.timestamp() + GRACE
        self._context.outbox.post(end, self.peer, sender=self.local, until=until, owner=self.key)

    def __repr__(self) -> str:
        return f"<IncomingOffer {self.name!r} ({self.size} bytes) from {self.peer}>"

    # for the other parts

    async def learn(self, info: bytes) -> None:
        """The info dict is here: check it, in a thread, since a large one takes a while.

        :raises LimitExceeded: it is beyond the limits.
        :raises ProtocolError: it is malformed.
        :raises IntegrityError: it is not what was offered.
        """
        self._set(*await asyncio.to_thread(self._read, info))

    def learn_now(self, info: bytes) -> None:
        """As :meth:`learn`, for a small one. Blocks."""
        self._set(*self._read(info))

    @property
    def is_void(self) -> bool:
        """Whether it can be replaced by a new one: it is over, and nothing of it is under way."""
        return self.closed and (self.transfer is None or self.transfer.is_released)

    def is_repeated_by(self, message: Offer, owner: str) -> bool:
        """Whether `message` of `owner` is this delegated offer once more, made in a room that does not tell whether who
        comes back is the same. Whoever has it can stand in for the sender, and nobody becomes it.
        """
        same = (self.message.info_hash, self.id) == (message.info_hash, message.id) and self.message.delegate
        return same and self.room is not None and not lasts(self.key) and owner.partition(" ")[0] == self.room.bare

    @property
    def is_located(self) -> bool:
        """Whether it is known which device to ask: of a catalogue, only the account is at first."""
        peer = self.transfer.peer if self.transfer is not None else self.peer
        return self.node is None or bool(peer.resource)

    @property
    def can_be_accepted_again(self) -> bool:
        """Whether a transfer of it has failed that may yet be tried again."""
        return self.transfer is not None and not self.transfer.complete and not self.closed and not self._has_expired

    def chosen(self, select: Select | None) -> frozenset[int] | None:
        """The indices that `select` means in the manifest; None for all.

        :raises ValueError: it chooses nothing, or what is not in the offer.
        """
        if select is None:
            return None
        files = self.files
        wanted = [f for f in files if select(f)] if callable(select) else list(select)
        if not wanted or not set(wanted) <= set(files):
            raise ValueError(f"select must choose some of the {len(files)} files of the offer")
        return frozenset(f.index for f in wanted) if len(set(wanted)) < len(files) else None

    @property
    def _has_expired(self) -> bool:
        return self._context.now() > self.expires.timestamp() + GRACE

    def _current(self) -> Transfer | None:
        """The transfer that accepting means; None if there is to be a new one.

        :raises Expired: there cannot be one.
        """
        if self.transfer is not None and (not self.transfer.ended or self.transfer.complete):
            return self.transfer
        if self.closed:
            raise Expired(f"the offer of {self.name!r} is over")
        if self._has_expired:
            raise Expired(f"the offer of {self.name!r} has expired")
        return None

    def _read(self, info: bytes) -> tuple[Manifest, tuple[OfferedFile, ...]]:
        limits, offered = self._context.config.limits, self.message
        manifest = Manifest.parse(
            info,
            ManifestLimits(max_size=limits.max_size, max_files=limits.max_files, max_length=limits.max_manifest_size),
        )
        if manifest.info_hash != offered.info_hash:
            raise IntegrityError("the manifest is not the one that was offered")
        if (offered.mode is Mode.SEALED) != (b"ssl-cert" in manifest.extra):
            raise IntegrityError(f"the manifest is not one of a {offered.mode} offer")
        if (authority := manifest.extra.get(b"ssl-cert")) is not None:
            check_authority(authority)
        if manifest.size != offered.size:
            raise IntegrityError(f"offered were {offered.size} bytes, but the manifest has {manifest.size}")
        return manifest, _list(manifest)

    def _set(self, manifest: Manifest, files: tuple[OfferedFile, ...]) -> None:
        self.manifest, self._files = manifest, files
        self.name, self.size = safe_name(manifest.name), manifest.size

    async def peers(self, message: Peers) -> None:
        """Others joined or left the swarm."""
        if self._side is not None:
            await self._side.peers(message)

    def ended(self, event: Event, error: TransferError | None) -> None:
        """The sender says that it is over."""
        if self.transfer is not None:
            self.transfer.feed(event, error)

    def _directory(self, dest: str | Path | None) -> Path:
        if dest == "":
            raise ValueError("dest is empty; for the working directory say '.'")
        directory = self._context.config.download_dir if dest is None else Path(dest).expanduser().absolute()
        if directory is None:
            raise ConfigError("accept() needs dest where no download_dir is configured")
        if dest is None:
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise PathError(f"{directory}: {error.strerror}") from error
        if not directory.is_dir():
            raise PathError(f"{directory}: not a directory")
        return directory

    def _begin(self, directory: Path, select: Select | None) -> Transfer:
        now, limits = self._context.now(), self._context.config.limits
        negotiation = Negotiation(
            Role.RECEIVER,
            expires=self.expires.timestamp() + GRACE,
            ttl=now + limits.transfer_ttl,
            rng=self._context.rng,
            timing=self._context.timing,
        )
        side = self._side = Receiving(self._context, self, directory, select)
        self.answered = True
        self.transfer = Transfer(
            self._context, negotiation, side,
            offer=self, peer=self.peer, id=secrets.token_urlsafe(12), incoming=True,
        )  # fmt: skip
        self.save()
        self.transfer.feed(Event.START)
        return self.transfer

    def resume(self, resume: Resume) -> Transfer:
        """Go on with a download of an earlier run, as soon as there is contact."""
        saved, limits = resume.download, self._context.config.limits
        ttl = saved.started + limits.transfer_ttl
        negotiation = Negotiation(
            Role.RECEIVER,
            expires=ttl if resume.was_accepted else self.expires.timestamp() + GRACE,
            ttl=ttl,
            rng=self._context.rng,
            timing=self._context.timing,
            phase=Phase.PAUSED if saved.paused else Phase.WAITING,
        )
        self._side = Receiving(self._context, self, saved.dest, None, resume)
        self.answered = True
        self.transfer = Transfer(
            self._context, negotiation, self._side, offer=self, peer=self.peer, id=saved.transfer, incoming=True
        )
        return self.transfer

    async def clean_up(self, saved: SavedDownload) -> None:
        """Remove what a download of an earlier run, which has ended, has left."""
        if self.manifest is not None:
            landing = await asyncio.to_thread(Landing.plan, saved.dest, self.manifest, saved.select, saved.transfer)
            try:
                await landing.discard()
            except StorageError as error:
                log.warning("%r: part files are left: %s", self, error)
        self._context.state.delete(SavedDownload, saved.transfer)

    def contact(self, device: JID) -> None:
        """A device has come online: if it is the sender's, ask there again."""
        if self.transfer is None or self._side is None:
            return
        if device.bare != self.peer.bare:
            if device.bare == self.local.bare and self.room is None:
                self.somebody_came()
            return
        if self.deputy is not None and device != self.peer:
            self._context.tasks.spawn(self._side.seek(), f"seek {self.id}")
            return
        # While bytes move, it may have been away for so short a time that nobody has noticed yet.
        lost = self._side.deputies.dismiss() or device != self.transfer.peer or not self._side.measure().peers
        if not self.transfer.feed(Event.RETRY) and lost:
            self.transfer.feed(Event.FOUND)

    def moved(self, sender: JID) -> None:
        """The sender is at another device now: accept again there."""
        stood_in = self._side is not None and self._side.deputies.dismiss()
        # Where it was all the time it is asked again by itself.
        if sender != self.peer or stood_in:
            self.peer = sender
            if self.transfer is not None and not self.transfer.ended:
                self.transfer.peer = sender
                self.transfer.feed(Event.FOUND)
        self.save()

    def relocate(self, sender: JID) -> None:
        """The sender has another nick, or is away: then it is at the room's own JID. What runs goes on."""
        self.peer = sender
        if self.transfer is not None and not self.transfer.ended and self.deputy is None:
            self.transfer.peer = sender
        self.save()

    @property
    def deputy(self) -> JID | None:
        """Who stands in for the sender at the moment."""
        if self._side is None or self.transfer is None or self.transfer.ended:
            return None
        current = self._side.deputies.current
        return current.jid if current is not None else None

    def somebody_came(self) -> None:
        """Somebody is there who may stand in for the sender."""
        if self._side is not None and self.transfer is not None:
            self._side.deputies.somebody_came()

    def stand_in(self, peer: Peer) -> bool:
        """Somebody else than the sender has the offer. Returns whether it is one who may say so."""
        return self._side is not None and self._side.deputies.take(peer)

    def deputy_renamed(self, old: JID, new: JID | None) -> None:
        """The occupant who was at `old` is at `new`, or nowhere any more: one who stands in, or did, perhaps."""
        if self._side is not None and self.transfer is not None:
            self._side.deputies.renamed(old, new)

    def terms(self, transfer: str) -> SavedDelegation:
        """What a finished receiver needs to admit others, should the sender let it."""
        return SavedDelegation(transfer, self.key, self.id, self.local, self.expires.timestamp(), self.room)

    def save(self) -> None:
        """Keep it as it is now."""
        self._context.state.save(
            SavedIncoming(
                self.key, self.message, self.peer, self.local, self._received,
                bare=self.sender, room=self.room, answered=self.answered, closed=self.closed, announced=self.announced,
                node=self.node,
            )
        )  # fmt: skip

    def forget(self) -> None:
        """It need not be known any more."""
        self._context.state.delete(SavedIncoming, self.key, self.id)

    def save_all(self) -> None:
        """Keep everything of it: the state has just been opened."""
        self.save()
        if self._side is not None and self.transfer is not None and not self.transfer.ended:
            self._side.save()


def _list(manifest: Manifest) -> tuple[OfferedFile, ...]:
    safe = safe_paths([*(file.path for file in manifest.files), *manifest.directories])
    return tuple(
        OfferedFile(PurePosixPath(*path), file.size, file.index)
        for file, path in zip(manifest.files, safe, strict=False)
    )
