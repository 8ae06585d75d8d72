"""`septet logs`: a function's kept output, and what comes."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

from septet.cli.options import Session, function_argument, parse_duration, with_session
from septet.cli.output import clean, clock, style


@click.command(
    epilog="\b\nExamples:\n  septet logs hello --tail 20\n  septet logs hello -f --since 5m\n"
    "  septet logs hello --invocation ID -o json"
)
@function_argument
@click.option("-f", "--follow", is_flag=True, help="Go on as lines come, until Ctrl-C.")
@click.option("--since", metavar="TIME", help="Only of the last 30s, 5m, 2h.")
@click.option("--tail", type=click.IntRange(min=0), default=0, help="Only the last so many lines.")
@click.option("--revision", metavar="NAME", default="", help="Only of this revision.")
@click.option("--instance", metavar="ID", default="", help="Only of this instance.")
@click.option("--invocation", metavar="ID", default="", help="Only of this call.")
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="json: one line each.",
)
@with_session
def command(session: Session, name: str, follow: bool, since: str | None, form: str, **filters: Any) -> None:
    """Show or follow a function's output."""
    query = dict(filters)
    if since:
        query["since"] = f"{time.time() - parse_duration(since):.3f}"
    if follow:
        query["follow"] = "true"
    path = session.path("functions", name, "logs")
    for line in session.client.lines(path, **query):
        click.echo(json.dumps(line, ensure_ascii=False) if form == "json" else text_of(line))


def text_of(line: dict[str, Any]) -> str:
    """One line: time, instance, text; what the platform itself says stands out."""
    colour = {"stderr": "yellow", "platform": "cyan"}.get(line["stream"])
    text = clean(line["text"])
    return f"{clock(line['at'])} {clean(line['instance'])[:12]} {style(text, colour, sys.stdout) if colour else text}"
