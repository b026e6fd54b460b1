from slixmpp_bt.backends.plain import PlainBackend
from slixmpp_bt.testing.conformance import BackendConformance


class MyBackend(PlainBackend):
    """Counts what it opens."""

    opened = 0

    async def open_download(self, *args, **kwargs):
        download = await super().open_download(*args, **kwargs)
        self.opened += 1
        return download


class TestMyBackend(BackendConformance):
    def make_backend(self, listen, rates):
        return MyBackend(listen, rates)
