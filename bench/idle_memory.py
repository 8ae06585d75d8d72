#!/usr/bin/env python3
"""Memory of an idle instance, and of the platform for it, against the interpreter asleep on its own."""

from __future__ import annotations

import subprocess
import time

from harness import HELLO, PYTHON, Options, Platform, Row, children, cpu, main, proportional, status


def bench(options: Options) -> list[Row]:
    with Platform(options.scratch / "data") as platform:
        empty = status(platform.pid, "VmRSS")
        before = set(children(platform.pid))
        platform.deploy("idle", HELLO, scale={"min": options.rounds, "max": options.rounds}, limits={"memory": 64})
        while len(platform.instances("idle")) < options.rounds:
            time.sleep(0.1)
        time.sleep(2)
        processes = [pid for pid in children(platform.pid) if pid not in before]
        bare = [subprocess.Popen([PYTHON, "-I", "-c", "import time; time.sleep(600)"]) for _ in range(options.rounds)]
        time.sleep(1)
        try:
            ours = sum(proportional(pid) for pid in processes) / options.rounds
            theirs = [proportional(process.pid) for process in bare]
        finally:
            for process in bare:
                process.kill()
                process.wait()
        grown = (status(platform.pid, "VmRSS") - empty) / options.rounds
        begin = cpu(platform.pid)
        time.sleep(10)
        idle = (cpu(platform.pid) - begin) * 10
    return [
        Row("memory (PSS) of an idle instance, async handler", "MiB", [ours], "interpreter asleep", theirs),
        Row("the platform's own growth for each", "MiB", [grown], "the platform before", [empty]),
        Row(f"processor, idle with {options.rounds} instances", "% of one", [idle], "nothing", []),
    ]


if __name__ == "__main__":
    main(bench, rounds=20)
