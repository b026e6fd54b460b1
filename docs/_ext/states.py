"""``.. states:: ROLE``: the state diagram of one side of a transfer, and its table."""

from __future__ import annotations

from typing import Any, ClassVar
from xml.etree.ElementTree import tostring

import statediagram
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from slixmpp_bt import negotiation
from slixmpp_bt.negotiation import Role


class States(SphinxDirective):
    """The directive. Its argument is ``sender`` or ``receiver``."""

    required_arguments = 1
    has_content = False
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        for module in (negotiation, statediagram):
            self.env.note_dependency(str(module.__file__))
        role = Role(self.arguments[0])
        picture = nodes.raw("", tostring(statediagram.diagram(role), encoding="unicode"), format="html")
        return [picture, _table(role)]


def _table(role: Role) -> nodes.table:
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in range(4)), cols=4)
    head = nodes.thead("", _row("in phase", "this event", "leads to", "and has this done"))
    body = nodes.tbody("", *(_row(*line) for line in statediagram.lines_of_table(role)))
    group += [head, body]
    return nodes.table("", group)


def _row(*cells: str) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", cell)) for cell in cells))


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("states", States)
    return {"parallel_read_safe": True}
