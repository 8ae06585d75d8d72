"""`septet scale`: how many instances a function may have."""

from __future__ import annotations

from typing import Any

import click

from septet.cli.failures import Exit, Failure
from septet.cli.options import Session, function_argument, parse_duration, with_output, with_session
from septet.cli.output import note, show_value


@click.command(
    epilog="\b\nExamples:\n  septet scale hello --min 1 --max 10\n"
    "  septet scale hello --target 20 --window 30s\n  septet scale hello"
)
@function_argument
@click.option("--min", type=click.IntRange(min=0), help="Fewest instances; 0 lets it scale to zero.")
@click.option("--max", type=click.IntRange(min=0), help="Most instances; 0 is no limit of its own.")
@click.option("--initial", type=click.IntRange(min=0), help="Instances that a new revision starts with.")
@click.option("--target", type=float, help="What one instance should carry (calls at a time, or calls a second).")
@click.option("--policy", metavar="NAME", help="concurrency, rps or fixed.")
@click.option("--window", metavar="TIME", help="How far back the scaler looks.")
@click.option("--grace", metavar="TIME", help="How long the last instance is kept without calls.")
@click.option("--keep-alive", metavar="TIME|auto", help="How long an instance is kept frozen after its last call.")
@click.option("--down-delay", metavar="TIME", help="How long to wait before fewer instances.")
@with_output
@with_session
def command(session: Session, name: str, form: str, **given: Any) -> None:
    """Set how many instances a function may have. Without options, show what is set."""
    wanted = {key: value for key, value in given.items() if value is not None}
    for key in ("window", "grace", "down_delay", "keep_alive"):
        if key in wanted and (key, wanted[key]) != ("keep_alive", "auto"):
            wanted[key] = parse_duration(wanted[key])
    if wanted.get("max") and wanted.get("min", 0) > wanted["max"]:
        raise Failure(f"--min {wanted['min']} is more than --max {wanted['max']}", code=Exit.USAGE)
    if wanted:
        session.client.put(session.path("functions", name, "scale"), wanted)
        note(f"{name}: " + ", ".join(f"{key} {value}" for key, value in wanted.items()))
    scale = session.client.get(session.path("functions", name))["spec"]["template"]["scale"]
    show_value(scale, form, text="\n".join(f"{key + ':':<25}{value}" for key, value in scale.items()), name=name)
