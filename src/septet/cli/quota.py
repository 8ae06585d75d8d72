"""Options for a quota, of a namespace or of a token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

QUOTAS = ("instances", "memory", "requests", "burst", "storage", "builds", "functions")
_OPTIONS = (
    click.option("--instances", type=int, help="Most instances at a time."),
    click.option("--memory", type=int, metavar="MIB", help="Memory of all its instances."),
    click.option("--requests", type=float, help="Calls a second."),
    click.option("--burst", type=int, help="Calls above that, for a moment."),
    click.option("--storage", type=int, metavar="MIB", help="Sources and artifacts."),
    click.option("--builds", type=int, help="Builds at a time."),
    click.option("--functions", type=int, help="Functions."),
)


def with_quota(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds one option for each ceiling; what was not given is None."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def quota_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The API's quota from the options."""
    return {key: value for key, value in given.items() if value is not None}


def quota_text(spec: Mapping[str, Any]) -> str:
    """A quota in one cell of a table."""
    quota = spec.get("quota", {})
    return ", ".join(f"{name} {quota[name]}" for name in QUOTAS if quota.get(name))
