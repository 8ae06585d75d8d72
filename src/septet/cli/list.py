"""`septet list`: the functions of a namespace."""

from __future__ import annotations

from typing import Any

import click

from septet.cli.options import Session, with_output, with_session
from septet.cli.output import age, condition, show_list


def traffic_words(item: dict[str, Any]) -> str:
    """Who gets the traffic: `hello-00002` or `hello-00001 90%, hello-00002 10%`."""
    shares = [target for target in (item.get("status") or {}).get("traffic") or [] if target.get("percent")]
    if len(shares) == 1:
        return str(shares[0]["revision"])
    return ", ".join(f"{target['revision']} {target['percent']}%" for target in shares)


COLUMNS = {
    "NAME": lambda item: item["meta"]["name"],
    "RUNTIME": lambda item: item["spec"]["template"]["runtime"],
    "READY": lambda item: condition(item)[0],
    "SERVES": traffic_words,
    "ACCESS": lambda item: item["spec"].get("access", "token"),
    "AGE": lambda item: age(item["meta"].get("created_at", 0)),
}


@click.command(
    epilog="\b\nExamples:\n  septet list\n  septet list -l team=search -o name\n  septet list --all-namespaces"
)
@click.option("-l", "--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only with this label; repeatable.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Of every namespace that the token may see.")
@with_output
@with_session
def command(session: Session, labels: tuple[str, ...], all_namespaces: bool, form: str) -> None:
    """List functions."""
    query: dict[str, Any] = {"label": ",".join(labels)}
    spaces = [session.namespace]
    columns: dict[str, Any] = dict(COLUMNS)
    if all_namespaces:
        spaces = [item["meta"]["name"] for item in session.client.items("/namespaces")]
        columns = {"NAMESPACE": lambda item: item["meta"]["namespace"], **columns}
    items = [
        item
        for space in spaces
        for item in session.client.items(Session(session.client, space).path("functions"), **query)
    ]
    show_list(
        items,
        form,
        columns,
        empty=f"no functions in {', '.join(spaces)}; `septet new` writes one, `septet deploy` brings it up",
    )
