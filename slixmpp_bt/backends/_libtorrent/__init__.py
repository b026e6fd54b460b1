"""The engine room of :mod:`slixmpp_bt.backends.libtorrent`: the only code that imports libtorrent.

::

    settings    what is not libtorrent's default
    listening   where the session listens, and which of that is worth telling
    session     one lt.session on an event loop: alerts, adding, removing, the beat
    torrent     one lt.torrent_handle: dialling, flushing, what its alerts mean
    refusals    why a peer was not reached
    waiting     futures that alerts answer
    params      lt.add_torrent_params of a manifest and paths, and piece layers out of resume data
    swarm       what Seed and Download of the contract have in common
    seed        Seed
    download    Download
"""

from typing import Final

import libtorrent as lt

#: Through older ones a peer can end this process. Before 2.0.12 a receiver that is told the piece layers again counts
#: pieces twice, becomes a seed before the last ones are there, and dies or never ends (libtorrent's commit dea98c759);
#: before 2.0.14 it writes out of bounds when block hashes are refused (ca4e621c2), and so does 2.1.0.
OLDEST: Final = (2, 0, 14)

if tuple(map(int, lt.__version__.split(".")[:3])) < OLDEST:
    raise ImportError(f"libtorrent {lt.__version__} is too old: {'.'.join(map(str, OLDEST))} or newer is needed")
