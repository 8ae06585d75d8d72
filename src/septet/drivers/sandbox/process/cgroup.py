"""Control groups, on hosts with version 2, version 1, or some controllers on each (hybrid).

Every instance gets a group below our own: `<where this process stands>/septet-<key>/<instance>`. The key is
derived from the state directory, so two platforms on one host never touch each other's groups.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from septet.drivers.sandbox.process import delegation, freeze, moves
from septet.model.function import Limits
from septet.model.instance import InstanceStats

_MIB = 1024 * 1024
_PERIOD = 100_000
_WANTED = ("memory", "cpu", "pids")
_REMOVE_TRIES = 50


@dataclass(frozen=True)
class Hierarchy:
    """One mounted hierarchy: its version, the group this process stands in, and our controllers there."""

    version: int
    own: Path
    controllers: frozenset[str]


def detect(mountinfo: str, own: str) -> list[Hierarchy]:
    """Hierarchies from the texts of /proc/self/mountinfo and /proc/self/cgroup."""
    paths: dict[str, str] = {}
    for line in own.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            paths[name] = path
    found = [item for line in mountinfo.splitlines() for item in _mounted(line, paths)]
    taken: set[str] = set()
    kept: list[Hierarchy] = []
    for item in found:  # a hierarchy may be mounted twice
        if item.controllers and not item.controllers & taken:
            taken |= item.controllers
            kept.append(item)
    return kept


def _mounted(line: str, paths: dict[str, str]) -> list[Hierarchy]:
    left, _, right = line.partition(" - ")
    _, _, _, mounted_root, point, *_ = left.split(" ")
    kind, _, options = right.split(" ", 2)
    if kind == "cgroup2" and "" in paths:
        return [_version_2(point, mounted_root, paths[""])]
    if kind != "cgroup":
        return []
    names = frozenset(options.split(",")) & {*_WANTED, "cpuacct"}
    if not names:
        return []
    return [Hierarchy(1, _below(point, mounted_root, paths.get(min(names), "/")), names)]


def _version_2(point: str, mounted_root: str, path: str) -> Hierarchy:
    own = _below(point, mounted_root, path)
    if own.name == delegation.LEAF:
        own = own.parent  # we moved ourselves there
    names: frozenset[str] = frozenset()
    with contextlib.suppress(OSError):
        names = frozenset((own / "cgroup.controllers").read_text().split()) & set(_WANTED)
    return Hierarchy(2, own, names)


def _below(point: str, mounted_root: str, path: str) -> Path:
    inside = path.removeprefix(mounted_root) if mounted_root != "/" else path
    own = Path(point) / inside.lstrip("/")
    return own if own.is_dir() else Path(point)


@dataclass
class Group:
    """One instance's groups. `files` are what its first process writes itself into."""

    folders: dict[str, Path]
    versions: dict[str, int]
    files: list[str] = field(default_factory=list)

    def oom_kills(self) -> int:
        """Processes that the kernel killed because the memory limit was reached."""
        name = "memory.events" if self.versions.get("memory") == 2 else "memory.oom_control"
        return _counter(self.folders.get("memory"), name, "oom_kill")

    def pids(self) -> list[int]:
        """Processes in it, but for those that freezing moved below."""
        with contextlib.suppress(OSError, KeyError):
            return [int(word) for word in (self.folders["pids"] / "cgroup.procs").read_text().split()]
        return []

    def refused_forks(self) -> int:
        """Processes that could not be made because of the limit on their number."""
        return _counter(self.folders.get("pids"), "pids.events", "max")

    def stats(self) -> InstanceStats:
        memory, two = self.folders.get("memory"), self.versions.get("memory") == 2
        now = _number(memory, "memory.current" if two else "memory.usage_in_bytes")
        peak = _number(memory, "memory.peak" if two else "memory.max_usage_in_bytes")
        return InstanceStats(
            memory=now,
            memory_peak=max(peak, now),
            cpu_seconds=self._cpu(),
            pids=_number(self.folders.get("pids"), "pids.current"),
        )

    def _cpu(self) -> float:
        if self.versions.get("cpu") == 2:
            return _counter(self.folders.get("cpu"), "cpu.stat", "usage_usec") / 1e6
        return _number(self.folders.get("cpuacct"), "cpuacct.usage") / 1e9

    def remove(self) -> bool:
        """True when nothing of it is left; a group that still holds a dying process stays for another try."""
        gone = True
        for folder in set(self.folders.values()):
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        return gone


class Cgroups:
    """Our groups on this host.

    `held` are the controllers whose limits the kernel holds, `hard` says whether that is memory, processor and
    processes, all three; if not, `why` and `fix` say what is in the way and what to do.
    """

    def __init__(self, hierarchies: Iterable[Hierarchy], key: str) -> None:
        self._hierarchies = list(hierarchies)
        self._name = f"septet-{key}"
        self._used: list[Hierarchy] = []
        self._delegations: list[delegation.Delegation] = []
        self._quick = -1
        self.held: frozenset[str] = frozenset()
        self.hard = False
        self.why = ""
        self.fix = ""

    def open(self) -> None:
        """Removes what an earlier life left here, and makes our groups; sets `held`, `hard`, `why` and `fix`."""
        self._open(self._prepare)
        if self.held and self._quick < 0:
            self._quick = moves.hold()

    def try_out(self) -> None:
        """As `open`, for a look: moves no process and leaves nothing. Only while the driver is not open."""
        trial = Cgroups(self._hierarchies, f"trial-{os.getpid()}")
        trial._open(trial._look)
        trial.close()
        self.held, self.hard, self.why, self.fix = trial.held, trial.hard, trial.why, trial.fix

    def _open(self, prepare: Callable[[Hierarchy], frozenset[str]]) -> None:
        self._used, reasons = [], []
        for hierarchy in self._hierarchies:
            try:
                _clear(hierarchy.own / self._name)
                self._used.append(replace(hierarchy, controllers=prepare(hierarchy)))
            except OSError as error:
                reasons.append(f"{error.strerror}: {error.filename}")
        have = frozenset[str]().union(*(item.controllers for item in self._used))
        missing = [name for name in _WANTED if name not in have]
        self.held, self.hard = have & set(_WANTED), not missing
        lacking = [name for name in missing if not any(name in item.controllers for item in self._hierarchies)]
        if lacking:
            reasons.append(f"no control group controller for {', '.join(lacking)}")
        self.why = "; ".join(reasons or [f"the kernel refused {', '.join(missing)}"]) if missing else ""
        self.fix = self._advice(lacking) if missing else ""
        if not self.held:
            self.close()

    def _advice(self, lacking: list[str]) -> str:
        for hierarchy in self._hierarchies:
            if hierarchy.version == 2:
                return delegation.advice(hierarchy.own, lacking)
        if os.geteuid():
            return "run as root, or on a host with control groups of version 2"
        return f"mount the controllers {', '.join(lacking)}" if lacking else "let it write to its control group"

    def _look(self, hierarchy: Hierarchy) -> frozenset[str]:
        if hierarchy.version == 1 or delegation.is_root(hierarchy.own):
            return self._prepare(hierarchy)
        delegation.Delegation(hierarchy.own, hierarchy.controllers).check()
        return hierarchy.controllers

    def _prepare(self, hierarchy: Hierarchy) -> frozenset[str]:
        """Makes our group in this hierarchy; the controllers that groups in it get. OSError."""
        base = hierarchy.own / self._name
        if hierarchy.version == 1:
            base.mkdir(exist_ok=True)
            return hierarchy.controllers
        handed = delegation.Delegation(hierarchy.own, hierarchy.controllers)
        given = handed.take()
        self._delegations.append(handed)
        base.mkdir(exist_ok=True)
        (base / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(given)))
        return given

    def create(self, instance: str, limits: Limits) -> Group:
        """The groups of a new instance with its limits set. OSError."""
        group = Group({}, {})
        try:
            for hierarchy in self._used:
                folder = hierarchy.own / self._name / instance
                folder.mkdir()
                for name in hierarchy.controllers:
                    group.folders[name] = folder
                    group.versions[name] = hierarchy.version
                _set(folder, hierarchy, limits)
                group.files.append(str(folder / "cgroup.procs"))
        except OSError:
            group.remove()
            raise
        return group

    def planned(self, instance: str, limits: Limits) -> tuple[Group, list[dict[str, str]]]:
        """As `create`, for an instance that makes its groups itself: what it has to write, in the order of `named`."""
        group = Group({}, {})
        for hierarchy in self._used:
            group.folders |= dict.fromkeys(hierarchy.controllers, hierarchy.own / self._name / instance)
            group.versions |= dict.fromkeys(hierarchy.controllers, hierarchy.version)
        return group, [_values(hierarchy, limits) for hierarchy in self._ordered()]

    def _ordered(self) -> list[Hierarchy]:
        return sorted(self._used, key=lambda item: "pids" not in item.controllers)

    def limit(self, group: Group, limits: Limits) -> None:
        """Other limits, none of them higher. OSError."""
        for hierarchy in self._used:
            folder = next(group.folders[name] for name in hierarchy.controllers)
            _set(folder, hierarchy, limits)

    def close(self) -> None:
        moves.release(self._quick)
        self._quick = -1
        for hierarchy in self._hierarchies:
            with contextlib.suppress(OSError):
                _clear(hierarchy.own / self._name)
        while self._delegations:
            self._delegations.pop().give_back()

    def named(self) -> list[str]:
        """Where each hierarchy has our instances' groups, the one that counts processes first."""
        return [str(item.own / self._name) for item in self._ordered()]

    def bases(self) -> list[str]:
        """Where our groups are, for the next life to clear if it stands elsewhere."""
        return [str(item.own / self._name) for item in self._hierarchies]


def here(key: str) -> Cgroups:
    """Ours, below the groups that this process is in."""
    try:
        found = detect(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
    except OSError:
        found = []
    return Cgroups(found, key)


async def release(group: Group | None) -> None:
    """Removes a group whose last process has ended."""
    for _ in range(_REMOVE_TRIES if group is not None else 0):
        # The kernel takes a moment to forget the last process of a group.
        if group is None or group.remove():
            break
        await asyncio.sleep(0.01)


def clear(base: str) -> None:
    """Removes the groups of an earlier life, and kills what is in them."""
    with contextlib.suppress(OSError):
        freeze.clear(Path(base))
        _clear(Path(base))


def _values(hierarchy: Hierarchy, limits: Limits) -> dict[str, str]:
    """What to write into which file of a group, in order."""
    memory = str(limits.memory * _MIB)
    quota = str(max(1000, int(limits.cpu * _PERIOD)))
    pids = str(limits.pids + 1)  # the first process is ours
    names = hierarchy.controllers
    values: dict[str, str] = {}
    if hierarchy.version == 2:
        if "memory" in names:
            values |= {"memory.max": memory, "memory.swap.max": "0", "memory.oom.group": "1"}
        if "cpu" in names:
            values["cpu.max"] = f"{quota} {_PERIOD}"
    else:
        if "memory" in names:
            values |= {"memory.limit_in_bytes": memory, "memory.memsw.limit_in_bytes": memory, "memory.swappiness": "0"}
        if "cpu" in names:
            values |= {"cpu.cfs_period_us": str(_PERIOD), "cpu.cfs_quota_us": quota}
    if "pids" in names:
        values["pids.max"] = pids
    return values


def _set(folder: Path, hierarchy: Hierarchy, limits: Limits) -> None:
    for name, value in _values(hierarchy, limits).items():
        # Swap accounting, and killing a group as one, are not in every kernel.
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
            try:
                os.write(descriptor, value.encode())
            finally:
                os.close(descriptor)


def _clear(base: Path) -> None:
    if not base.is_dir():
        return
    for folder in [*(path for path in base.iterdir() if path.is_dir()), base]:
        for pid in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        for _ in range(_REMOVE_TRIES):
            # The kernel takes a moment to forget the last process of a group.
            with contextlib.suppress(OSError):
                folder.rmdir()
            if not folder.exists():
                break
            time.sleep(0.01)


def _counter(folder: Path | None, file: str, name: str) -> int:
    if folder is None:
        return 0
    with contextlib.suppress(OSError, ValueError):
        for line in (folder / file).read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0


def _number(folder: Path | None, file: str) -> int:
    if folder is None:
        return 0
    with contextlib.suppress(OSError, ValueError):
        return int((folder / file).read_text())
    return 0
