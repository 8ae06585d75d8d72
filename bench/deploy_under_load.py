#!/usr/bin/env python3
"""Calls that fail, and their latency, while a new revision is deployed each round, against rounds without one."""

from __future__ import annotations

import threading

from harness import Load, Options, Platform, Row, main, need, wrk


def bench(options: Options) -> list[Row]:
    need("wrk")
    failed = Row("failed calls a round, deploying", "calls", [], "without a deploy", [])
    p99 = Row("latency p99 of 16 connections, deploying", "ms", [], "without a deploy", [])
    served = Row("calls served a round, deploying", "calls", [], "without a deploy", [])
    with Platform(options.scratch / "data") as platform:
        _deploy(platform, 0)
        url = f"{platform.url}/fn/default/busy/"
        for number in range(1, options.rounds + 1):
            quiet = wrk(url, connections=16, seconds=4, token=platform.token)
            loads: list[Load] = []
            load = threading.Thread(
                target=lambda: loads.append(wrk(url, connections=16, seconds=4, token=platform.token))  # noqa: B023
            )
            load.start()
            _deploy(platform, number)
            load.join()
            for row, name in ((failed, "failed"), (p99, "p99_ms"), (served, "requests")):
                row.ours.append(float(getattr(loads[0], name)))
                row.theirs.append(float(getattr(quiet, name)))
    return [failed, p99, served]


def _deploy(platform: Platform, number: int) -> None:
    source = {"main.py": f"def handle(request, context):\n    return 'v{number}'\n"}
    platform.deploy("busy", source, scale={"min": 1, "max": 2})


if __name__ == "__main__":
    main(bench, rounds=5)
