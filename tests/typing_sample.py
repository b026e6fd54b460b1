"""The public API as a bot author uses it: never run, only checked by ``mypy --strict`` (tests/test_package.py)."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import slixmpp

import slixmpp_bt
from slixmpp_bt import (
    XEP_BT,
    IncomingOffer,
    Mode,
    NoRoute,
    OutgoingOffer,
    Progress,
    Route,
    State,
    Transfer,
    TransferError,
)


class Bot(slixmpp.ClientXMPP):
    """Registers the plugin, is typed through :func:`slixmpp_bt.get_plugin`, and uses every part of the API."""

    def __init__(self, jid: str, password: str) -> None:
        super().__init__(jid, password)
        self.register_plugin("xep_bt", {"download_dir": "inbox", "auto_accept": ["juliet@capulet.example"]})
        self.add_event_handler("bt_offer", self.ask)

    @property
    def bt(self) -> XEP_BT:
        return slixmpp_bt.get_plugin(self)

    async def ask(self, offer: IncomingOffer) -> None:
        if offer.size > 1_000_000 or offer.expires is None:
            await offer.decline("too large")
            return
        transfer = await offer.accept(Path("elsewhere"), select=offer.files[:1])
        async for progress in transfer:
            assert_type(progress, Progress)
            assert_type(progress.routes[Route.SWARM], int)
        assert_type(await transfer.wait(), Path)

    async def send_letter(self) -> None:
        transfer = await self.bt.send_file("juliet@capulet.example", "letter.txt", desc="a letter", mode=Mode.PRIVATE)
        assert_type(transfer, Transfer)
        try:
            await transfer.wait()
        except NoRoute as error:
            assert_type(error.reasons, dict[Route, str])
        except TransferError as error:
            assert_type(error.reason, str)
        assert_type(transfer.state, State)
        assert_type(transfer.diagnosis, dict[Route, str])

    async def share_letters(self) -> None:
        offer = await self.bt.offer("room@chat.example", Path("letters"), mtype="groupchat")
        assert_type(offer, OutgoingOffer)
        async for transfer in offer:
            assert_type(transfer, Transfer)
        await offer.withdraw()

    async def answers(self) -> None:
        assert_type(await self.bt.supports("juliet@capulet.example/balcony"), bool | None)
        self.bt.configure(upload_limit=1_000_000, limits={"max_size": 1_000_000})
        await self.bt.aclose()
