"""Which limits an instance ran into, also when its function told nobody: asked when something went wrong.

The kernel counts processes that it refused and killed, per control group. Nobody counts refused writes and refused
descriptors; those limits are seen while what they bound is still full. As an ordinary user without control groups that
holds for processes too, which the kernel then counts for the instance's user namespace: best effort.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from septet.drivers.sandbox.process import supervise
from septet.model.instance import InstanceStats, LimitMet

if TYPE_CHECKING:
    from septet.drivers.sandbox.process.instance import Instance

_MIB = 1024 * 1024
_LOOKED_AT = 16
"""Processes of one instance that are looked at, at most."""


def stats(instance: Instance, hard: bool) -> InstanceStats:
    """What it uses, and the limits that it met. `hard`: its group counts all three resources."""
    met = (*counted(instance), *seen(instance))
    if instance.group is not None and hard:
        used = instance.group.stats()
        return InstanceStats(
            memory=used.memory, memory_peak=used.memory_peak, cpu_seconds=used.cpu_seconds, pids=used.pids, met=met
        )
    nothing = supervise.Use(0, 0.0, 0)
    use = supervise.measure(instance.pid, instance.info.memory * _MIB) if instance.pid else nothing
    instance.peak = max(instance.peak, use.memory)
    return InstanceStats(
        memory=use.memory, memory_peak=instance.peak, cpu_seconds=use.cpu_seconds, pids=use.pids, met=met
    )


def counted(instance: Instance) -> tuple[LimitMet, ...]:
    """What the kernel counted since it started. Still to be had when its last process has ended."""
    group, limits = instance.group, instance.request.containers[0].limits
    if group is None:
        return ()
    found = {
        LimitMet(name="memory", value=f"{limits.memory} MiB"): group.oom_kills(),
        LimitMet(name="pids", value=str(limits.pids)): group.refused_forks(),
    }
    return tuple(LimitMet(name=met.name, value=met.value, times=times) for met, times in found.items() if times)


def tmp_full(instance: Instance) -> LimitMet:
    return LimitMet(name="tmp", value=f"{instance.request.containers[0].limits.tmp} MiB")


def seen(instance: Instance) -> tuple[LimitMet, ...]:
    """What is full right now."""
    if not instance.pid or not instance.walls:
        return ()
    limits = instance.request.containers[0].limits
    pids = _pids(instance)
    found = []
    if _full(pids[: 1 + _LOOKED_AT]):
        found.append(tmp_full(instance))
    if (most := next(_exhausted(pids[: 1 + _LOOKED_AT]), 0)) > 0:
        found.append(LimitMet(name="open files", value=str(most)))
    if (instance.group is None or "pids" not in instance.group.folders) and _threads(pids) > limits.pids:
        found.append(LimitMet(name="pids", value=str(limits.pids)))
    return tuple(found)


def _pids(instance: Instance) -> list[int]:
    """Its first process first."""
    found: list[int] = []
    if instance.group is not None:
        with contextlib.suppress(OSError, IndexError):
            found = [int(pid) for pid in Path(instance.group.files[0]).read_text().split() if int(pid) != instance.pid]
    else:
        found = supervise.descendants(instance.pid)[1:]
    return [instance.pid, *found]


def _full(pids: list[int]) -> bool:
    """Its /tmp, through the first of its processes that lets us look: an ordinary user may not look at all of them."""
    for pid in pids:
        with contextlib.suppress(OSError):
            space = os.statvfs(f"/proc/{pid}/root/tmp")
            return space.f_bavail == 0 or space.f_favail == 0
    return False


def _exhausted(pids: list[int]) -> Iterator[int]:
    """The limits of those that have no descriptor left. Only a table as large as the limit is worth counting, and where
    the kernel (before 6.2) has no count of its own, only the first such: a look must not take long."""
    for pid in pids[1:]:
        with contextlib.suppress(OSError, ValueError):
            most = int(_field(pid, "limits", "Max open files"))
            if not 0 < most <= int(_field(pid, "status", "FDSize:")):
                continue
            counted = os.stat(f"/proc/{pid}/fd").st_size  # noqa: PTH116
            if (counted or _entries(f"/proc/{pid}/fd")) >= most:
                yield most
            if not counted:
                return


def _field(pid: int, file: str, name: str) -> str:
    """OSError."""
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return next((line[len(name) :].split()[0] for line in lines if line.startswith(name)), "0")


def _threads(pids: list[int]) -> int:
    """Processes and threads, which one limit counts together; its first process counts, and is allowed for."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += _entries(f"/proc/{pid}/task")
    return total


def _entries(folder: str) -> int:
    """OSError."""
    return sum(1 for _ in Path(folder).iterdir())
