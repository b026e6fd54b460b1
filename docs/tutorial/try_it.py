import asyncio
from pathlib import Path

from bot import EchoFileBot

import slixmpp_bt
from slixmpp_bt.testing import LoopbackServer

HERE = "127.0.0.1"  # listen on this machine's own address only


async def main():
    async with LoopbackServer(users={"bot": "secret", "juliet": "secret"}) as server:
        bot = server.client("bot/1", EchoFileBot, friends=["juliet@localhost"], listen=HERE)
        juliet = server.client("juliet/balcony")
        juliet.register_plugin("xep_bt", {"download_dir": "back", "auto_accept": ["bot@localhost"], "listen": HERE})
        returned = asyncio.get_running_loop().create_future()
        bot.add_event_handler("bt_transfer_end", lambda t: t.incoming or returned.set_result(t.complete))
        await server.connect(bot)
        await server.connect(juliet)

        Path("letter.txt").write_text("O Romeo, Romeo!\n")
        sent = await slixmpp_bt.get_plugin(juliet).send_file("bot@localhost/1", "letter.txt")
        await sent.wait()
        if await returned:
            print(Path("back/letter.txt").read_text())


asyncio.run(main())
