"""`septet`: the group of all verbs, and the one place where a failure becomes a line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

import septet
from septet.cli.failures import EXIT_MEANINGS, Exit, Failure
from septet.cli.lazy import LazyGroup
from septet.cli.output import style

VERBS: dict[str, tuple[str, str]] = {
    "up": ("Start the platform and keep serving.", "septet.cli.up"),
    "new": ("Write a working function with a test.", "septet.cli.new"),
    "deploy": ("Create or update functions from septet.yaml or flags.", "septet.cli.deploy"),
    "invoke": ("Call a function.", "septet.cli.invoke"),
    "list": ("List functions.", "septet.cli.list"),
    "describe": ("Say whether a function can be called now, and all about it.", "septet.cli.describe"),
    "logs": ("Show or follow a function's output.", "septet.cli.logs"),
    "delete": ("Delete functions.", "septet.cli.delete"),
    "scale": ("Set how many instances a function may have.", "septet.cli.scale"),
    "traffic": ("Show or split a function's traffic among its revisions.", "septet.cli.traffic"),
    "rollback": ("Move a function's traffic back to an earlier revision.", "septet.cli.rollback"),
    "revisions": ("List a function's revisions.", "septet.cli.revisions"),
    "secret": ("Keep secrets for functions.", "septet.cli.secret"),
    "namespace": ("Make, list and remove namespaces.", "septet.cli.namespace"),
    "token": ("Give and take back access.", "septet.cli.token"),
    "context": ("Choose which platform to talk to.", "septet.cli.context"),
    "doctor": ("Say what this host can do, and what is missing.", "septet.cli.doctor"),
    "backup": ("Save the platform's state to a file.", "septet.cli.backup"),
    "restore": ("Put a backup into an empty data folder.", "septet.cli.restore"),
    "service": ("Run the platform under systemd.", "septet.cli.service"),
    "completion": ("Print the completion script of a shell.", "septet.cli.completion"),
    "version": ("Show the version of this program and of the platform.", "septet.cli.version"),
}

EPILOG = (
    "\b\nExamples:\n  septet up\n  septet new --runtime python hello\n"
    "  septet deploy\n  septet invoke hello -d world\n\n"
    + "\b\nExit codes:\n"
    + "\n".join(f"  {code.value:>3}  {meaning}" for code, meaning in EXIT_MEANINGS.items())
)


@click.command(
    cls=LazyGroup,
    verbs=VERBS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(septet.__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Septet: deploy a function, call it, watch it scale.

    Data goes to standard output, progress and ids to standard error. Nothing is asked when there is no terminal.
    """


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; with --debug in SEPTET_DEBUG the trace is shown too."""
    try:
        result = cli.main(args=None if args is None else list(args), prog_name="septet", standalone_mode=False)
        return result if isinstance(result, int) else Exit.OK
    except Failure as failure:
        if os.environ.get("SEPTET_DEBUG"):
            raise
        return report(failure)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone (`septet list | head -1`); the interpreter must not trip over it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK


def report(failure: Failure) -> int:
    """Shows a failure on standard error and returns its exit code."""
    if failure.more:
        click.echo(failure.more.rstrip("\n"), err=True)
    click.echo(style("error: ", "red", sys.stderr) + str(failure).replace("\n", " "), err=True)
    return failure.code


def run() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    run()
