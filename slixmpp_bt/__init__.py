"""File transfer for slixmpp: XMPP agrees on it, BitTorrent carries it.

Importing this package makes the plugin known to slixmpp under the name ``xep_bt``.
"""

from slixmpp.plugins.base import register_plugin

from .config import Config, Limits
from .constants import Mode, Route, State
from .errors import (
    BackendUnavailable,
    BTError,
    Cancelled,
    ConfigError,
    Declined,
    Expired,
    IntegrityError,
    LimitExceeded,
    NoRoute,
    NotSupported,
    PathError,
    PeerGone,
    PeerNotFound,
    ProtocolError,
    SourceChanged,
    StateError,
    StorageError,
    TransferError,
)
from .incoming import IncomingOffer
from .outgoing import OutgoingOffer
from .plugin import XEP_BT, get_plugin
from .progress import Progress
from .transfer import Transfer

__version__ = "0.1.0"

#: For ``register_plugin("xep_bt", module=slixmpp_bt)``.
xep_bt = XEP_BT

register_plugin(XEP_BT)

__all__ = [
    "XEP_BT",
    "BTError",
    "BackendUnavailable",
    "Cancelled",
    "Config",
    "ConfigError",
    "Declined",
    "Expired",
    "IncomingOffer",
    "IntegrityError",
    "LimitExceeded",
    "Limits",
    "Mode",
    "NoRoute",
    "NotSupported",
    "OutgoingOffer",
    "PathError",
    "PeerGone",
    "PeerNotFound",
    "Progress",
    "ProtocolError",
    "Route",
    "SourceChanged",
    "State",
    "StateError",
    "StorageError",
    "Transfer",
    "TransferError",
    "__version__",
    "get_plugin",
    "xep_bt",
]
