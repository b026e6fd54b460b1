"""Streams of bytes between two full JIDs, for where BitTorrent cannot pass: in XMPP itself, or through a proxy."""
