"""The outbox: an End is repeated until it is answered, never twice at once, and not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest
from slixmpp import JID

from slixmpp_bt import outbox as module
from slixmpp_bt.errors import BTError, LimitExceeded, PeerGone, ProtocolError
from slixmpp_bt.messages import Done, End, Message, Reply, Request
from slixmpp_bt.outbox import NOT_NOW, Outbox
from slixmpp_bt.policy import occupant_of
from slixmpp_bt.tasks import Tasks
from slixmpp_bt.wire import Wire

BOB, LOCAL = JID("bob@b.example/phone"), JID("alice@a.example/x")


class Line:
    """A wire that keeps each request until the test answers it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, asyncio.Future[Reply]]] = []
        self.to: list[JID] = []

    async def online(self) -> None:
        raise AssertionError("an End does not wait for a session")

    async def send(self, message: Message, to: JID, *, sender: JID, mtype: str) -> str:
        raise AssertionError("an End is a request")

    async def request(self, request: Request, to: JID, *, sender: JID, timeout: float = 30.0) -> Reply:
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.asked.append((request.id, answer))
        self.to.append(to)
        return await answer

    async def answer(self, error: BTError | None = None) -> None:
        """Answer what was asked last, and let the outbox act."""
        _, answer = self.asked[-1]
        if error is None:
            answer.set_result(Done())
        else:
            answer.set_exception(error)
        await turn()


async def turn() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    tasks = Tasks()
    yield tasks
    await tasks.aclose()


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
async def outbox(line: Line, tasks: Tasks) -> Outbox:
    return Outbox(cast(Wire, line), tasks)


def post(outbox: Outbox, id: str = "o1", to: JID = BOB, until: float = 1000.0) -> None:
    outbox.post(End(id, "cancel", "cancel", transfer="t"), to, sender=LOCAL, until=until)


async def test_end_that_is_answered_is_not_repeated(outbox: Outbox, line: Line) -> None:
    post(outbox)
    await turn()
    await line.answer()
    outbox.retry(1.0)
    await turn()
    assert len(line.asked) == 1
    assert len(outbox) == 0


@pytest.mark.parametrize("error", [PeerGone("away"), *(ProtocolError("later", c) for c in sorted(NOT_NOW))])
async def test_end_that_is_not_answered_now_is_repeated_at_the_next_contact(
    outbox: Outbox, line: Line, error: BTError
) -> None:
    post(outbox)
    await turn()
    await line.answer(error)
    assert len(outbox) == 1
    outbox.retry(1.0, JID("carol@c.example/x"))
    await turn()
    assert len(line.asked) == 1
    outbox.retry(1.0, JID("bob@b.example/another device"))
    await turn()
    assert len(line.asked) == 2
    await line.answer()
    assert len(outbox) == 0


@pytest.mark.parametrize("error", [ProtocolError("no", "bad-request"), LimitExceeded("too long")])
async def test_end_that_is_refused_is_given_up(outbox: Outbox, line: Line, error: BTError) -> None:
    post(outbox)
    await turn()
    await line.answer(error)
    assert len(outbox) == 0


async def test_contact_while_an_end_is_under_way_sends_no_second_one_but_another_try_later(
    outbox: Outbox, line: Line
) -> None:
    post(outbox)
    for _ in range(10):
        outbox.retry(1.0, BOB)
        await turn()
    assert len(line.asked) == 1
    await line.answer(PeerGone("did not answer"))
    assert len(line.asked) == 2
    await line.answer(PeerGone("did not answer"))
    assert len(line.asked) == 2
    assert len(outbox) == 1


async def test_contact_while_an_end_is_under_way_and_then_answered_is_enough(outbox: Outbox, line: Line) -> None:
    post(outbox)
    await turn()
    outbox.retry(1.0)
    await line.answer()
    assert len(line.asked) == 1
    assert len(outbox) == 0


async def test_contact_while_an_end_is_lost_sends_it_again_soon(
    outbox: Outbox, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went to a connection that was dead already is not answered for half a minute."""
    monkeypatch.setattr(module, "_ANSWER", 0.01)
    post(outbox)
    await turn()
    outbox.retry(1.0, BOB)
    async with asyncio.timeout(20):
        while len(line.asked) < 2:
            await asyncio.sleep(0.001)
    await line.answer()
    assert len(outbox) == 0


async def test_end_that_is_too_old_is_forgotten(outbox: Outbox, line: Line) -> None:
    post(outbox, until=1000.0)
    await turn()
    await line.answer(PeerGone("away"))
    outbox.retry(1000.0)
    await turn()
    assert len(line.asked) == 1
    assert len(outbox) == 0


async def test_ends_without_end_are_bounded(outbox: Outbox, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_LETTERS", 5)
    monkeypatch.setattr(module, "_MAX_ACCOUNTS", 3)
    for account in range(5):
        for number in range(10):
            post(outbox, f"o{number}", JID(f"user{account}@b.example/x"))
    await turn()
    assert len(outbox) == 15
    for _, answer in line.asked:
        answer.set_exception(PeerGone("away"))
    await turn()
    outbox.prune(0.0)
    assert len(outbox) == 15
    outbox.prune(2000.0)
    assert len(outbox) == 0


async def test_successor_says_what_a_closed_outbox_could_not(line: Line, tasks: Tasks) -> None:
    closed = Tasks()
    outbox = Outbox(cast(Wire, line), closed)
    post(outbox)
    await turn()
    await closed.aclose()  # while it is under way
    successor = Outbox(cast(Wire, line), tasks)
    successor.take_over(outbox)
    assert (len(outbox), len(successor)) == (0, 1)
    successor.retry(1.0)
    await turn()
    assert len(line.asked) == 2
    await line.answer()
    assert len(successor) == 0


ROOM = JID("den@rooms.example")


@pytest.mark.parametrize("lasting", [True, False])
async def test_end_for_an_occupant_goes_to_nobody_else(outbox: Outbox, line: Line, lasting: bool) -> None:
    owner = occupant_of(ROOM, id="bob") if lasting else occupant_of(ROOM, stay="bob")
    at = [JID(f"{ROOM}/{nick}") for nick in ("bob", "bob two", "bob three")]
    outbox.post(End("o", "cancel", "cancel", transfer="t"), at[0], sender=LOCAL, until=1000.0, owner=owner)
    await turn()
    assert line.to == [at[0]]
    await line.answer(PeerGone("away"))
    outbox.renamed(owner, at[0], at[1])
    outbox.retry(1.0)
    await turn()
    assert line.to == at[:2]
    await line.answer(PeerGone("away"))
    outbox.left(owner)
    outbox.retry(1.0)
    outbox.retry(1.0, at[0], occupant_of(ROOM, id="mallory"))
    await outbox.seek(1.0)
    await turn()
    assert line.to == at[:2]
    assert len(outbox) == lasting
    outbox.retry(1.0, at[2], owner)
    await turn()
    assert line.to == at[: 2 + lasting]
    if lasting:
        await line.answer()
    assert len(outbox) == 0


async def test_tried_waits_for_every_answer_and_for_nothing_else(outbox: Outbox, line: Line) -> None:
    await outbox.tried()
    post(outbox)
    await turn()
    trying = asyncio.ensure_future(outbox.tried())
    await turn()
    post(outbox, "o2", JID("carol@c.example/x"))
    await turn()
    await line.answer(PeerGone("not here"))
    assert not trying.done()
    line.asked.pop()
    await line.answer()
    await asyncio.wait_for(trying, 20)
    assert [end.id for end in outbox.waiting] == ["o2"]
    await outbox.tried()
