"""`septet delete`: functions go, with their revisions, instances and logs."""

from __future__ import annotations

import click

from septet.cli.failures import Exit, Failure
from septet.cli.options import Session, complete_functions, confirm, with_session, with_yes
from septet.cli.output import note


@click.command(epilog="\b\nExamples:\n  septet delete hello\n  septet delete hello other --yes")
@click.argument("names", nargs=-1, required=True, shell_complete=complete_functions)
@click.option("--ignore-missing", is_flag=True, help="One that is not there is no error.")
@with_yes
@with_session
def command(session: Session, names: tuple[str, ...], ignore_missing: bool, yes: bool) -> None:
    """Delete functions, with their revisions, instances and logs."""
    confirm(f"delete {', '.join(names)} in namespace {session.namespace}?", yes)
    for name in names:
        try:
            session.client.delete(session.path("functions", name))
        except Failure as failure:
            if failure.code == Exit.NOT_FOUND and ignore_missing:
                note(f"{name} is not there")
                continue
            raise
        note(f"{name} deleted")
