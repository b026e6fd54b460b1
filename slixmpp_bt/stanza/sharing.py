"""Offers: a ``<file-sharing/>`` (XEP-0447) with our ``<torrent/>`` among its sources."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from datetime import datetime
from xml.etree.ElementTree import Element, SubElement

from .. import messages
from ..constants import NS, Mode
from ..errors import ProtocolError
from .values import (
    MEDIA_TYPE,
    NS_FILE,
    NS_SFS,
    attribute,
    beyond,
    blob,
    clean,
    instant,
    malformed,
    number,
    stamp,
    subelement,
    token,
    whole,
)


def torrent_of(xml: Element) -> Element | None:
    return xml.find(f"{{{NS_SFS}}}sources/{{{NS}}}torrent")


def read_offer(xml: Element) -> messages.Offer:
    torrent, file = torrent_of(xml), xml.find(f"{{{NS_FILE}}}file")
    if torrent is None or file is None:
        raise malformed("a file-sharing without its <torrent/> or <file/>")
    try:
        mode = Mode(attribute(torrent, "mode"))
    except ValueError:
        raise ProtocolError("an offer in a mode that this version does not know", "feature-not-implemented") from None
    info, info_hash, info_length = _read_info(torrent)
    name = file.findtext(f"{{{NS_FILE}}}name") or ""
    if not name:
        raise malformed("an offer without a name")
    if len(name) > messages.MAX_NAME:
        raise beyond(f"a name of {len(name)} characters")
    media_type = file.findtext(f"{{{NS_FILE}}}media-type") or ""
    return messages.Offer(
        id=token(xml, "id"),
        mode=mode,
        expires=instant(attribute(torrent, "expires")),
        name=name,
        size=whole(file.findtext(f"{{{NS_FILE}}}size") or "", "<size/>"),
        info_hash=info_hash,
        info_length=info_length,
        info=info,
        desc=(file.findtext(f"{{{NS_FILE}}}desc") or "")[: messages.MAX_TEXT] or None,
        media_type=media_type if len(media_type) < 128 and MEDIA_TYPE.fullmatch(media_type) else None,
        date=_read_date(file),
        delegate=torrent.get("delegate") in ("true", "1"),
    )


def _read_info(torrent: Element) -> tuple[bytes | None, bytes, int]:
    """The info dict (None if it is not there), its SHA-256 and its length."""
    info = torrent.find(f"{{{NS}}}info")
    if info is None:
        raise malformed("a torrent without <info/>")
    if info.text and not info.text.isspace():
        whole = blob(info)
        return whole, hashlib.sha256(whole).digest(), len(whole)
    digest = attribute(info, "hash")
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", digest):
        raise malformed("a hash that is not SHA-256 in hexadecimal")
    return None, bytes.fromhex(digest), number(info, "length", 1)


def _read_date(file: Element) -> datetime | None:
    """The file's date. It is only shown, and by other people's element: one that makes no sense is none."""
    try:
        return instant(file.findtext(f"{{{NS_FILE}}}date") or "")
    except ProtocolError:
        return None


def write_offer(offer: messages.Offer) -> Element:
    sharing = Element(f"{{{NS_SFS}}}file-sharing", {"disposition": "attachment", "id": offer.id})
    file = SubElement(sharing, f"{{{NS_FILE}}}file")
    fields = {
        "name": offer.name[: messages.MAX_NAME],
        "size": str(offer.size),
        "media-type": offer.media_type,
        "desc": offer.desc and offer.desc[: messages.MAX_TEXT],
        "date": offer.date and stamp(offer.date),
    }
    for name, value in fields.items():
        if value:
            SubElement(file, f"{{{NS_FILE}}}{name}").text = clean(value)
    sources = SubElement(sharing, f"{{{NS_SFS}}}sources")
    torrent = subelement(sources, "torrent", mode=offer.mode.value, expires=stamp(offer.expires))
    if offer.delegate:
        torrent.set("delegate", "true")
    if offer.info is None:
        subelement(torrent, "info", hash=offer.info_hash.hex(), length=offer.info_length)
    else:
        subelement(torrent, "info").text = b64encode(offer.info).decode()
    return sharing


def readable(offer: messages.Offer) -> str:
    """What XEP-0447 lets the body say: what the elements beside it say, and how to get at it."""
    name = offer.name if len(offer.name) <= 120 else offer.name[:119] + "…"
    size, unit = float(offer.size), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    what = "a directory, " if offer.media_type == "inode/directory" else ""
    amount = f"{offer.size} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
    return clean(f"{name} ({what}{amount}), to be fetched with a client that supports {NS}")
