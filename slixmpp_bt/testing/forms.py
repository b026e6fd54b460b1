"""Data forms (XEP-0004): only as much as configuring things takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from xml.etree.ElementTree import Element

from .markup import E

DATA = "{jabber:x:data}"


def form(form_type: str, values: Mapping[str, str | Iterable[str]], *, kind: str = "form") -> Element:
    """A form of the given FORM_TYPE whose fields have these values."""
    return E(
        f"{DATA}x", {"type": kind}, _field("FORM_TYPE", form_type, "hidden"), *(_field(*v) for v in values.items())
    )


def _field(name: str, value: str | Iterable[str], kind: str | None = None) -> Element:
    values = [value] if isinstance(value, str) else value
    return E(f"{DATA}field", {"var": name, "type": kind}, *(E(f"{DATA}value", None, text) for text in values))


def submitted(parent: Element | None) -> dict[str, list[str]] | None:
    """The fields of the form in `parent` and their values, without FORM_TYPE; None without a submitted form."""
    found = parent.find(f"{DATA}x") if parent is not None else None
    if found is None or found.get("type") != "submit":
        return None
    values = {
        field.get("var", ""): [value.text or "" for value in field.findall(f"{DATA}value")]
        for field in found.findall(f"{DATA}field")
    }
    values.pop("FORM_TYPE", None)
    return values


def flag(values: list[str]) -> bool:
    """A boolean field (XEP-0004 section 3.3)."""
    return bool(values) and values[0] in ("1", "true")
