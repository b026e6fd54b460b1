"""Sphinx configuration. Build with ``sphinx-build -n -W docs docs/_build``; it needs no network."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import slixmpp_bt

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "slixmpp_bt"
author = copyright = "The slixmpp_bt authors"
version = release = slixmpp_bt.__version__

extensions = ["sphinx.ext.autodoc", "sphinx_copybutton", "internal", "states", "xep"]
html_theme = "furo"
html_title = f"slixmpp_bt {release}"
exclude_patterns = ["_build"]
root_doc = "index"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_display_short_literal_types = True
python_maximum_signature_line_length = 100

# Links into other projects' documentation need their inventories from the network: only where the documentation is
# published. Elsewhere the same names are left as plain text.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", None),
    "slixmpp": ("https://slixmpp.readthedocs.io/en/latest", None),
}
if os.environ.get("READTHEDOCS") == "True":
    extensions.append("sphinx.ext.intersphinx")

nitpick_ignore_regex = [
    # Objects of other projects, see above.
    (r"py:.*", rf"({'|'.join(sorted(sys.stdlib_module_names))}|slixmpp)\..*"),
    (r"py:class", r"(JID|BaseXMPP|BasePlugin|ClientXMPP|ComponentXMPP|Iq|Message|BasePlugin\..*)"),
]
