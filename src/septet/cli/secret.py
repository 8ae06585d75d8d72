"""`septet secret`: named sets of keys for functions; values go in and never come out."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import click

from septet.cli.deploy import key_value
from septet.cli.failures import Exit, Failure
from septet.cli.options import Session, confirm, with_output, with_session, with_yes
from septet.cli.output import age, note, show_list


@click.group()
def command() -> None:
    """Keep secrets for functions. Values can be set, never read back."""


@command.command(
    "set",
    epilog="\b\nExamples:\n  septet secret set db password=-  < password.txt\n"
    "  septet secret set db user=app --from-file ca=ca.pem",
)
@click.argument("name")
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--from-file", "files", multiple=True, metavar="KEY=PATH", help="The value is the file's bytes; repeatable."
)
@with_session
def set_(session: Session, name: str, pairs: tuple[str, ...], files: tuple[str, ...]) -> None:
    """Make a secret, or replace all its keys. KEY=- reads the value from standard input.

    A value on the command line can be seen in the list of processes: prefer KEY=- or --from-file.
    """
    if sum(1 for pair in pairs if pair.endswith("=-")) > 1:
        raise Failure("only one key can come from standard input", code=Exit.USAGE)
    data = {key: read_value(value) for key, value in (key_value(pair, "a secret") for pair in pairs)}
    data.update({key: read_file(path) for key, path in (key_value(pair, "--from-file") for pair in files)})
    if not data:
        raise Failure(
            "a secret needs at least one key", hint="KEY=VALUE, KEY=- or --from-file KEY=PATH", code=Exit.USAGE
        )
    body = {"data": {key: base64.b64encode(value).decode() for key, value in data.items()}}
    session.client.put(session.path("secrets", name), body)
    note(f"secret {name} has the keys {', '.join(sorted(data))}")


def read_value(value: str) -> bytes:
    """The value's bytes; of standard input without its last newline, which nobody means."""
    if value != "-":
        return value.encode()
    return sys.stdin.buffer.read().removesuffix(b"\n")


def read_file(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}", code=Exit.USAGE) from None


def keys_of(item: dict[str, Any]) -> list[str]:
    """The key names of a secret as the API shows it."""
    return sorted(item.get("keys") or [])


@command.command("list", epilog="\b\nExample:\n  septet secret list")
@with_output
@with_session
def list_(session: Session, form: str) -> None:
    """List secrets with the names of their keys."""
    columns: dict[str, Any] = {
        "NAME": lambda item: item["meta"]["name"],
        "KEYS": lambda item: ", ".join(keys_of(item)),
        "AGE": lambda item: age(item["meta"].get("created_at", 0)),
    }
    show_list(
        list(session.client.items(session.path("secrets"))),
        form,
        columns,
        empty="no secrets; `septet secret set` makes one",
    )


@command.command("delete", epilog="\b\nExample:\n  septet secret delete db --yes")
@click.argument("name")
@with_yes
@with_session
def delete(session: Session, name: str, yes: bool) -> None:
    """Delete a secret. Instances that have it keep it until they end."""
    confirm(f"delete the secret {name} in namespace {session.namespace}?", yes)
    session.client.delete(session.path("secrets", name))
    note(f"secret {name} deleted")
