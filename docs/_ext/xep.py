"""``.. xep:: FILE``: renders a specification written in the XML of the XEP series (XEP-0001, XEP-0143).

Knows the elements that such documents are made of: sections, paragraphs, lists, tables, examples, code, and inline
markup. What it does not know is an error, so that nothing is lost in silence.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_SECTIONS = {f"section{level}" for level in range(1, 5)}
_INLINE: dict[str, type[nodes.TextElement]] = {
    "em": nodes.emphasis,
    "strong": nodes.strong,
    "tt": nodes.literal,
    "code": nodes.literal,
}
_LISTS: dict[str, type[nodes.Element]] = {"ul": nodes.bullet_list, "ol": nodes.enumerated_list}


class XEP(SphinxDirective):
    """The directive. Its argument is a file beside the document."""

    required_arguments = 1
    has_content = False
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        relative, absolute = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(relative)
        root = ElementTree.parse(absolute).getroot()
        self._examples = 0
        header = root.find("header")
        assert header is not None, "a XEP has a header"
        return [*self._header(header), *(self._section(child) for child in root if child.tag in _SECTIONS)]

    def _header(self, header: Element) -> Iterator[nodes.Node]:
        yield nodes.paragraph("", "", nodes.emphasis("", _text(header.find("abstract"))))
        fields = nodes.field_list()
        revision = header.find("revision")
        assert revision is not None, "the first revision is the latest"
        for name, value in (
            ("Version", _text(revision.find("version"))),
            ("Date", _text(revision.find("date"))),
            ("Depends on", ", ".join(_text(spec) for spec in header.findall("dependencies/spec"))),
        ):
            fields += nodes.field("", nodes.field_name("", name), nodes.field_body("", nodes.paragraph("", value)))
        yield fields

    def _section(self, element: Element) -> nodes.section:
        anchor = element.get("anchor") or nodes.make_id(element.attrib["topic"])
        section = nodes.section(ids=[anchor], names=[anchor])
        section += nodes.title("", element.attrib["topic"])
        for child in element:
            section += self._block(child)
        return section

    def _block(self, element: Element) -> list[nodes.Node]:
        match element.tag:
            case tag if tag in _SECTIONS:
                return [self._section(element)]
            case "p":
                return [nodes.paragraph("", "", *_inline(element))]
            case "example":
                self._examples += 1
                caption = f"Example {self._examples}. {element.attrib['caption']}"
                return [nodes.rubric("", caption), _listing(element)]
            case "code":
                return [_listing(element)]
            case "ul" | "ol":
                return [_LISTS[element.tag]("", *(nodes.list_item("", *self._item(item)) for item in element))]
            case "dl":
                return [nodes.definition_list("", *(self._definition(item) for item in element))]
            case "table":
                return [_table(element)]
        raise self.error(f"an element that is not known here: <{element.tag}>")

    def _item(self, item: Element) -> list[nodes.Node]:
        if any(child.tag in ("p", "ul", "ol", "example") for child in item):
            return [node for child in item for node in self._block(child)]
        return [nodes.paragraph("", "", *_inline(item))]

    def _definition(self, item: Element) -> nodes.definition_list_item:
        term, words = item.find("dt"), item.find("dd")
        assert term is not None, "a <di/> has a <dt/>"
        assert words is not None, "a <di/> has a <dd/>"
        return nodes.definition_list_item(
            "", nodes.term("", "", *_inline(term)), nodes.definition("", *self._item(words))
        )


def _inline(element: Element) -> Iterator[nodes.Node]:
    if element.text:
        yield nodes.Text(_squeezed(element.text))
    for child in element:
        if child.tag == "link":
            yield nodes.reference("", _text(child), refuri=child.attrib["url"], internal=False)
        elif child.tag in _INLINE:
            yield _INLINE[child.tag]("", _text(child))
        else:
            raise ValueError(f"an inline element that is not known here: <{child.tag}>")
        if child.tail:
            yield nodes.Text(_squeezed(child.tail))


def _listing(element: Element) -> nodes.literal_block:
    return nodes.literal_block("", (element.text or "").strip("\n"), language="xml")


def _table(element: Element) -> nodes.table:
    rows = [[cell for cell in row if cell.tag in ("th", "td")] for row in element.findall("tr")]
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in rows[0]), cols=len(rows[0]))
    for part, lines in ((nodes.thead(), rows[:1]), (nodes.tbody(), rows[1:])):
        for cells in lines:
            part += nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *_inline(cell))) for cell in cells))
        group += part
    table = nodes.table("", group)
    if caption := element.get("caption"):
        table.insert(0, nodes.title("", caption))
    return table


def _text(element: Element | None) -> str:
    return "" if element is None else _squeezed("".join(element.itertext())).strip()


def _squeezed(text: str) -> str:
    """`text` with every run of white space as one space, at its ends too."""
    words = " ".join(text.split())
    return f"{' ' if text[:1].isspace() else ''}{words}{' ' if text[-1:].isspace() and words else ''}"


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("xep", XEP)
    return {"parallel_read_safe": True, "version": Path(__file__).name}
