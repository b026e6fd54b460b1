"""The state diagram of one side of a transfer, out of the transition table itself.

It is drawn like a circuit. Each phase is a box; each event that leads on is a line out of its right side, and
ends at the rail of the phase that it leads to (a dot marks the joint); the rail ends in that phase's box. So nothing
overlaps, whatever the table comes to hold, and a change of the table is a change of the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement

from slixmpp_bt.negotiation import TABLE, Event, Phase, Role, Rows

_ROW, _GAP, _BOX, _LETTER, _RAIL = 19, 14, 150, 6.7, 14


@dataclass(frozen=True, slots=True)
class Edge:
    """All events that lead from one phase to another."""

    source: Phase
    target: Phase
    events: tuple[Event, ...]

    @property
    def label(self) -> str:
        return ", ".join(self.events)


def phases(role: Role) -> tuple[Phase, ...]:
    """The phases of one side, the terminal ones last; in the order of their definition."""
    table = TABLE[role]
    return tuple(p for p in Phase if p in table or any(step.phase is p for r in table.values() for step in r.values()))


def edges(role: Role) -> tuple[Edge, ...]:
    """The transitions of one side."""
    return tuple(edge for source in phases(role) for edge in _edges(source, TABLE[role].get(source, {})))


def _edges(source: Phase, rows: Rows) -> Iterator[Edge]:
    for target in Phase:
        events = tuple(event for event, step in rows.items() if step.phase is target)
        if events:
            yield Edge(source, target, events)


def diagram(role: Role) -> Element:
    """The picture, as SVG in the colours of the text around it."""
    drawn, lines = phases(role), edges(role)
    rails = [phase for phase in drawn if any(edge.target is phase for edge in lines)]
    left = _BOX + 12 + max(len(edge.label) for edge in lines) * _LETTER
    tops, height = _tops(drawn, lines)
    width = left + len(rails) * _RAIL + 2
    svg = Element(
        "svg", {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {width:g} {height:g}", "role": "img"},
        width=f"{width:g}",
    )  # fmt: skip
    svg.set("style", "max-width: 100%; height: auto; font: 12px sans-serif")
    SubElement(svg, "title").text = f"The phases of the {role}'s side, and the events that lead from one to another"
    at = {phase: left + (index + 0.5) * _RAIL for index, phase in enumerate(rails)}
    joints: dict[Phase, list[float]] = {phase: [tops[phase] + _ROW / 2] for phase in rails}
    for phase in drawn:
        for index, edge in enumerate((e for e in lines if e.source is phase), start=1):
            y = tops[phase] + (index + 0.5) * _ROW
            joints[edge.target].append(y)
            _draw_edge(svg, edge, at[edge.target], y)
    for phase in rails:
        _draw_rail(svg, phase, at[phase], joints[phase])
    for phase in drawn:
        _draw_box(svg, phase, tops[phase], 1 + sum(edge.source is phase for edge in lines))
    return svg


def _tops(drawn: tuple[Phase, ...], lines: tuple[Edge, ...]) -> tuple[dict[Phase, float], float]:
    """Where each box begins, and where the last one ends."""
    tops: dict[Phase, float] = {}
    y = 1.0
    for phase in drawn:
        tops[phase] = y
        y += (1 + sum(edge.source is phase for edge in lines)) * _ROW + _GAP
    return tops, y - _GAP + 1


def _draw_edge(svg: Element, edge: Edge, rail: float, y: float) -> None:
    group = SubElement(svg, "g", {"class": "edge", "data-from": edge.source, "data-to": edge.target})
    _line(group, f"M {_BOX} {y:g} H {rail:g}", edge.target)
    SubElement(group, "circle", cx=f"{rail:g}", cy=f"{y:g}", r="2.5", fill="currentColor")
    text = SubElement(group, "text", x=f"{_BOX + 6}", y=f"{y - 3:g}", fill="currentColor")
    text.text = edge.label


def _draw_rail(svg: Element, phase: Phase, x: float, joints: list[float]) -> None:
    entry = joints[0]
    group = SubElement(svg, "g", {"class": "rail", "data-to": phase})
    _line(group, f"M {x:g} {min(joints):g} V {max(joints):g}", phase)
    _line(group, f"M {x:g} {entry:g} H {_BOX + 7}", phase)
    SubElement(group, "path", d=f"M {_BOX} {entry:g} l 8 -4 v 8 z", fill="currentColor")


def _line(group: Element, path: str, target: Phase) -> None:
    faint = {"stroke-dasharray": "3 2", "stroke-opacity": "0.6"} if target.state.terminal else {}
    SubElement(group, "path", {"d": path, "fill": "none", "stroke": "currentColor", **faint})


def _draw_box(svg: Element, phase: Phase, top: float, rows: int) -> None:
    group = SubElement(svg, "g", {"class": "phase", "data-phase": phase})
    size = {"x": "1", "y": f"{top:g}", "width": f"{_BOX - 1}", "height": f"{rows * _ROW}", "rx": "6"}
    thick = "2.5" if phase.state.terminal else "1.2"
    SubElement(group, "rect", {**size, "fill": "none", "stroke": "currentColor", "stroke-width": thick})
    words = {"x": f"{_BOX / 2:g}", "text-anchor": "middle", "fill": "currentColor", "font-weight": "bold"}
    SubElement(group, "text", words, y=f"{top + 14:g}").text = phase
    if rows > 1 and phase.state != phase:
        public = {"x": f"{_BOX / 2:g}", "text-anchor": "middle", "fill": "currentColor"}
        SubElement(group, "text", public, y=f"{top + 14 + _ROW:g}").text = f"({phase.state.name})"


def lines_of_table(role: Role) -> Iterator[tuple[str, str, str, str]]:
    """Every transition: phase, event, next phase, and what has to be done."""
    for source in phases(role):
        for event, step in TABLE[role].get(source, {}).items():
            yield source, event, step.phase, ", ".join(step.actions)
