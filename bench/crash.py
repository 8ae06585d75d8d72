#!/usr/bin/env python3
"""kill -9 at a random moment under writes: what was acknowledged and is gone, orphans, and the time until it serves
again, against a clean stop and start."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from harness import HELLO, Options, Platform, Row, main

MARK = "septet-bench-crash"


def bench(options: Options) -> list[Row]:
    lost = Row("acknowledged writes lost by kill -9, a round", "writes", [], "by a clean stop", [])
    written = Row("acknowledged writes, a round", "writes", [], "before a clean stop", [])
    orphans = Row("orphans 2 s after kill -9", "processes", [], "after a clean stop", [])
    again = Row("start to first answer after kill -9", "ms", [], "after a clean stop", [])
    platform = Platform(options.scratch / "data").start()
    try:
        platform.deploy("keep", HELLO, env={"MARK": MARK}, scale={"min": 1})
        for number in range(options.rounds):
            for kill in (True, False):
                after = options.random.uniform(0.2, 1.2)
                kept = _write_and_end(platform, after, kill, f"r{number}{'k' if kill else 's'}")
                time.sleep(2)
                left = _orphans()
                begin = time.perf_counter()
                platform.start()
                while platform.call("keep").status != 200:
                    time.sleep(0.01)
                took = (time.perf_counter() - begin) * 1000
                have = {item["meta"]["name"] for item in platform.api("GET", "/namespaces?limit=1000")["items"]}
                for row, value in ((lost, len(kept - have)), (written, len(kept)), (orphans, left), (again, took)):
                    (row.ours if kill else row.theirs).append(float(value))
                for name in have & kept:
                    platform.api("DELETE", f"/namespaces/{name}")
    finally:
        platform.stop()
    return [lost, written, orphans, again]


def _write_and_end(platform: Platform, seconds: float, kill: bool, prefix: str) -> set[str]:
    """Makes namespaces until the platform is gone; the names of those that it said are there."""
    kept: set[str] = set()

    def write() -> None:
        for number in range(1000):
            try:
                got = platform.request("POST", "/septet/v1/namespaces", f'{{"name": "{prefix}-{number}"}}')
            except OSError:
                return
            if got.status < 300:
                kept.add(f"{prefix}-{number}")
            elif got.status < 500:
                raise SystemExit(f"a write was refused: {got.status} {got.text}")

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(seconds)
    if kill:
        platform.kill()
    else:
        platform.stop()
    writer.join()
    return kept


def _orphans() -> int:
    found = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            found += MARK.encode() in (entry / "environ").read_bytes()
        except OSError:
            continue
    return found


if __name__ == "__main__":
    main(bench, rounds=5)
