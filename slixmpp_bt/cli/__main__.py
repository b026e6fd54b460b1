"""``python -m slixmpp_bt.cli``."""

import sys

from . import main

sys.exit(main())
