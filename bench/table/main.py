#!/usr/bin/env python3
"""The whole table: every promise that is a number, beside its reference of the same run.

Never a test: a number that is short of its bound is printed as such, and the exit code is 0.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import svg  # noqa: E402
from measured import ROWS, Measured, Row, table  # noqa: E402
from world import World  # noqa: E402

from harness import ROOT, machine  # noqa: E402


def main() -> int:
    for name in ("warm", "cold", "fleet"):  # the order of the table
        importlib.import_module(name)

    given = arguments()
    if given.list:
        for each in ROWS:
            print(f"{each.name:<22} {'long  ' if each.long else '      '}{each.about}")
        return 0
    known = {each.name for each in ROWS}
    if unknown := [name for name in given.only if name not in known]:
        print(f"there is no row {unknown[0]!r}; ./scripts/bench --list shows all", file=sys.stderr)
        return 2
    chosen = [each for each in ROWS if each.name in given.only or (not given.only and given.long >= each.long)]
    with tempfile.TemporaryDirectory(prefix="septet-bench-") as folder:
        facts = machine()
        world = World(Path(folder), given.rounds)
        found = run(world, chosen)
        print(table(found))
        write(world, found, facts, given, [each.name for each in chosen])
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./scripts/bench", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="ROW", help="this row alone; repeatable")
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    parser.add_argument("--long", action="store_true", help="the heaviest rows and the soak too")
    parser.add_argument("--rounds", type=int, default=3, help="how often A and B take turns (default 3)")
    parser.add_argument("--draw", action="store_true", help="write the curves into docs/ although only some rows run")
    return parser.parse_args()


def run(world: World, chosen: list[Row]) -> list[Measured]:
    """Each row in turn; one that breaks is a line of the table like any other."""
    found: list[Measured] = []
    for number, each in enumerate(chosen):
        began = time.monotonic()
        print(f"[{number + 1}/{len(chosen)}] {each.name} ...", end=" ", file=sys.stderr, flush=True)
        try:
            found += each.measure(world)
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            found.append(Measured(each.name, "", None, bound=0, note=f"broke: {type(error).__name__}: {error}"[:300]))
        print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
        if number + 1 == len(chosen) or chosen[number + 1].group != each.group:
            world.shared.close()
            world.kept.clear()
    return found


def write(
    world: World, found: list[Measured], facts: dict[str, object], given: argparse.Namespace, names: list[str]
) -> None:
    out = ROOT / "bench" / "out"
    out.mkdir(exist_ok=True)
    file = out / f"bench-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
    rows = [measured.as_json() for measured in found]
    facts = {**facts, "python_pass_ms": world.python_ms}
    file.write_text(json.dumps({"machine": facts, "ran": names, "long": given.long, "rows": rows}, indent=1) + "\n")
    print(f"written: {file}", file=sys.stderr)
    drawn = {
        "latency.svg": world.curves.get("latency")
        and svg.curves("Latency against rate", "requests a second", world.curves["latency"]),  # type: ignore[arg-type]
        "cold-start.svg": world.curves.get("cold") and svg.bars("First call by tier", world.curves["cold"]),  # type: ignore[arg-type]
    }
    where = ROOT / "docs" / "bench" if not given.only or given.draw else out
    where.mkdir(parents=True, exist_ok=True)
    for name, text in drawn.items():
        if text:
            (where / name).write_text(str(text))
            print(f"drawn: {where / name}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
