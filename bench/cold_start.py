#!/usr/bin/env python3
"""Cold start: the first call of a function at zero, against starting the function's interpreter alone."""

from __future__ import annotations

import time
from functools import partial

from harness import HELLO, PYTHON, Options, Platform, Row, main, run_ms, wait_until

PLAIN = {"main.py": "def handle(request, context):\n    return {'hello': 'world'}\n"}


def bench(options: Options) -> list[Row]:
    with Platform(options.scratch / "data") as platform:
        names = [f"{kind}{n}" for n in range(options.rounds) for kind in ("plain", "async")]
        for name in names:
            platform.deploy(name, PLAIN if name.startswith("plain") else HELLO, scale={"window": 6.0, "grace": 0.5})
        for name in names:
            wait_until(f"{name} at zero", partial(_at_zero, platform, name))
        options.random.shuffle(names)
        cold: dict[str, list[float]] = {"plain": [], "async": []}
        warm: list[float] = []
        bare: list[float] = []
        for name in names:
            cold[name[:5]].append(_call(platform, name))
            warm.append(_call(platform, name))
            bare.append(run_ms(PYTHON, "-I", "-c", "pass"))
    return [
        Row("cold start, Python, whole call", "ms", cold["plain"], "exec of the interpreter", bare),
        Row("the same with an async handler", "ms", cold["async"], "exec of the interpreter", bare),
        Row("a warm call", "ms", warm, "exec of the interpreter", bare),
    ]


def _at_zero(platform: Platform, name: str) -> bool:
    return not platform.instances(name)


def _call(platform: Platform, name: str) -> float:
    begin = time.perf_counter()
    got = platform.call(name)
    if got.status != 200:
        raise SystemExit(f"{name}: {got.status} {got.text}")
    return (time.perf_counter() - begin) * 1000


if __name__ == "__main__":
    main(bench, rounds=12)
