"""`septet namespace`: tenants, and what each may use."""

from __future__ import annotations

from typing import Any

import click

from septet.cli.client import name_in_path
from septet.cli.options import Session, confirm, with_output, with_session, with_yes
from septet.cli.output import age, note, show_list
from septet.cli.quota import quota_of, quota_text, with_quota


@click.group()
def command() -> None:
    """Make, list and remove namespaces."""


@command.command("create", epilog="\b\nExample:\n  septet namespace create shop --memory 2048 --instances 20")
@click.argument("name")
@with_quota
@with_session
def create(session: Session, name: str, **quota: Any) -> None:
    """Make a namespace, or change its quota. Without an option there is no limit."""
    session.client.put(f"/namespaces/{name_in_path(name)}", {"spec": {"quota": quota_of(quota)}})
    note(f"namespace {name} is there")


@command.command("list", epilog="\b\nExample:\n  septet namespace list -o name")
@with_output
@with_session
def list_(session: Session, form: str) -> None:
    """List the namespaces that the token may see."""
    columns: dict[str, Any] = {
        "NAME": lambda item: item["meta"]["name"],
        "QUOTA": lambda item: quota_text(item["spec"]),
        "AGE": lambda item: age(item["meta"].get("created_at", 0)),
    }
    show_list(list(session.client.items("/namespaces")), form, columns, empty="no namespaces")


@command.command("delete", epilog="\b\nExample:\n  septet namespace delete shop --yes")
@click.argument("name")
@with_yes
@with_session
def delete(session: Session, name: str, yes: bool) -> None:
    """Delete a namespace with all that is in it."""
    confirm(f"delete the namespace {name} with all its functions and secrets?", yes)
    session.client.delete(f"/namespaces/{name_in_path(name)}")
    note(f"namespace {name} deleted")
