"""`septet version`: this program's, and the platform's when it answers."""

from __future__ import annotations

from typing import Any

import click

import septet
from septet.cli.failures import Exit, Failure
from septet.cli.options import Session, with_output, with_session
from septet.cli.output import clean, note, show_value


@click.command(epilog="\b\nExamples:\n  septet version\n  septet version --client -o json")
@click.option("--client", "client_only", is_flag=True, help="Do not ask the platform.")
@with_output
@with_session
def command(session: Session, client_only: bool, form: str) -> None:
    """Show the version of this program and of the platform."""
    answer: dict[str, Any] = {"client": septet.__version__}
    if not client_only:
        try:
            answer["server"] = session.client.get("/version")
        except Failure as failure:
            if failure.code != Exit.UNREACHABLE:
                raise
            note(f"platform: {failure}")
    lines = [f"client {septet.__version__}"]
    if "server" in answer:
        lines.append(f"server {clean(answer['server'].get('version', ''))} at {session.client.target.url}")
    show_value(answer, form, text="\n".join(lines), name=septet.__version__)
