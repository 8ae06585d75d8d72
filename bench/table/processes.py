"""Who belongs to the platform, and what processes have used: /proc alone is asked."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += parents.get(found[-1], [])
    return found


def split(pid: int) -> tuple[list[int], list[int]]:
    """The platform's own processes, and those of its instances, which have their own process namespace."""
    own, theirs = [], []
    here = os.readlink("/proc/self/ns/pid")
    for each in tree(pid):
        with contextlib.suppress(OSError):
            (own if os.readlink(f"/proc/{each}/ns/pid") == here else theirs).append(each)
    return own, theirs


def cpu(pids: list[int]) -> float:
    """Seconds of processor time of these processes and their threads, to the nanosecond; ended ones count none.

    Not utime and stime of /proc/PID/stat: whole ticks, of which a thousand processes that ran a little have none.
    """
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def memory(pid: int, name: str = "Pss") -> float:
    """A field of /proc/PID/smaps_rollup in MiB; 0 for a process that is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
    return 0.0


def resident(pids: list[int]) -> float:
    """VmRSS of processes in MiB, shared pages counted in each."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return total * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024


def descriptors(pids: list[int]) -> int:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += len(os.listdir(f"/proc/{pid}/fd"))
    return total


def available() -> float:
    """MiB of memory that the kernel could still give."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this kernel tells no MemAvailable")


def kernel_memory() -> float:
    """MiB that the whole kernel holds and cannot give back: for processes, namespaces, groups, mounts and sockets."""
    names = ("SUnreclaim:", "KernelStack:", "PageTables:", "SecPageTables:", "Percpu:")
    lines = Path("/proc/meminfo").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(names)) / 1024
