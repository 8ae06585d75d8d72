"""`septet traffic`: who gets which share of a function's calls."""

from __future__ import annotations

from typing import Any

import click

from septet.cli.failures import Exit, Failure
from septet.cli.options import Session, function_argument, parse_duration, with_output, with_session
from septet.cli.output import show_list

LATEST = "latest"
COLUMNS = {
    "REVISION": lambda t: t.get("revision") or LATEST,
    "PERCENT": lambda t: f"{t.get('percent', 0)}%",
    "TAG": lambda t: t.get("tag", ""),
}


@click.command(
    epilog="\b\nExamples:\n  septet traffic hello\n  septet traffic hello hello-00001=90 latest=10\n"
    "  septet traffic hello latest=100 --rollout 5m\n  septet traffic hello latest=100 --tag canary=hello-00002"
)
@function_argument
@click.argument("shares", nargs=-1, metavar="[REVISION=PERCENT]...")
@click.option("--tag", "tags", multiple=True, metavar="TAG=REVISION", help="An address of its own; repeatable.")
@click.option("--rollout", metavar="TIME", help="Move gradually over this time.")
@with_output
@with_session
def command(
    session: Session, name: str, shares: tuple[str, ...], tags: tuple[str, ...], rollout: str | None, form: str
) -> None:
    """Show or split a function's traffic. `latest` follows the newest ready revision; shares add up to 100.

    A tag gives a revision an address of its own, /fn/NAMESPACE/NAME@TAG/, without any share.
    """
    if not shares and (tags or rollout):
        raise Failure(
            "name the shares too", hint=f"for example `septet traffic {name} latest=100 --tag ...`", code=Exit.USAGE
        )
    if shares:
        body: dict[str, Any] = {"targets": parse_targets(shares, tags)}
        if rollout:
            body["rollout"] = parse_duration(rollout)
        session.client.put(session.path("functions", name, "traffic"), body)
    function = session.client.get(session.path("functions", name))
    targets = (
        function["spec"]["traffic"] if shares else function["status"].get("traffic") or function["spec"]["traffic"]
    )
    show_list(
        [{**target, "name": target.get("revision") or LATEST} for target in targets], form, COLUMNS, empty="no traffic"
    )


def parse_targets(shares: tuple[str, ...], tags: tuple[str, ...]) -> list[dict[str, Any]]:
    """The targets that the words mean; Failure(USAGE) unless they add up to 100."""
    targets: list[dict[str, Any]] = []
    for share in shares:
        revision, _, percent = share.rpartition("=")
        if not revision or not percent.rstrip("%").isdigit():
            raise Failure(f"{share!r} is not REVISION=PERCENT", code=Exit.USAGE)
        targets.append(
            {"revision": "" if revision == LATEST else revision, "percent": int(percent.rstrip("%")), "tag": ""}
        )
    total = sum(target["percent"] for target in targets)
    if total != 100:
        raise Failure(f"the shares add up to {total}, not to 100", code=Exit.USAGE)
    for pair in tags:
        tag, _, revision = pair.partition("=")
        if not tag or not revision:
            raise Failure(f"--tag wants TAG=REVISION, not {pair!r}", code=Exit.USAGE)
        named = "" if revision == LATEST else revision
        targets.append({"revision": named, "percent": 0, "tag": tag})
    return targets
