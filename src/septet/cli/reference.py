"""The reference of the command line as Markdown, made from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator

import click

from septet.cli.failures import EXIT_MEANINGS
from septet.cli.main import cli

INTRODUCTION = """\
# The command line

This page is made from the commands by `scripts/generate`; a test keeps it current.

Data goes to standard output; progress, ids and hints go to standard error. `-o json` and `-o yaml` show the objects
of the API as they are, `-o name` one name a line. Colour only on a terminal, and never with `NO_COLOR`. Nothing is
asked when there is no terminal: what would ask wants `--yes` there.

Commands find the platform by `SEPTET_URL` and `SEPTET_TOKEN`; without them by the context named in `--context` or
`SEPTET_CONTEXT`, else by the current one, which the first `septet up` writes (`septet context`). Contexts stand in
`contexts.json` in the user's configuration folder (mode 0600), or in the file that `SEPTET_CONFIG` names.
`SEPTET_CA` names certificates to trust, `SEPTET_NAMESPACE` the namespace, and `SEPTET_DEBUG=1` shows the trace of
a failure.

## Exit codes

| code | meaning |
| --- | --- |
"""


def reference() -> str:
    """The whole page."""
    codes = "".join(f"| {code.value} | {meaning} |\n" for code, meaning in EXIT_MEANINGS.items())
    return INTRODUCTION + codes + "".join(_sections(cli, "septet", None))


def _sections(command: click.Command, path: str, parent: click.Context | None) -> Iterator[str]:
    # A fixed width: the page must not depend on the terminal of whoever makes it.
    context = click.Context(
        command, info_name=path.split()[-1], parent=parent, terminal_width=100, help_option_names=["-h", "--help"]
    )
    if parent is not None:
        help_text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        yield f"\n{'##' if path.count(' ') == 1 else '###'} {path}\n\n```text\n{help_text}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _sections(inner, f"{path} {name}", context)
