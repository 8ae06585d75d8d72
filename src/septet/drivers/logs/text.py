"""Text from functions and callers, made harmless, and names as names of files."""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

Struct = TypeVar("Struct", bound=msgspec.Struct)


def printable(text: str) -> str:
    """The text with control characters spelled out, so that no line can forge another or move a terminal's cursor."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode("ascii") for c in text)


def bounded(text: str, most: int) -> str:
    """The text made printable, and cut to `most` characters."""
    shown = printable(text[:most])
    return shown if len(text) <= most and len(shown) <= most else shown[:most] + " ... (cut)"


def all_printable(struct: Struct, most: int) -> Struct:
    """The same with every text `bounded`."""
    changes: dict[str, Any] = {}
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if isinstance(value, str) and (len(value) > most or not value.isprintable()):
            changes[name] = bounded(value, most)
    return msgspec.structs.replace(struct, **changes) if changes else struct


def folder_name(name: str) -> str:
    """A file name for any name, never a dot name; what is too long for a file system is named by its digest."""
    safe = "%" + quote(name, safe="", errors="backslashreplace")
    if len(safe) > 200:
        return "%%" + hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()
    return safe
