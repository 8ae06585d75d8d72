#!/usr/bin/env python3
"""`septet list` against a running platform, and the interpreter alone."""

from __future__ import annotations

import os
import sys

from harness import HELLO, Options, Platform, Row, main, run_ms


def bench(options: Options) -> list[Row]:
    ours: list[float] = []
    bare: list[float] = []
    with Platform(options.scratch / "data") as platform:
        platform.deploy("hello", HELLO)
        env = {**os.environ, "SEPTET_URL": platform.url, "SEPTET_TOKEN": platform.token}
        for number in range(options.rounds + 1):
            ms = run_ms(sys.executable, "-m", "septet", "list", env=env), run_ms(sys.executable, "-c", "pass", env=env)
            if number:  # the first one compiles
                ours.append(ms[0])
                bare.append(ms[1])
    return [Row("septet list, start to end", "ms", ours, "the interpreter alone", bare)]


if __name__ == "__main__":
    main(bench, rounds=20)
