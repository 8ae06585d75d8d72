"""`septet token`: who may do what, where, and for how long."""

from __future__ import annotations

import time
from typing import Any

import click

from septet.cli.client import name_in_path
from septet.cli.options import Session, confirm, parse_duration, with_output, with_session, with_yes
from septet.cli.output import clock, note, show_list, show_value
from septet.cli.quota import quota_of, quota_text, with_quota


@click.group()
def command() -> None:
    """Give and take back access."""


@command.command(
    "create",
    epilog="\b\nExamples:\n  septet token create ci --allow-namespace shop --verb 'functions:*' --expires 90d\n"
    "  septet token create caller --verb functions:invoke",
)
@click.argument("name")
@click.option(
    "--allow-namespace",
    "namespaces",
    multiple=True,
    metavar="NS",
    help="Where; repeatable.  [default: the session's namespace]",
)
@click.option(
    "--verb",
    "verbs",
    multiple=True,
    metavar="VERB",
    help="What, as resource:action; repeatable.  [default: functions:invoke]",
)
@click.option("--expires", metavar="TIME", help="How long it holds: 12h, 90d.  [default: for ever]")
@click.option("--description", default="", help="What it is for.")
@with_quota
@with_output
@with_session
def create(
    session: Session,
    name: str,
    namespaces: tuple[str, ...],
    verbs: tuple[str, ...],
    expires: str | None,
    description: str,
    form: str,
    **quota: Any,
) -> None:
    """Make a token and print it, this once."""
    where, what = list(namespaces) or [session.namespace], list(verbs) or ["functions:invoke"]
    body = {
        "name": name,
        "namespaces": where,
        "verbs": what,
        "expires_at": time.time() + parse_duration(expires) if expires else 0.0,
        "description": description,
        "quota": quota_of(quota),
    }
    made = session.client.post("/tokens", body)
    note(f"token {name}: {', '.join(what)} in {', '.join(where)}; it is shown only this once")
    show_value(made, form, text=made["token"], name=name)


@command.command("list", epilog="\b\nExample:\n  septet token list")
@with_output
@with_session
def list_(session: Session, form: str) -> None:
    """List tokens; the tokens themselves are not kept anywhere."""
    columns: dict[str, Any] = {
        "NAME": lambda item: item["meta"]["name"],
        "NAMESPACES": lambda item: ", ".join(item["spec"].get("namespaces", [])),
        "VERBS": lambda item: ", ".join(item["spec"].get("verbs", [])),
        "QUOTA": lambda item: quota_text(item["spec"]),
        "EXPIRES": lambda item: clock(item["spec"].get("expires_at", 0)) or "never",
        "DESCRIPTION": lambda item: item["spec"].get("description", ""),
    }
    show_list(list(session.client.items("/tokens")), form, columns, empty="no tokens")


@command.command("delete", epilog="\b\nExample:\n  septet token delete ci --yes")
@click.argument("name")
@with_yes
@with_session
def delete(session: Session, name: str, yes: bool) -> None:
    """Take a token back; it stops working at once."""
    confirm(f"delete the token {name}?", yes)
    session.client.delete(f"/tokens/{name_in_path(name)}")
    note(f"token {name} deleted")
