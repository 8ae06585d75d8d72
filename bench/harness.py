"""What the benchmarks share: a platform, CPU and memory of a process, facts of the machine, and the table's rows."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from septet_platform import Platform  # noqa: E402

PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
"""The interpreter that functions get (docs: the system's own first)."""
HELLO = {"main.py": "async def handle(request, context):\n    return {'hello': 'world'}\n"}
TICKS = os.sysconf("SC_CLK_TCK")


class Row(NamedTuple):
    """One line of the table: the number of Septet, and what it is compared with, in the same unit."""

    name: str
    unit: str
    ours: list[float]
    other: str
    theirs: list[float]


class Options(NamedTuple):
    rounds: int
    seed: int
    random: random.Random
    scratch: Path


def main(bench: Callable[[Options], list[Row]], rounds: int) -> None:
    """Runs one benchmark: prints its rows, or with --json everything that was measured."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"how often A and B take turns (default {rounds})")
    parser.add_argument("--seed", type=int, default=1, help="of everything random (default 1)")
    parser.add_argument("--json", action="store_true", help="print the raw data and the facts of the machine")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="septet-bench-") as folder:
        options = Options(given.rounds, given.seed, random.Random(given.seed), Path(folder))
        rows = bench(options)
    if given.json:
        print(json.dumps({"machine": machine(), "seed": given.seed, "rows": [row._asdict() for row in rows]}))
    else:
        for row in rows:
            print(line(row))


def line(row: Row) -> str:
    """Median and the range of the middle half, beside the other's."""
    return f"{row.name:<46} {spread(row.ours):>24} {row.unit:<9} | {row.other}: {spread(row.theirs)}"


def spread(values: list[float]) -> str:
    if not values:
        return "-"
    if len(values) < 4:
        return f"{statistics.median(values):.4g}"
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.4g} ({low:.4g}..{high:.4g})"


def machine() -> dict[str, Any]:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cores": os.cpu_count(),
        "processor": model[1] if model else platform.machine(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "root": os.geteuid() == 0,
        "at": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def need(*programs: str) -> None:
    """Ends with the names of the programs that are missing."""
    where = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    os.environ["PATH"] = where
    missing = [name for name in programs if not shutil.which(name)]
    if missing:
        sys.exit(f"missing: apt install {' '.join(missing)}")


def cpu(*pids: int) -> float:
    """Seconds of processor time that the processes have used, their threads included."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def status(pid: int, name: str) -> float:
    """A field of /proc/<pid>/status (VmRSS, VmHWM), in MiB."""
    found = re.search(rf"{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def proportional(pid: int) -> float:
    """Memory of a process with what it shares divided among those who share it (PSS), in MiB."""
    found = re.search(r"Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())
    assert found
    return int(found[1]) / 1024


def children(pid: int) -> list[int]:
    """All descendants of a process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *children(int(child))]
    return found


class Load(NamedTuple):
    requests: int
    failed: int
    p50_ms: float
    p99_ms: float


def wrk(url: str, *, connections: int, seconds: float, token: str = "") -> Load:
    header = ["-H", f"Authorization: Bearer {token}"] if token else []
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", *header, url]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    requests = re.search(r"(\d+) requests in", out)
    assert requests, out
    failed = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", out))
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    failed += sum(map(int, sockets.groups())) if sockets else 0
    return Load(int(requests[1]), failed, _latency(out, "50"), _latency(out, "99"))


def _latency(out: str, share: str) -> float:
    found = re.search(rf"{share}%\s+([\d.]+)(us|ms|s)\b", out)
    assert found, out
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]


def run_ms(*command: str, env: dict[str, str] | None = None) -> float:
    """Wall time of a program that must succeed."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=env)
    return (time.perf_counter() - begin) * 1000


def wait_until(what: str, true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            sys.exit(f"{what} did not come true within {seconds:g} s")
        time.sleep(0.05)


__all__ = ["HELLO", "PYTHON", "ROOT", "Load", "Options", "Platform", "Row"]
