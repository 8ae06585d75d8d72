#!/usr/bin/env python3
"""From `pip install` to the first answer (scripts/first-answer), against the install alone."""

from __future__ import annotations

import json
import subprocess

from harness import ROOT, Options, Row, main


def bench(options: Options) -> list[Row]:
    whole: list[float] = []
    install: list[float] = []
    for number in range(options.rounds + 1):
        out = subprocess.run([ROOT / "scripts" / "first-answer", "--json"], stdout=subprocess.PIPE, check=True).stdout
        steps = json.loads(out)
        if number:  # the first one fills the cache of packages
            whole.append(steps["total"])
            install.append(steps["install"])
    return [Row("pip install to first answer, packages cached", "s", whole, "pip install alone", install)]


if __name__ == "__main__":
    main(bench, rounds=3)
