import asyncio
import signal

from bot import EchoFileBot

import slixmpp_bt


async def main():
    bot = EchoFileBot("bot@example.org", "password", ["you@example.org"])
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    bot.add_event_handler("disconnected", lambda _: over.set())
    bot.connect()
    await over.wait()
    await slixmpp_bt.get_plugin(bot).aclose()
    await bot.disconnect()


if __name__ == "__main__":
    asyncio.run(main())
