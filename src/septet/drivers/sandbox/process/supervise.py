"""Counts what an instance uses from outside, where no control group does it: best effort, never called hard."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from septet.drivers.sandbox.process.instance import Instance

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")
_PIDS_MAX = 4096
_MIB = 1024 * 1024


class Use(NamedTuple):
    """Bytes, processor seconds (of living processes and the children they waited for), processes."""

    memory: int
    cpu_seconds: float
    pids: int


def descendants(pid: int) -> list[int]:
    """The process and all below it, at most some thousands; those that end meanwhile are passed over."""
    found = [pid]
    for item in found:
        if len(found) > _PIDS_MAX:
            break
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{item}/task").iterdir():
                found.extend(int(word) for word in (thread / "children").read_text().split())
    return found


def measure(pid: int, limit: int) -> Use:
    """What the instance whose first process is `pid` uses now.

    Resident pages are cheap to read but count shared ones again for each process; so only when their sum passes
    `limit` the proportional sizes decide, which cost more.
    """
    pids = descendants(pid)
    memory = sum(_resident(item) for item in pids)
    if memory > limit:
        memory = sum(_proportional(item) for item in pids)
    return Use(memory, sum(_cpu(item) for item in pids), len(pids))


def held(pid: int) -> int:
    """Bytes of the process and all below it, with their part of what they share."""
    return sum(_proportional(item) for item in descendants(pid))


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return 0


def _proportional(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return _resident(pid)


def _cpu(pid: int) -> float:
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(value) for value in fields[11:15]) / _TICK
    return 0.0


async def watch(instances: Mapping[str, Instance], every: float) -> None:
    """Kills whoever uses more memory than its limit, where the kernel does not."""
    while True:
        await asyncio.sleep(every)
        for instance in list(instances.values()):
            if not instance.pid or instance.ending:
                continue
            limit = instance.info.memory * _MIB
            use = measure(instance.pid, limit)
            instance.peak = max(instance.peak, use.memory)
            if use.memory > limit:
                instance.kill("memory")
