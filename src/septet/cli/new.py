"""`septet new`: a working function, a test of it, and its septet.yaml."""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from septet.cli.failures import Exit, Failure
from septet.cli.output import note

MARK = "__NAME__"


def templates() -> dict[str, Traversable]:
    """The template folders by runtime."""
    return {
        entry.name: entry
        for entry in files("septet.cli").joinpath("templates").iterdir()
        if entry.is_dir() and not entry.name.startswith("_")
    }


@click.command(
    epilog="\b\nExamples:\n  septet new --runtime python hello\n  septet new --runtime node api --into services/api\n"
    "  septet new --list"
)
@click.argument("name", required=False)
@click.option("--runtime", metavar="NAME", help="The language or kind; --list shows them.")
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), help="The folder to write.  [default: NAME]")
@click.option("--list", "show", is_flag=True, help="List the runtimes that have a template.")
def command(name: str | None, runtime: str | None, into: Path | None, show: bool) -> None:
    """Write a working function with a test and a septet.yaml into a new folder."""
    known = templates()
    if show:
        click.echo("\n".join(sorted(known)))
        return
    if not name or not runtime:
        raise Failure("name the function and its runtime", hint="septet new --runtime python hello", code=Exit.USAGE)
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name):
        raise Failure(
            f"{name!r} is not a good name for a folder and an address",
            hint="use small letters, digits and dashes, 63 at most",
            code=Exit.USAGE,
        )
    if runtime not in known:
        raise Failure(
            f"there is no template for {runtime!r}", hint=f"there are: {', '.join(sorted(known))}", code=Exit.USAGE
        )
    folder = into or Path(name)
    if folder.exists() and any(folder.iterdir()):
        raise Failure(f"{folder} is there already", hint="name another with --into", code=Exit.CONFLICT)
    for path in write(known[runtime], folder, name):
        click.echo(str(path))
    note(f"next: cd {folder} && septet deploy && septet invoke {name} -d world")


def write(template: Traversable, folder: Path, name: str) -> list[Path]:
    """Copies a template, with the function's name filled in; returns the files written. Scripts stay executable."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for entry in sorted(template.iterdir(), key=lambda item: item.name):
        if entry.name == "__pycache__":
            continue
        target = folder / entry.name
        if entry.is_dir():
            written += write(entry, target, name)
            continue
        text = entry.read_text("utf-8").replace(MARK, name)
        target.write_text(text, "utf-8")
        if text.startswith("#!"):
            target.chmod(0o755)
        written.append(target)
    return written
