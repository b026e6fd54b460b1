"""References to names of the library that are not documented because they are not public.

Docstrings are written for those who read the code too, and name its inner parts. Such a reference becomes plain text if
the name exists; if it does not, Sphinx warns as usual, so no reference goes stale.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from typing import Any

from docutils.nodes import Element, TextElement
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import slixmpp_bt


@cache
def _names() -> frozenset[str]:
    """Every module, function, class, constant and member, by its full name and by each shorter way to write it."""
    names: set[str] = set()
    for found in pkgutil.walk_packages(slixmpp_bt.__path__, "slixmpp_bt."):
        if found.name.endswith(".__main__"):
            continue
        module = importlib.import_module(found.name)
        names.add(found.name)
        for name, value in vars(module).items():
            names |= {name, f"{found.name}.{name}"}
            if inspect.isclass(value) and value.__module__.startswith("slixmpp_bt"):
                members = {*dir(value), *inspect.get_annotations(value)}
                names |= {form for m in members for form in (m, f"{name}.{m}", f"{found.name}.{name}.{m}")}
    return frozenset(names)


def _resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: TextElement) -> Element | None:
    return text if node.get("refdomain") == "py" and node.get("reftarget") in _names() else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("missing-reference", _resolve, priority=900)
    return {"parallel_read_safe": True}
