"""Everything has come: it is checked once more if it has to be, and served to others if they need it."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping

from .backends import Download, Seed
from .backends.checkpoint import encode, recheck
from .errors import BTError, StorageError
from .manifest import Manifest
from .storage import Landing
from .threads import in_thread
from .transfer import Transfer

log = logging.getLogger(__name__)


async def trouble(download: Download) -> StorageError | None:
    """Why not every byte is flushed; None if it is."""
    try:
        if await download.finished():
            return None
    except StorageError as error:
        return error
    return StorageError("not everything that arrived could be stored", errno.EIO)


async def damage(
    manifest: Manifest, wanted: frozenset[int], landing: Landing, layers: Mapping[bytes, bytes]
) -> bytes | None:
    """None if the part files are what the manifest says, else a checkpoint of what is right in them.

    :param wanted: the pieces.
    """
    known = manifest.with_layers(layers) if layers else manifest
    everything = encode(known, wanted)
    right, _ = await in_thread(recheck, manifest, landing.parts, wanted, everything)
    return None if right == everything else right


async def serve_on(
    transfer: Transfer, download: Download, landing: Landing
) -> tuple[Seed | None, Mapping[bytes, bytes]]:
    """Go on serving what was published, and the piece layers; if that cannot be, let go of it."""
    try:
        layers = await download.layers()
        return await download.publish(landing.finals), layers
    except BTError as error:
        log.warning("%s: does not serve others: %s", transfer, error)
        await download.aclose()
        return None, {}
