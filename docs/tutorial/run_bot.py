import asyncio

from bot import EchoFileBot


async def main():
    bot = EchoFileBot("bot@example.org", "password", ["you@example.org"])
    bot.connect()
    await bot.disconnected


if __name__ == "__main__":
    asyncio.run(main())
