"""`septet revisions`: what was deployed, newest first."""

from __future__ import annotations

from typing import Any

import click

from septet.cli.options import Session, function_argument, with_output, with_session
from septet.cli.output import age, condition, show_list
from septet.cli.rollout import first_line


@click.command(epilog="\b\nExamples:\n  septet revisions hello\n  septet revisions hello -o json")
@function_argument
@with_output
@with_session
def command(session: Session, name: str, form: str) -> None:
    """List a function's revisions, the newest first."""
    function = session.client.get(session.path("functions", name))
    items = sorted(
        session.client.items(session.path("functions", name, "revisions")), key=lambda r: -int(r["spec"]["number"])
    )
    shares: dict[str, int] = {}
    tags: dict[str, list[str]] = {}
    for target in (function.get("status") or {}).get("traffic") or []:
        shares[target["revision"]] = shares.get(target["revision"], 0) + target.get("percent", 0)
        if target.get("tag"):
            tags.setdefault(target["revision"], []).append(target["tag"])
    columns: dict[str, Any] = {
        "NAME": lambda r: r["meta"]["name"],
        "PHASE": lambda r: r["status"].get("phase", ""),
        "TRAFFIC": lambda r: f"{shares[r['meta']['name']]}%" if shares.get(r["meta"]["name"]) else "",
        "TAGS": lambda r: ", ".join(tags.get(r["meta"]["name"], [])),
        "SOURCE": lambda r: r["spec"]["template"].get("source", "")[:19],
        "AGE": lambda r: age(r["meta"].get("created_at", 0)),
        "WHY": lambda r: first_line(condition(r)[1]) if r["status"].get("phase") == "failed" else "",
    }
    show_list(items, form, columns, empty=f"{name} has no revisions yet")
