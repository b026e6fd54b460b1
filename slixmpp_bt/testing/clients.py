"""Getting slixmpp's clients and components into a server on this machine."""

from __future__ import annotations

import asyncio
from pathlib import Path

from slixmpp import BaseXMPP, ClientXMPP


def trust(xmpp: ClientXMPP, tls: bool, ca_certs: Path | None) -> None:
    """Let a client insist on STARTTLS and trust `ca_certs`; or let it log in without TLS."""
    xmpp.enable_direct_tls = False
    xmpp.enable_starttls, xmpp.enable_plaintext = tls, not tls
    if tls:
        xmpp.ca_certs = ca_certs
    else:
        xmpp.plugin["feature_mechanisms"].unencrypted_plain = True


async def connect(xmpp: BaseXMPP, host: str, port: int, timeout: float) -> None:
    """Connect and wait for the session to start.

    :raises ConnectionError: authentication failed, or the connection was lost before.
    :raises TimeoutError: it took longer than `timeout` seconds. Then, and when cancelled, the attempt is given up.
    """
    started = asyncio.get_running_loop().create_future()

    def succeed(_: object) -> None:
        if not started.done():
            started.set_result(None)

    def fail(reason: object) -> None:
        if not started.done():
            started.set_exception(ConnectionError(f"{xmpp.boundjid} did not get in: {reason or 'not authorized'}"))

    handlers = {"session_start": succeed, "failed_all_auth": fail, "disconnected": fail}
    for event, handler in handlers.items():
        xmpp.add_event_handler(event, handler)
    try:
        async with asyncio.timeout(timeout):
            xmpp.connect(host, port)
            await started
    except BaseException:
        xmpp.cancel_connection_attempt()
        xmpp.abort()
        raise
    finally:
        for event, handler in handlers.items():
            xmpp.del_event_handler(event, handler)
