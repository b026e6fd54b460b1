"""Whatever arrives, nothing but our own errors comes of it, and it costs no more than the limits say.

A run tries 2,000 stanzas, info dicts and names, and 200 of all else, the same ones every time.
``SLIXMPP_BT_FUZZ=100000 pytest tests/fuzz``, the nightly setting, tries as many new ones as it says, or a tenth of it.
What was found once is kept in ``corpus.py``.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

USUAL = 2_000
#: How many examples of each kind.
COUNT = int(os.environ.get("SLIXMPP_BT_FUZZ", USUAL))

#: For what is tried :data:`COUNT` times.
thorough = settings(
    max_examples=COUNT,
    deadline=None,
    derandomize=COUNT <= USUAL,
    database=None,
    suppress_health_check=list(HealthCheck),
)
#: For what is tried a tenth as often.
cursory = settings(thorough, max_examples=max(1, COUNT // 10))
#: Seconds that a test of so many examples may take: more than any machine needs.
patient = pytest.mark.timeout(120 + COUNT // 10)
