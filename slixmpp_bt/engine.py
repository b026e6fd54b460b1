"""The engine that a configuration asks for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from .backends import Backend, RateLimits
from .config import Config
from .errors import ConfigError


def make(config: Config) -> Backend:
    """A new one; libtorrent is imported only if it is asked for.

    :raises ConfigError: what is configured makes none.
    :raises BackendUnavailable: it is not installed, or does not work here.
    """
    factory: Callable[..., Backend]
    if callable(config.backend):
        factory = config.backend
    elif config.backend == "plain":
        factory = import_module(".backends.plain", __package__).PlainBackend
    else:
        factory = import_module(".backends.libtorrent", __package__).LibtorrentBackend
    try:
        backend = factory(config.listen, rates(config), port_mapping=config.port_mapping)
    except TypeError as error:
        raise ConfigError(f"backend: {config.backend!r} does not make a backend: {error}") from error
    if not isinstance(backend, Backend):
        raise ConfigError(f"backend: {config.backend!r} made {backend!r}, which is no slixmpp_bt.backends.Backend")
    return backend


def rates(config: Config) -> RateLimits:
    """How fast it may be."""
    return RateLimits(config.upload_limit, config.download_limit)
