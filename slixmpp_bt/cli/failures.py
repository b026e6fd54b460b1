"""How the command fails: exit codes, and sentences that are safe to print."""

from __future__ import annotations

#: The exit codes; see the package's docstring.
DONE, FAILED, USAGE, NO_LOGIN, STOPPED = 0, 1, 2, 3, 130


class Failure(Exception):
    """Ends the command with a sentence for the user and an exit code."""

    def __init__(self, words: str, code: int) -> None:
        super().__init__(words)
        self.code = code


def plain(text: object) -> str:
    """`text` on one line and without anything that a terminal would obey: much of it was written by others."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(str(text).split()))
