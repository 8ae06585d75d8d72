"""`septet doctor`: what this host can do, which sandbox will be used, and what each missing thing costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from septet.cli.failures import Exit, Failure
from septet.cli.options import with_output
from septet.cli.output import clean, show_value, style

if TYPE_CHECKING:
    from septet.ports.sandbox import Check

SIGNS = {"ok": ("ok", "green"), "degraded": ("degraded", "yellow"), "missing": ("missing", "red")}


@click.command(epilog="\b\nExamples:\n  septet doctor\n  septet doctor -o json")
@with_output
def command(form: str) -> None:
    """Say what this host can do, and what is missing. Needs no running platform.

    Ends with 1 when something is missing without which `septet up` would not start.
    """
    import septet.app

    checks: Sequence[Check] = septet.app.doctor()
    value: list[dict[str, Any]] = msgspec.to_builtins(list(checks))
    show_value(
        value,
        form,
        text="\n".join([*(line for check in value for line in lines_of(check)), "", verdict(value)]),
        name="\n".join(c["name"] for c in value),
    )
    fatal = missing(value)
    if fatal:
        raise Failure(
            f"missing: {', '.join(fatal)}", hint="`septet up` will not start a sandbox without it", code=Exit.FAILED
        )


def missing(checks: Sequence[dict[str, Any]]) -> list[str]:
    """Names of what the sandbox cannot do without."""
    return [check["name"] for check in checks if check["state"] == "missing" and check["required"]]


def verdict(checks: Sequence[dict[str, Any]]) -> str:
    """Which driver `septet up` will use."""
    if missing(checks):
        return "driver: none can be used; `septet up --sandbox none` runs functions without walls"
    limits = next((check["detail"] for check in checks if check["name"] == "limits"), "")
    return "driver: process" + (f" (limits: {clean(limits)})" if limits else "")


def lines_of(check: dict[str, Any]) -> list[str]:
    """One check: the state and what was found, then what it costs and what to do."""
    word, colour = SIGNS[check["state"]]
    lines = [
        f"{style(word.ljust(9), colour)} {clean(check['name'])}"
        + (f": {clean(check['detail'])}" if check["detail"] else "")
    ]
    if check["state"] != "ok":
        lines += [f"{'':9}   cost: {clean(check['cost'])}"] if check["cost"] else []
        lines += [f"{'':9}   fix: {clean(check['fix'])}"] if check["fix"] else []
    return lines
