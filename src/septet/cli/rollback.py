"""`septet rollback`: the pointer moves back; nothing is built or configured anew."""

from __future__ import annotations

import click

from septet.cli.list import traffic_words
from septet.cli.options import Session, function_argument, with_output, with_session
from septet.cli.output import note, show_value


@click.command(epilog="\b\nExamples:\n  septet rollback hello\n  septet rollback hello --to hello-00003")
@function_argument
@click.option("--to", "revision", metavar="REVISION", help="Where to.  [default: the one that served before]")
@with_output
@with_session
def command(session: Session, name: str, revision: str | None, form: str) -> None:
    """Move a function's traffic back to an earlier revision."""
    session.client.post(session.path("functions", name, "rollback"), {"revision": revision} if revision else {})
    function = session.client.get(session.path("functions", name))
    targets = [target for target in function["spec"]["traffic"] if target.get("percent")]
    now = ", ".join(target.get("revision") or "latest" for target in targets)
    note(f"{name}: traffic goes to {now}; the next deploy follows the latest again")
    show_value(function["spec"]["traffic"], form, text=now or traffic_words(function), name=now)
