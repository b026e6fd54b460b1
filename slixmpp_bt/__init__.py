"""File transfer for slixmpp: XMPP agrees on it, BitTorrent carries it."""

__version__ = "0.1.0"
