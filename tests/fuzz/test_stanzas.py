"""Every stanza, through a server, a client's parser and the plugin: from somebody who is invited, offers, is accepted,
and says whatever can be built with the protocol's own grammar, and more that cannot."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import resource
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slixmpp import JID
from slixmpp.stanza import Iq

from slixmpp_bt import OutgoingOffer, stanza
from slixmpp_bt.constants import NS, Mode
from slixmpp_bt.errors import ProtocolError
from slixmpp_bt.manifest import Manifest, ManifestLimits
from slixmpp_bt.messages import Accepted, Candidate, Fetching, Meta, MetaChunk, Offer
from slixmpp_bt.stanza import AnyMessage

from ..samples import anything, damaged
from ..security.offers import small_offer
from ..security.raw import Raw
from ..servers import Loopback
from ..world import Member, make_file, until
from . import COUNT, patient, thorough
from .corpus import good

#: What no XML parser lets through, so that no server passes it on.
UNSENDABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
MOST_TRANSFERS = 16
MIB = 1024**2


def sendable(element: ET.Element) -> ET.Element:
    """`element` without what XMPP does not carry: such characters, and comments."""
    for each in list(element.iter()):
        for child in [child for child in each if not isinstance(child.tag, str)]:
            each.remove(child)
        each.text = None if each.text is None else UNSENDABLE.sub("?", each.text)
        for name, value in each.attrib.items():
            each.set(name, UNSENDABLE.sub("?", value))
    return element


class Trouble(logging.Handler):
    """Hears of every exception that nobody was meant to see."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))

    def hear(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.found.append(f"{context.get('message')}: {context.get('exception')!r}")


class Bout:
    """Bob, with the plugin, and Eve, who speaks by hand as a name of a component of hers."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.trouble = Trouble()
        self.sent = self.answered = self.ended = 0
        self.server = Loopback()
        self._reply: ET.Element | None = None
        self._rng = random.Random(1)
        #: Of what Eve has offered, by id.
        self._hashes: dict[str, bytes] = {}

    async def start(self) -> None:
        asyncio.get_running_loop().set_exception_handler(self.trouble.hear)
        logging.getLogger().addHandler(self.trouble)
        await self.server.__aenter__()
        self.bob = Member(self.server.client("bob/phone"), self.home / "bob")
        self.bob.register(auto_accept=True, limits={"max_transfers": 2 * MOST_TRANSFERS})
        self.eve = Raw(self.server.component("gateway"), self._answer)
        await self.server.connect(self.bob.xmpp, self.eve.xmpp)
        self.jid = JID(f"eve@{self.eve.jid.domain}/x")
        self.source = make_file(self.home / "source", 100_000)
        self.own: OutgoingOffer | None = None

    async def stop(self) -> None:
        try:
            await self.server.__aexit__(None, None, None)
        finally:
            logging.getLogger().removeHandler(self.trouble)

    async def prepare(self) -> None:
        """See that there is an own offer that Eve may accept, and not too many transfers."""
        if self.own is None or self.own.state.terminal or len(self.own.transfers) > 500:
            if self.own is not None:
                await self.own.withdraw()
            self.own = await self.bob.bt.offer(self.jid, self.source)
            await until(lambda: self.own is not None and self.own.state != "preparing")
        incoming = [transfer for transfer in self.bob.bt.transfers if transfer.incoming]
        if len(incoming) >= MOST_TRANSFERS:
            await asyncio.gather(*(transfer.cancel() for transfer in incoming))
        # What was asked and told is of no use any more.
        self.eve.asked.clear()
        self.eve.offers.clear()
        self.ended += len(self.bob.told("bt_transfer_end"))
        self.bob.events.clear()

    def ids(self, aim: str) -> tuple[str, str]:
        """Those of an offer and a transfer that Bob knows."""
        if aim == "own" and self.own is not None:
            ids = [transfer.id for transfer in self.own.transfers if transfer.id]
            return self.own.id, self._rng.choice([*ids, "t-1"])
        known = [transfer for transfer in self.bob.bt.transfers if transfer.incoming]
        if not known:
            return "offer", "transfer"
        transfer = self._rng.choice(known)
        return transfer.offer.id, str(transfer.id)

    def _answer(self, request: AnyMessage, iq: Iq) -> AnyMessage | ET.Element | str:
        """What Eve says when Bob asks: the truth about info dicts, else what is drawn, for what was asked."""
        if isinstance(request, Meta):
            for info in good():
                if sha256(info).digest() == self._hashes.get(request.id) and request.offset < len(info):
                    return MetaChunk(request.id, request.offset, info[request.offset :][: request.length])
        if self._reply is None:
            return "item-not-found"
        reply = deepcopy(self._reply)
        reply.set("id", str(getattr(request, "id", None)))
        if "transfer" in reply.attrib:
            reply.set("transfer", str(getattr(request, "transfer", None)))
        return reply

    async def say(self, xml: ET.Element, kind: str, aim: str, reply: ET.Element | None) -> None:
        """Let Eve send `xml`, and, until Bob has dealt with it, answer what he asks with `reply`."""
        await self.prepare()
        self._reply = None if reply is None else sendable(reply)
        if xml.tag == "{urn:xmpp:sfs:0}file-sharing":
            with suppress(ProtocolError):
                offer = stanza.parse(xml)
                if isinstance(offer, Offer):
                    self._hashes = {**dict(list(self._hashes.items())[-100:]), offer.id: offer.info_hash}
        elif aim != "nothing":
            id, transfer = self.ids(aim)
            xml.set("id", id)
            if "transfer" in xml.attrib:
                xml.set("transfer", transfer)
        self.sent += 1
        if kind in ("set", "get"):
            await self._ask(xml, kind)
        else:
            message = self.eve.xmpp.make_message(mto=self.bob.jid, mfrom=self.jid, mtype=kind)  # type: ignore[arg-type]
            message.append(sendable(xml))
            message.send()
            await self._ask(ET.Element("{urn:xmpp:ping}ping"), "get")

    async def _ask(self, xml: ET.Element, kind: str) -> None:
        """Send a request, which has to be answered, and once."""
        answer = await self.eve.ask(self.bob.jid, sendable(xml), kind=kind, ifrom=self.jid)
        self.answered += 1
        error = answer.find("{*}error")
        if error is not None and xml.tag.startswith(f"{{{NS}}}"):
            condition = error[0].tag.partition("}")[2]
            assert condition not in ("undefined-condition", "internal-server-error"), ET.tostring(answer)


@pytest.fixture(scope="module")
def bout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[asyncio.Runner, Bout]]:
    with asyncio.Runner() as runner:
        one = Bout(tmp_path_factory.mktemp("bout"))
        try:
            runner.run(one.start())
            yield runner, one
        finally:
            runner.run(one.stop())


@cache
def known() -> tuple[Manifest, ...]:
    """What :func:`good` are the info dicts of."""
    return tuple(Manifest.parse(info, ManifestLimits(1 << 40, 1_000, 1 << 20)) for info in good())


@st.composite
def good_offers(draw: st.DrawFn) -> Offer:
    """Offers of something that a parser takes, so that it is accepted, unless they lie."""
    manifest = draw(st.sampled_from(known()))
    sealed = b"ssl-cert" in manifest.extra
    true = Mode.SEALED if sealed else Mode.PRIVATE
    return replace(
        small_offer(),
        mode=draw(st.sampled_from([true, true, true, *Mode])),
        expires=datetime.now(UTC) + timedelta(seconds=draw(st.sampled_from([86_400, 5, 10**10]))),
        info=draw(st.sampled_from([manifest.info, manifest.info, None])),
        info_hash=manifest.info_hash,
        info_length=len(manifest.info),
        size=draw(st.sampled_from([manifest.size] * 4 + [5, 2**40])),
    )


whatever = st.one_of(damaged(), anything.map(stanza.build), good_offers().map(stanza.build))
#: Answers to an Accept or a Fetch that are well formed; where they lead nobody listens.
candidates = st.lists(st.builds(Candidate, st.ip_addresses(v=4, network="127.0.0.0/8"), st.integers(1, 9)), max_size=8)
answers = st.one_of(
    st.builds(
        Accepted, st.just("offer"), st.just("transfer"), candidates.map(tuple),
        content=st.none() | st.binary(max_size=200) | st.sampled_from([b"content", b""]),
        report=st.none() | st.just(5), certificate=st.none() | st.binary(max_size=300),
    ),
    st.builds(Fetching, st.just("offer"), st.just("transfer"), st.sampled_from([1, 7, 16_384, 2**40])),
    st.builds(MetaChunk, st.just("offer"), st.integers(0, 300), st.binary(min_size=1, max_size=300)),
).map(stanza.build)  # fmt: skip
kinds = st.sampled_from(["set", "set", "set", "get", "chat", "normal", "headline", "groupchat"])
aims = st.sampled_from(["own", "own", "theirs", "theirs", "nothing"])


def fitting(xml: ET.Element, kind: str) -> str:
    """Mostly the kind of stanza that goes with a payload."""
    name = xml.tag.rpartition("}")[2]
    if name in ("file-sharing", "withdraw", "seek"):
        return kind if kind not in ("set", "get") else "chat"
    return kind if kind in ("set", "get", "normal") else ("get" if name == "meta" else "set")


@patient
def test_whatever_is_said_is_answered_raises_nothing_and_leaves_little(bout: tuple[asyncio.Runner, Bout]) -> None:
    runner, one = bout

    @given(whatever, kinds, aims, st.none() | whatever | answers | answers)
    @thorough
    def say(xml: ET.Element, kind: str, aim: str, reply: ET.Element | None) -> None:
        runner.run(one.say(xml, fitting(xml, kind), aim, reply))
        assert one.trouble.found == []

    say()
    runner.run(afterwards(one))
    assert one.trouble.found == []


async def afterwards(one: Bout) -> None:
    """Nothing has piled up, nothing was written elsewhere, and everything still works."""
    await one.prepare()
    exchange: Any = one.bob.bt._exchange
    tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith("slixmpp_bt")]
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{one.sent} stanzas, {one.answered} answers;",
        f"{one.ended} transfers have ended;",
        f"{len(exchange.registry.incoming)} offers, {len(exchange.registry.past)} past ones,",
        f"{len(one.bob.bt.transfers)} transfers,",
        f"{len(tasks)} tasks, {size:.0f} MiB at most",
    )
    assert one.sent == one.answered >= COUNT
    assert len(exchange.registry.incoming) <= 2_000
    assert len(exchange.registry.past) <= 10_000
    assert len(tasks) < 500
    assert size < 1_500
    assert not [path for path in one.bob.inbox.rglob("*") if path.is_symlink()]
    assert {path.name for path in one.home.iterdir()} == {"bob", "source"}
    friend = Member(one.server.client("alice/a"), one.home / "alice")
    friend.register()
    await one.server.connect(friend.xmpp)
    sending = await friend.bt.send_file(one.bob.jid, one.source)
    async with asyncio.timeout(30):
        await sending.wait()
    await friend.bt.aclose()
