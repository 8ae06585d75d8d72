"""`septet completion`: what a shell needs to complete our commands."""

from __future__ import annotations

import click


@click.command(
    epilog="\b\nExamples:\n  septet completion bash > /etc/bash_completion.d/septet\n"
    "  septet completion zsh > ~/.zfunc/_septet\n  septet completion fish > ~/.config/fish/completions/septet.fish"
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of a shell. Function names are completed too."""
    from click.shell_completion import get_completion_class

    from septet.cli.main import cli

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(cli, {}, "septet", "_SEPTET_COMPLETE").source())
