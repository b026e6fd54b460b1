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
