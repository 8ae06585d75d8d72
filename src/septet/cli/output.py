"""How data is shown: a table for people, JSON, YAML or names for programs. Standard output is data alone."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import click

Format = Literal["table", "json", "yaml", "name"]
FORMATS = ("table", "json", "yaml", "name")


def clean(value: object) -> str:
    """Text for a terminal: control characters, which could steer it, become visible escapes."""
    text = "" if value is None else str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def colour_wanted(stream: Any) -> bool:
    """Whether `stream` takes colour: a terminal that is not dumb, and nobody said NO_COLOR."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()


def style(text: str, colour: str, stream: Any = None) -> str:
    """`text` in a colour where colour is wanted."""
    return click.style(text, fg=colour) if colour_wanted(stream or sys.stdout) else text


def note(message: str = "") -> None:
    """Progress, ids and hints: one line on standard error."""
    click.echo(message, err=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns padded to their widest cell, two blanks apart, no trailing blanks."""
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(columns)]
    lines = [list(columns), *cells]
    return "\n".join("  ".join(cell.ljust(widths[i]) for i, cell in enumerate(line)).rstrip() for line in lines)


def as_yaml(value: object) -> str:
    """YAML in the order given, without aliases."""
    import yaml

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return str(yaml.dump(value, Dumper=Plain, sort_keys=False, allow_unicode=True)).rstrip("\n")


def show_value(value: object, form: str, *, text: str = "", name: str = "") -> None:
    """One value on standard output: as `text` for a table, or in the other formats."""
    if form == "json":
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
    elif form == "yaml":
        click.echo(as_yaml(value))
    elif form == "name":
        click.echo(name)
    else:
        click.echo(text)


def show_list(
    items: Sequence[Mapping[str, Any]],
    form: str,
    columns: Mapping[str, Any],
    *,
    empty: str,
) -> None:
    """A list on standard output. `columns` maps a heading to a function of one item; the name is meta.name.

    An empty table is no data: `empty` then says on standard error what could be done.
    """
    if form in ("json", "yaml"):
        show_value(list(items), form)
    elif form == "name":
        for item in items:
            click.echo(clean(name_of(item)))
    elif items:
        click.echo(table(list(columns), [[cell(item) for cell in columns.values()] for item in items]))
    elif empty:
        note(empty)


def name_of(item: Mapping[str, Any]) -> str:
    """The name of an object of the API, or of something plain that has one."""
    meta = item.get("meta")
    return str(meta["name"]) if isinstance(meta, Mapping) else str(item.get("name") or item.get("id") or "")


def age(at: float, now: float | None = None) -> str:
    """How long ago, in one or two units: 5s, 12m, 3h, 9d; empty for a time that is not set."""
    if not at:
        return ""
    seconds = max(0.0, (time.time() if now is None else now) - at)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def clock(at: float) -> str:
    """A time of day for people, local, with seconds."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at else ""


def condition(item: Mapping[str, Any], kind: str = "Ready") -> tuple[str, str]:
    """(state, why) of one condition of an object: "yes", "no" or "unknown", and its reason and message."""
    for entry in (item.get("status") or {}).get("conditions") or []:
        if entry["type"] == kind:
            state = {True: "yes", False: "no", None: "unknown"}[entry.get("status")]
            return state, ": ".join(part for part in (entry.get("reason"), entry.get("message")) if part)
    return "unknown", ""
