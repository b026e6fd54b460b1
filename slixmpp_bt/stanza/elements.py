"""The payloads as slixmpp's stanza elements: ``iq["bt_accept"]`` and so on."""

from __future__ import annotations

from typing import ClassVar

from slixmpp.stanza import Iq, Message
from slixmpp.xmlstream import ElementBase, register_stanza_plugin

from ..constants import NS


class Payload(ElementBase):
    """A child of a stanza that carries one message. The attributes are text here; :func:`find` checks them."""

    name = "payload"
    namespace = NS
    plugin_attrib = "bt_payload"
    interfaces: ClassVar[set[str]] = {"id", "transfer"}


class Torrent(Payload):
    """An offer: a source in a ``<file-sharing/>`` (XEP-0447) that is a child of a message or a PubSub item.

    .. code-block:: xml

        <file-sharing xmlns='urn:xmpp:sfs:0' disposition='attachment' id='offer-1'>
          <file xmlns='urn:xmpp:file:metadata:0'>
            <name>holiday.mp4</name>
            <size>1073741824</size>
            <media-type>video/mp4</media-type>
            <desc>The lake, on Sunday</desc>
            <date>2026-06-14T18:30:00Z</date>
          </file>
          <sources>
            <torrent xmlns='https://slixmpp-bt.readthedocs.io/protocol/0' mode='private' expires='2026-11-28T07:00:00Z'>
              <info>ZDQ6bmFtZTExOmhvbGlkYXkubXA0ZQ==</info>
            </torrent>
          </sources>
        </file-sharing>

    Where the info dict is too large, ``<info hash='…' length='…'/>`` gives its SHA-256 in hexadecimal and its bytes.
    With ``delegate='true'`` receivers that have everything may admit others.
    """

    name = "torrent"
    plugin_attrib = "bt_torrent"
    interfaces: ClassVar[set[str]] = {"mode", "expires", "delegate"}


class Withdraw(Payload):
    """The offer is void. A child of a message.

    .. code-block:: xml

        <withdraw xmlns='https://slixmpp-bt.readthedocs.io/protocol/0' id='offer-1'/>
    """

    name = "withdraw"
    plugin_attrib = "bt_withdraw"
    interfaces: ClassVar[set[str]] = {"id"}


class Seek(Payload):
    """Asks all devices of the sender which of them has the offer. A child of a message of type ``headline``.

    .. code-block:: xml

        <seek xmlns='https://slixmpp-bt.readthedocs.io/protocol/0' id='offer-1'/>
    """

    name = "seek"
    plugin_attrib = "bt_seek"
    interfaces: ClassVar[set[str]] = {"id"}


class Here(Payload):
    """Whoever has the offer says so to who sought it. An iq of type ``set``.

    .. code-block:: xml

        <here xmlns='https://slixmpp-bt.readthedocs.io/protocol/0' id='offer-1'/>
    """

    name = "here"
    plugin_attrib = "bt_here"
    interfaces: ClassVar[set[str]] = {"id"}


class Accept(Payload):
    """The receiver wants it. An iq of type ``set``. Without ``<select/>`` all files are wanted; ``<request/>`` asks for
    a certificate of a sealed offer.

    .. code-block:: xml

        <accept xmlns='https://slixmpp-bt.readthedocs.io/protocol/0' id='offer-1' transfer='t-1' inline='5000'>
          <candidate address='2001:db8::7' port='6881'/>
          <route>swarm</route>
          <route>in-band</route>
          <select>0-3 7 9-12</select>
          <request>MIGzMFsCAQAwADBZMBM=</request>
        </accept>
    """

    name = "accept"
    plugin_attrib = "bt_accept"
    interfaces: ClassVar[set[str]] = {"id", "transfer", "inline"}


class Accepted(Payload):
    """The result of an :class:`Accept`. ``<content/>`` is all that was wanted, where it was small; each ``<route/>`` is
    one by which the sender can and may serve, all of them if none is named.

    .. code-block:: xml

        <accepted xmlns='https://slixmpp-bt.readthedocs.io/protocol/0' id='offer-1' transfer='t-1' report='10'>
          <candidate address='198.51.100.4' port='6881'/>
          <peers>
            <candidate address='2001:db8::9' port='51413'/>
          </peers>
          <share index='1' count='4'/>
          <route>swarm</route>
          <route>in-band</route>
          <certificate>MIIBXzCCAQWgAwIBAgI=</certificate>
          <content>aGVsbG8=</content>
        </accepted>
    """

    name = "accepted"
    plugin_attrib = "bt_accepted"
    interfaces: ClassVar[set[str]] = {"id", "transfer", "report"}


class Meta(Payload):
    """Asks for a part of the info dict. An iq of type ``get``.

    .. code-block:: xml

        <meta xmlns='https://slixmpp-bt.readthedocs.io/protocol/0' id='offer-1' transfer='t-1'
              offset='6000' length='6000'/>
    """

    name = "meta"
    plugin_attrib = "bt_meta"
    interfaces: ClassVar[set[str]] = {"id", "transfer", "offset", "length"}


class Chunk(Payload):
    """The result of a :class:`Meta`.

    .. code-block:: xml

        <chunk xmlns='https://slixmpp-bt.readthedocs.io/protocol/0' id='offer-1' offset='6000'>ZWVl</chunk>
    """

    name = "chunk"
    plugin_attrib = "bt_chunk"
    interfaces: ClassVar[set[str]] = {"id", "offset"}


class Fetch(Payload):
    """Asks for blocks of 16 KiB over a stream. An iq of type ``set``. The receiver lets exactly the stream `sid` be
    opened; ``<relay/>`` names proxies (XEP-0065) that it found on its own server.

    .. code-block:: xml

        <fetch xmlns='https://slixmpp-bt.readthedocs.io/protocol/0' id='offer-1' transfer='t-1' sid='s-1' kind='relay'>
          <layers>0-1</layers>
          <blocks>0-15 48 52-63</blocks>
          <relay jid='proxy.example.org' host='198.51.100.9' port='7777'/>
        </fetch>
    """

    name = "fetch"
    plugin_attrib = "bt_fetch"
    interfaces: ClassVar[set[str]] = {"id", "transfer", "sid", "kind"}


class Fetching(Payload):
    """The result of a :class:`Fetch`: so many bytes will come over the stream, which the sender opens now.

    .. code-block:: xml

        <fetching xmlns='https://slixmpp-bt.readthedocs.io/protocol/0' id='offer-1' transfer='t-1' length='475136'/>
    """

    name = "fetching"
    plugin_attrib = "bt_fetching"
    interfaces: ClassVar[set[str]] = {"id", "transfer", "length"}


class Peers(Payload):
    """Other addresses of the swarm that came and went. An iq of type ``set``.

    .. code-block:: xml

        <peers xmlns='https://slixmpp-bt.readthedocs.io/protocol/0' id='offer-1' transfer='t-1'>
          <joined address='2001:db8::9' port='51413'/>
          <left address='203.0.113.5' port='6881'/>
          <share index='0' count='3'/>
        </peers>
    """

    name = "peers"
    plugin_attrib = "bt_peers"


class Report(Payload):
    """How far the receiver has come, in bytes. An iq of type ``set``.

    .. code-block:: xml

        <report xmlns='https://slixmpp-bt.readthedocs.io/protocol/0' id='offer-1' transfer='t-1' had='300' total='900'>
          <by route='swarm' bytes='280'/>
          <by route='in-band' bytes='20'/>
        </report>
    """

    name = "report"
    plugin_attrib = "bt_report"
    interfaces: ClassVar[set[str]] = {"id", "transfer", "had", "total"}


class End(Payload):
    """It is over: ``complete``, ``cancel`` or ``decline``, with a reason of XEP-0166. An iq of type ``set``.

    .. code-block:: xml

        <end xmlns='https://slixmpp-bt.readthedocs.io/protocol/0' id='offer-1' transfer='t-1'
             kind='cancel' reason='media-error'>
          <text>The file was changed.</text>
        </end>

    With ``kind='complete'``, ``seeding='3600'`` says that the receiver goes on serving others for so many seconds.
    """

    name = "end"
    plugin_attrib = "bt_end"
    interfaces: ClassVar[set[str]] = {"id", "transfer", "kind", "reason", "seeding", "text"}
    sub_interfaces: ClassVar[set[str]] = {"text"}


class Delegate(Payload):
    """The sender lets a receiver that has everything admit others. An iq of type ``set``. ``<key/>`` is there for a
    sealed offer only: the private key of its certificate authority, sealed to the receiver.

    .. code-block:: xml

        <delegate xmlns='https://slixmpp-bt.readthedocs.io/protocol/0' id='offer-1' transfer='t-1'>
          <key>BHfY2mXv8Q==</key>
        </delegate>
    """

    name = "delegate"
    plugin_attrib = "bt_delegate"
    interfaces: ClassVar[set[str]] = {"id", "transfer"}


def register() -> None:
    """Make the payloads known to slixmpp, as ``iq["bt_accept"]`` and so on. Once is enough; again does no harm."""
    register_stanza_plugin(Message, Withdraw)
    register_stanza_plugin(Message, Seek)
    for payload in (Here, Accept, Accepted, Meta, Chunk, Fetch, Fetching, Peers, Report, End, Delegate):
        register_stanza_plugin(Iq, payload)
