"""XML as it travels in a stream: an incremental parser with limits, a serialiser, and a builder.

Stanzas are `xml.etree.ElementTree` elements throughout. Inside the server every stanza is in ``jabber:client``,
whichever stream it came from. Written without a declaration for that namespace it is right in any stream, because there
the stream header has declared the default (RFC 6120 section 4.8.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

CLIENT = "jabber:client"
COMPONENT = "jabber:component:accept"
STREAMS = "http://etherx.jabber.org/streams"
XML = "http://www.w3.org/XML/1998/namespace"

MESSAGE, PRESENCE, IQ = (f"{{{CLIENT}}}{name}" for name in ("message", "presence", "iq"))

#: How deeply elements may be nested in a stanza. No extension in use comes near it; recursion here relies on it.
MAX_DEPTH = 100


class StreamError(Exception):
    """Something that ends a stream: a defined condition of RFC 6120 section 4.9.3, and a text for people."""

    def __init__(self, condition: str, text: str = "") -> None:
        super().__init__(text or condition)
        self.condition = condition
        self.text = text


@dataclass(frozen=True, slots=True)
class StreamStart:
    """The other side's stream header."""

    tag: str
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The other side's closing tag."""


Event = StreamStart | Element | StreamEnd


class StreamParser:
    """Makes events of the bytes of one stream: its start, each child of the root as an element, its end.

    :param max_stanza: the largest stanza, in bytes as received, whether or not it is complete yet.
    :param namespace: the stream's default namespace; stanzas in it become ``jabber:client``.
    """

    def __init__(self, max_stanza: int, namespace: str = CLIENT) -> None:
        self._max_stanza = max_stanza
        self._namespace = namespace
        self._depth = 0
        self._fed = 0
        self._began = 0
        #: Bytes in which expat found nothing to call back for: a tag that does not end.
        self._unfinished = 0
        self._builder = TreeBuilder()
        self._events: list[Event] = []
        # UTF-8 whatever the declaration says (RFC 6120 section 11.6); "}" makes half of the Clark notation.
        self._expat = expat.ParserCreate("utf-8", "}")
        self._expat.buffer_text = True
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._expat.CharacterDataHandler = self._text
        self._expat.StartDoctypeDeclHandler = self._restricted
        self._expat.CommentHandler = self._restricted
        self._expat.ProcessingInstructionHandler = self._restricted
        # Newer versions of expat may sit on a tag that came in two parts until much more has come.
        if hasattr(self._expat, "SetReparseDeferralEnabled"):
            self._expat.SetReparseDeferralEnabled(False)

    def feed(self, data: bytes) -> Iterator[Event]:
        """Everything that `data` completes.

        :raises StreamError: after what was complete before it: not well-formed, too large, too deep, or XML that has no
            place in a stream (RFC 6120 section 11.1).
        """
        failure = None
        self._fed += len(data)
        self._unfinished += len(data)
        try:
            self._expat.Parse(data, False)
        except expat.ExpatError as error:
            failure = StreamError("not-well-formed", str(error))
        except StreamError as error:
            failure = error
        events, self._events = self._events, []
        yield from events
        pending = self._fed - self._began if self._depth > 1 else self._unfinished
        if failure is None and pending > self._max_stanza:
            failure = self._too_large()
        if failure is not None:
            raise failure

    def _too_large(self) -> StreamError:
        return StreamError("policy-violation", f"a stanza may have {self._max_stanza} bytes")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._unfinished = 0
        if self._depth == 1:
            self._events.append(StreamStart(_clark(name), {_clark(k): v for k, v in attributes.items()}))
            return
        if self._depth == 2:
            self._began = self._expat.CurrentByteIndex
        elif self._depth > MAX_DEPTH:
            raise StreamError("policy-violation", f"elements may be nested {MAX_DEPTH} deep")
        self._builder.start(_clark(name), {_clark(k): v for k, v in attributes.items()})

    def _end(self, name: str) -> None:
        self._depth -= 1
        self._unfinished = 0
        if self._depth == 0:
            self._events.append(StreamEnd())
            return
        tag = _clark(name)
        self._builder.end(tag)
        if self._depth == 1:
            # The index is where the closing tag begins.
            if self._expat.CurrentByteIndex - self._began + len(local_name(tag)) + 3 > self._max_stanza:
                raise self._too_large()
            stanza = self._builder.close()
            self._builder = TreeBuilder()
            if self._namespace != CLIENT:
                _rename(stanza, f"{{{self._namespace}}}")
            self._events.append(stanza)

    def _text(self, data: str) -> None:
        self._unfinished = 0
        if self._depth > 1:
            self._builder.data(data)
        elif data.strip():
            raise StreamError("bad-format", "text between stanzas")

    def _restricted(self, *_: object) -> None:
        raise StreamError("restricted-xml")


def _clark(name: str) -> str:
    return "{" + name if "}" in name else name


def _rename(element: Element, prefix: str) -> None:
    """Move `element`, and what inherited its namespace from it, from the stream's namespace to ``jabber:client``."""
    if element.tag.startswith(prefix):
        element.tag = f"{{{CLIENT}}}{element.tag[len(prefix) :]}"
        for child in element:
            _rename(child, prefix)


def serialise(element: Element) -> bytes:
    """`element` as it stands in a stream whose default namespace is ``jabber:client`` (or stands for it)."""
    out: list[str] = []
    _write(element, CLIENT, out)
    return "".join(out).encode()


def _write(element: Element, inherited: str, out: list[str]) -> None:
    namespace, name = split(element.tag)
    out.append(f"<{name}")
    if namespace != inherited:
        out.append(f' xmlns="{_escape_attribute(namespace)}"')
    for number, (key, value) in enumerate(element.attrib.items()):
        out.append(_attribute(key, value, number))
    if not len(element) and not element.text:
        out.append("/>")
    else:
        out.append(">")
        out.append(_escape(element.text))
        for child in element:
            _write(child, namespace, out)
            out.append(_escape(child.tail))
        out.append(f"</{name}>")


def _attribute(key: str, value: str, number: int) -> str:
    value = _escape_attribute(value)
    if not key.startswith("{"):
        return f' {key}="{value}"'
    namespace, name = split(key)
    if namespace == XML:
        return f' xml:{name}="{value}"'
    return f' xmlns:a{number}="{_escape_attribute(namespace)}" a{number}:{name}="{value}"'


def _escape(text: str | None) -> str:
    if not text:
        return ""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")


def _escape_attribute(text: str) -> str:
    return _escape(text).replace('"', "&quot;").replace("\n", "&#10;").replace("\t", "&#9;")


def split(tag: str) -> tuple[str, str]:
    """Namespace (empty for none) and local name of a tag in Clark notation."""
    namespace, _, name = tag.rpartition("}")
    return namespace[1:], name


def local_name(tag: str) -> str:
    """The name without its namespace."""
    return tag.rpartition("}")[2]


def E(tag: str, attributes: Mapping[str, str | None] | None = None, *content: Element | str) -> Element:
    """An element: `tag` in Clark notation, attributes (those that are None left out), then children and text."""
    element = Element(tag, {k: v for k, v in (attributes or {}).items() if v is not None})
    for part in content:
        if not isinstance(part, str):
            element.append(part)
        elif len(element):
            element[-1].tail = (element[-1].tail or "") + part
        else:
            element.text = (element.text or "") + part
    return element
