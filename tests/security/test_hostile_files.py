"""What a hostile sender can make of a receiver's disk: files with harmless names, in the directory that is meant."""

from __future__ import annotations

import unicodedata
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

import pytest
from slixmpp.stanza import Iq

from slixmpp_bt import TransferError
from slixmpp_bt.messages import Accept, Accepted, Done, Meta, MetaChunk
from slixmpp_bt.stanza import AnyMessage

from ..fuzz.corpus import HOSTILE, TRICKS
from ..servers import Loopback
from ..world import Member, done, member, until
from .offers import info_dict, of_file, offer, tree_of
from .raw import Raw

LIMITS = {"max_transfers": 200}
FORBIDDEN = set('/\\:<>"|?*\0')


class Sender(Raw):
    """Gives, inside its answer, whatever content it has."""

    content = b""
    infos: ClassVar[dict[str, bytes]] = {}

    @staticmethod
    async def enter(loopback: Loopback) -> Sender:
        one = Sender(loopback.client(f"{await loopback.add_user('mallory')}/x"))
        one.give()
        await loopback.connect(one.xmpp)
        return one

    def give(self) -> None:
        def answer(request: AnyMessage, iq: Iq) -> AnyMessage:
            if isinstance(request, Meta):
                return MetaChunk(request.id, request.offset, self.infos[request.id][request.offset :][: request.length])
            if isinstance(request, Accept):
                return Accepted(request.id, request.transfer, content=self.content)
            return Done()

        self._answer = answer


@pytest.fixture
async def loopback() -> AsyncIterator[Loopback]:
    async with Loopback() as view:
        yield view


def everything(home: Path, but: Path) -> dict[str, str]:
    """What there is in `home`, but for what is in one directory, with what it holds or leads to."""
    found = {}
    for path in sorted(home.rglob("*")):
        if path.is_relative_to(but):
            continue
        what = f"to {path.readlink()}" if path.is_symlink() else "directory"
        found[str(path.relative_to(home))] = sha256(path.read_bytes()).hexdigest() if path.is_file() else what
    return found


async def receiver(loopback: Loopback, tmp_path: Path) -> Member:
    """Bob, who takes everything, in a home that has something to lose."""
    home = tmp_path / "bob"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "authorized_keys").write_text("mine\n")
    (home / ".bashrc").write_text("mine too\n")
    return await member(loopback, f"{await loopback.add_user('bob')}/phone", home, auto_accept=True, limits=LIMITS)


def harmless(path: Path, inbox: Path) -> bool:
    """Whether it is a regular file or a directory in the inbox, with names that no system takes for something else."""
    names = path.relative_to(inbox).parts
    controls = any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for name in names for letter in name)
    regular = not path.is_symlink() and (path.is_file() or path.is_dir())
    short = all(len(name.encode()) <= 255 and name.rstrip(" .") == name for name in names)
    return regular and short and not controls and not set("".join(names)) & FORBIDDEN


async def test_tree_of_every_trick_arrives_under_harmless_names(loopback: Loopback, tmp_path: Path) -> None:
    bob, eve = await receiver(loopback, tmp_path), await Sender.enter(loopback)
    tricks = sorted({name.encode() for name in TRICKS})
    files: dict[tuple[bytes, ...], bytes] = {(name,): b"%d " % index for index, name in enumerate(tricks)}
    files |= {(b"inner", name, b"..." if index % 2 else name): b"x" for index, name in enumerate(tricks)}
    eve.content = b"".join(content for _, content in sorted(files.items()))
    before = everything(tmp_path, bob.inbox)
    info = info_dict("..\\..\\\u202etricks".encode(), tree_of(files))
    eve.tell(bob.jid, offer(info, len(eve.content), name="tricks"))
    (path,) = await done(await bob.expect("bt_transfer_start"))
    arrived = [each for each in bob.inbox.rglob("*") if each.is_file()]
    assert sorted(each.read_bytes() for each in arrived) == sorted(files.values())
    assert path.parent == bob.inbox
    assert [each for each in bob.inbox.rglob("*") if not harmless(each, bob.inbox)] == []
    assert everything(tmp_path, bob.inbox) == before


async def test_file_with_a_trick_for_a_name_arrives_under_a_harmless_one(loopback: Loopback, tmp_path: Path) -> None:
    bob, eve = await receiver(loopback, tmp_path), await Sender.enter(loopback)
    eve.content = b"spam!"
    before = everything(tmp_path, bob.inbox)
    for count, name in enumerate(TRICKS, 1):
        eve.tell(bob.jid, offer(of_file(name, eve.content), 5, name="holiday.jpg"))
        (path,) = await done(await bob.expect("bt_transfer_start", count))
        assert path.parent == bob.inbox, name
        assert path.read_bytes() == eve.content
        assert harmless(path, bob.inbox), name
        assert not path.name.startswith("."), name
    await until(lambda: not bob.leftovers())
    assert len(list(bob.inbox.rglob("*"))) == len(TRICKS)
    assert everything(tmp_path, bob.inbox) == before


async def test_hostile_manifests_are_never_accepted(loopback: Loopback, tmp_path: Path) -> None:
    bob, eve = await receiver(loopback, tmp_path), await Sender.enter(loopback)
    before = everything(tmp_path, bob.inbox)
    for info in HOSTILE.values():
        for inside in (True, False) if 0 < len(info) < 9_000 else (False,):
            sent = offer(info or b" ", 5, inside=inside)
            eve.infos[sent.id] = info or b" "
            eve.tell(bob.jid, sent)
    eve.content = b"spam!"
    eve.tell(bob.jid, offer(of_file("after.txt", eve.content), 5))  # comes after all of them
    await until(lambda: (bob.inbox / "after.txt").exists())
    # Those whose dict has to be asked for are accepted, and then fail.
    await until(lambda: all(transfer.ended for transfer in bob.told("bt_transfer_start")))
    await until(lambda: not bob.leftovers())
    assert [transfer.name for transfer in bob.told("bt_transfer_end") if transfer.complete] == ["after.txt"]
    assert [path.name for path in bob.inbox.rglob("*")] == ["after.txt"]
    assert everything(tmp_path, bob.inbox) == before


@pytest.mark.parametrize("kind", ["file", "directory", "nowhere"])
@pytest.mark.parametrize("offered", ["file", "directory"])
async def test_planted_links_are_neither_followed_nor_overwritten(
    loopback: Loopback, tmp_path: Path, kind: str, offered: str
) -> None:
    bob, eve = await receiver(loopback, tmp_path), await Sender.enter(loopback)
    target = {"file": bob.home / ".bashrc", "directory": bob.home / ".ssh", "nowhere": bob.home / "later"}[kind]
    (bob.inbox / "authorized_keys").symlink_to(target)
    before = everything(tmp_path, bob.inbox)
    eve.content = b"spam!"
    name = b"authorized_keys"
    tree: dict[tuple[bytes, ...], bytes] = (
        {(name,): eve.content} if offered == "file" else {(b"authorized_keys", b"x"): eve.content}
    )
    eve.tell(bob.jid, offer(info_dict(name, tree_of(tree)), 5))
    (path,) = await done(await bob.expect("bt_transfer_start"))
    assert path.name == "authorized_keys (1)"
    assert path.is_file() == (offered == "file")
    assert not path.is_symlink()
    assert (bob.inbox / "authorized_keys").readlink() == target
    assert everything(tmp_path, bob.inbox) == before


async def test_content_that_is_not_what_was_offered_is_never_published(loopback: Loopback, tmp_path: Path) -> None:
    bob, eve = await receiver(loopback, tmp_path), await Sender.enter(loopback)
    bob.bt.configure(routes=["inline"])
    eve.content = b"wrong"
    eve.tell(bob.jid, offer(of_file("file.txt", b"spam!"), 5))
    transfer = await bob.expect("bt_transfer_start")
    with pytest.raises(TransferError):
        await done(transfer)
    await transfer.released()
    assert list(bob.inbox.rglob("*")) == []
