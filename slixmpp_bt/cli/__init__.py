"""The command ``slixmpp-bt``: send, receive, give up, and a demonstration that needs no server.

What it prints on standard output is for programs (``receive``: the path of each file that arrived); progress, questions
and errors go to standard error. It exits with

* 0 when everything was transferred,
* 1 when a transfer did not end with the file,
* 2 when it was called or configured wrongly, a file that cannot be read included,
* 3 when it cannot connect to the server or log in,
* 130 when it was stopped by Ctrl-C or SIGTERM. What is unfinished is kept then, unless ``--no-keep`` was said.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from types import FrameType

from ..errors import BTError, ConfigError, NotSupported, PathError
from .failures import FAILED, STOPPED, USAGE, Failure, plain
from .options import Command, parse


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    :param argv: the arguments; by default those of the process.
    :raises SystemExit: from argparse, for ``--help`` and for arguments that make no sense (2).
    """
    options = parse(argv)
    if find_spec("rich") is None:
        return _complain("this command draws with rich, which is not installed: pip install 'slixmpp-bt[cli]'", USAGE)
    _set_up_logging(options.verbose)
    try:
        with _terminable():
            return asyncio.run(_stoppable(options.run(options)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return STOPPED  # whoever had something to say about it has said it
    except Failure as error:
        return _complain(str(error), error.code)
    except (ConfigError, PathError, NotSupported) as error:
        return _complain(str(error), USAGE)
    except BTError as error:
        return _complain(str(error), FAILED)


def _complain(words: str, code: int) -> int:
    sys.stderr.write(f"slixmpp-bt: {plain(words)}\n")
    return code


def _set_up_logging(verbose: bool) -> None:
    """Whatever matters is said in a sentence of the command's own, so the libraries' logs are for the curious.

    Never slixmpp's debug log: it holds passwords.
    """
    logging.basicConfig(level=logging.WARNING if verbose else logging.CRITICAL, format="%(name)s: %(message)s")
    if verbose:
        logging.getLogger("slixmpp_bt").setLevel(logging.INFO)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does, also where SIGINT is ignored, as in a script's ``command &``."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


async def _stoppable(command: Command) -> int:
    """Run `command`; SIGTERM cancels it from now on, so that everything is tidied up. asyncio sees to SIGINT."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await command
