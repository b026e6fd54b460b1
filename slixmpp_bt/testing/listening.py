"""A listening socket, and an end for every connection that came by it."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable

from .markup import StreamError

log = logging.getLogger(__name__)

#: How long the other side may take to close its stream, or to shake hands, in seconds.
PATIENCE = 5.0


class Connection(asyncio.Protocol, ABC):
    """What came by a listening socket.

    :ivar closed: done once the connection is gone.
    """

    closed: asyncio.Future[None]

    @abstractmethod
    def close(self, error: StreamError | None = None) -> None:
        """End it in good order."""

    @abstractmethod
    def abort(self) -> None:
        """Drop it."""


class Listener:
    """Listens, and owns the connections that `make` makes."""

    def __init__(self, make: Callable[[], Connection]) -> None:
        self._make = make
        self._server: asyncio.Server | None = None
        self._streams: set[Connection] = set()

    async def open(self, host: str, port: int) -> int:
        """Listen.

        :param port: 0 for any.
        :returns: the port.
        :raises OSError: it is taken.
        """
        self._server = await asyncio.get_running_loop().create_server(self._connected, host, port)
        return int(self._server.sockets[0].getsockname()[1])

    def _connected(self) -> Connection:
        stream = self._make()
        self._streams.add(stream)
        stream.closed.add_done_callback(lambda _: self._streams.discard(stream))
        return stream

    async def close(self, error: StreamError) -> None:
        """Stop listening and end the streams; those that do not end within seconds, or when cancelled, are dropped."""
        await self._stop_listening()
        for stream in tuple(self._streams):
            stream.close(error)
        try:
            async with asyncio.timeout(2 * PATIENCE):
                while self._streams:
                    await asyncio.wait([stream.closed for stream in self._streams])
        except TimeoutError:
            log.warning("%d connections did not end", len(self._streams))
        finally:
            for stream in tuple(self._streams):
                stream.abort()

    async def _stop_listening(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        for listening in server.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        # What was accepted in this turn of the loop gets its transport in the next; a server that has been closed
        # meanwhile would refuse it, and lose the socket.
        await asyncio.sleep(0)
        server.close()
