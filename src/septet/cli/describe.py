"""`septet describe`: first whether the function can be called now, then everything else."""

from __future__ import annotations

from typing import Any

import click

from septet.cli.options import Session, function_argument, with_output, with_session
from septet.cli.output import age, clean, show_value, style, table
from septet.cli.rollout import first_line


@click.command(epilog="\b\nExamples:\n  septet describe hello\n  septet describe hello -o json")
@function_argument
@with_output
@with_session
def command(session: Session, name: str, form: str) -> None:
    """Say whether a function can be called now (yes, warm; yes, frozen; yes, cold; no, because), and all about it."""
    summary = session.client.get(session.path("functions", name, "summary"))
    show_value(summary, form, text=text_of(summary, name), name=name)


def text_of(summary: dict[str, Any], name: str) -> str:
    """The summary for people."""
    colour = "green" if summary.get("callable") else "red"
    parts = [style(f"{name}: can it be called now? {first_line(str(summary.get('answer') or ''))}", colour)]
    parts += [f"  {clean(url)}" for url in summary.get("urls") or []]
    facts = {key: summary[key] for key in ("namespace", "runtime", "access", "limits") if summary.get(key)}
    facts |= {key: summary[key] for key in ("frozen", "zygotes") if summary.get(key)}
    if facts:
        parts.append("")
        parts += [f"{key + ':':<12}{clean(fact(value))}" for key, value in facts.items()]
    parts += section("REVISIONS", REVISION_COLUMNS, summary.get("revisions") or [])
    parts += section("INSTANCES", INSTANCE_COLUMNS, summary.get("instances") or [])
    parts += section("CONDITIONS", CONDITION_COLUMNS, summary.get("conditions") or [])
    return "\n".join(parts)


def fact(value: object) -> str:
    """A value in words: mappings as `memory 128, cpu 1.0`."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)


def section(title: str, columns: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    return ["", title, table(list(columns), [[cell(row) for cell in columns.values()] for row in rows])]


def truth(value: object) -> str:
    return "unknown" if value is None else "yes" if value is True else "no" if value is False else str(value)


REVISION_COLUMNS = {
    "NAME": lambda r: r.get("name", ""),
    "PHASE": lambda r: r.get("phase", ""),
    "TRAFFIC": lambda r: f"{r['percent']}%" if r.get("percent") else "",
    "TAGS": lambda r: ", ".join(r.get("tags") or []),
    "AGE": lambda r: age(r.get("created_at", 0)),
}
INSTANCE_COLUMNS = {
    "ID": lambda i: i.get("id", ""),
    "REVISION": lambda i: i.get("revision", ""),
    "STATE": lambda i: i.get("state", ""),
    "DRIVER": lambda i: i.get("driver", ""),
    "AGE": lambda i: age(i.get("started_at", 0)),
}
CONDITION_COLUMNS = {
    "TYPE": lambda c: c.get("type", ""),
    "STATUS": lambda c: truth(c.get("status")),
    "REASON": lambda c: c.get("reason", ""),
    "MESSAGE": lambda c: first_line(c.get("message") or ""),
}
