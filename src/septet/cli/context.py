"""`septet context`: which platform the client commands talk to."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import click

from septet.cli.contexts import Context, load_contexts, save_contexts
from septet.cli.failures import Exit, Failure
from septet.cli.options import with_output
from septet.cli.output import note, show_list


@click.group()
def command() -> None:
    """Choose which platform to talk to. `septet up` writes the context `local`."""


@command.command("list", epilog="\b\nExample:\n  septet context list")
@with_output
def list_(form: str) -> None:
    """List contexts, without their tokens."""
    known = load_contexts()
    items = [
        {
            **asdict(replace(entry, token="")),
            "name": name,
            "current": name == known.current,
            "has_token": bool(entry.token),
        }
        for name, entry in sorted(known.contexts.items())
    ]
    for item in items:
        del item["token"]
    columns: dict[str, Any] = {
        "CURRENT": lambda item: "*" if item["current"] else "",
        "NAME": lambda item: item["name"],
        "URL": lambda item: item["url"],
        "NAMESPACE": lambda item: item["namespace"],
    }
    show_list(items, form, columns, empty="no contexts; `septet up` writes one, or `septet context set`")


@command.command("use", epilog="\b\nExample:\n  septet context use prod")
@click.argument("name")
def use(name: str) -> None:
    """Make a context the one that commands use."""
    known = load_contexts()
    if name not in known.contexts:
        raise Failure(
            f"no context {name!r}",
            hint=f"there are: {', '.join(sorted(known.contexts)) or 'none yet'}",
            code=Exit.NOT_FOUND,
        )
    known.current = name
    save_contexts(known)
    note(f"commands now talk to {known.contexts[name].url}")


@command.command(
    "set", epilog="\b\nExample:\n  septet context set prod --url https://functions.example.com --token-file token"
)
@click.argument("name")
@click.option("--url", help="http://HOST:PORT, https://HOST:PORT or unix:///PATH.")
@click.option("--token-file", type=click.File("r"), help="A file with the token; - reads standard input.")
@click.option("--ca", type=click.Path(exists=True, dir_okay=False), help="Certificates to trust.")
@click.option("--namespace", help="The namespace to use when none is named.")
def set_(name: str, url: str | None, token_file: Any, ca: str | None, namespace: str | None) -> None:
    """Make or change a context."""
    known = load_contexts()
    old = known.contexts.get(name)
    if old is None and not url:
        raise Failure(f"there is no context {name!r} yet", hint="give it a --url", code=Exit.USAGE)
    given = {"url": url, "token": token_file.read().strip() if token_file else None, "ca": ca, "namespace": namespace}
    changes = {key: value for key, value in given.items() if value is not None}
    known.contexts[name] = replace(old, **changes) if old else Context(**changes)
    known.current = known.current or name
    note(f"context {name} written to {save_contexts(known)}")


@command.command("delete", epilog="\b\nExample:\n  septet context delete prod")
@click.argument("name")
def delete(name: str) -> None:
    """Forget a context; the platform is not touched."""
    known = load_contexts()
    if known.contexts.pop(name, None) is None:
        raise Failure(f"no context {name!r}", code=Exit.NOT_FOUND)
    known.current = "" if known.current == name else known.current
    save_contexts(known)
    note(f"context {name} forgotten")
