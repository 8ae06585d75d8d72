"""Holding an instance still: its function gets no processor until it is thawed, and cannot tell.

Best first: the freezer of control groups version 2 (a killed process dies though frozen), that of version 1 (a
killed process dies when thawed), and signals where no group can be made (a function can notice SIGCONT). Our own
first process stays outside: it must see the function's end and pass on what the platform asks.

The group is made, and the function's processes moved into it, at the first freeze, so that a start pays nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from septet.model.errors import Unavailable

NESTED = "function"
"""The group below an instance's own one, where that has the limits."""
_PATIENCE = 1.0
_POLL = 0.0005
_ROUNDS = 100
# It stays when the platform is killed, thaws what could not die, and ends: the platform's end of its input is closed.
_WARDEN = 'read -r _; for file in "$0"/*/freezer.state; do echo THAWED > "$file"; done'


class Ice(Protocol):
    """One instance's freezer. `holds_the_dead`: a killed process ends only when it is thawed."""

    holds_the_dead: bool

    async def freeze(self) -> None:
        """OSError or Unavailable when it could not be frozen."""
        ...

    def thaw(self) -> None: ...

    def remove(self) -> bool:
        """True when nothing of it is left."""
        ...


class Freezer:
    """Which kind of freezer this host has. `key` names our groups, as in `cgroup.py`."""

    def __init__(self, mountinfo: str, own: str, key: str) -> None:
        self._two = _hierarchy(mountinfo, own, 2, key)
        self._one = _hierarchy(mountinfo, own, 1, key)
        self._warden: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        """Removes what an earlier life left, and forgets the kinds that this user cannot use."""
        self._two = _usable(self._two)
        self._one = None if self._two else _usable(self._one)

    def bases(self) -> list[str]:
        return [str(base) for base in (self._two, self._one) if base]

    def kind(self) -> str:
        """ "cgroup v2", "cgroup v1" or "signals"."""
        return "cgroup v2" if self._two else "cgroup v1" if self._one else "signals"

    def make(self, instance: str, own: Path | None, processes: Callable[[], list[int]]) -> Ice:
        """For one instance: `own` is its version 2 group with its limits, if any, `processes` its function's."""
        if own is not None and (own / "cgroup.freeze").exists():
            return GroupIce(own / NESTED, processes)
        if self._two is not None:
            return GroupIce(self._two / instance, processes)
        if self._one is not None:
            self._watch(self._one)
            return FreezerIce(self._one / instance, processes)
        return SignalIce(processes)

    def _watch(self, base: Path) -> None:
        if self._warden is None:
            self._warden = subprocess.Popen(
                ["/bin/sh", "-c", _WARDEN, str(base)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def close(self) -> None:
        if self._warden is not None and self._warden.stdin is not None:
            self._warden.stdin.close()
            self._warden.wait()
            self._warden = None
        for base in (self._two, self._one):
            if base is not None:
                with contextlib.suppress(OSError):
                    base.rmdir()


def here(key: str) -> Freezer:
    """This host's; with signals alone where it tells nothing of control groups."""
    try:
        return Freezer(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text(), key)
    except OSError:
        return Freezer("", "", key)


class GroupIce:
    """Version 2: `cgroup.freeze`."""

    holds_the_dead = False

    def __init__(self, folder: Path, processes: Callable[[], list[int]]) -> None:
        self._folder = folder
        self._processes = processes

    async def freeze(self) -> None:
        _gather(self._folder, self._processes)
        _write(self._folder / "cgroup.freeze", "1")
        await _wait(lambda: "frozen 1" in (self._folder / "cgroup.events").read_text(), self.thaw)

    def thaw(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            _write(self._folder / "cgroup.freeze", "0")

    def remove(self) -> bool:
        return _remove(self._folder)


class FreezerIce:
    """Version 1: `freezer.state`."""

    holds_the_dead = True

    def __init__(self, folder: Path, processes: Callable[[], list[int]]) -> None:
        self._folder = folder
        self._processes = processes

    async def freeze(self) -> None:
        _gather(self._folder, self._processes)
        _write(self._folder / "freezer.state", "FROZEN")
        await _wait(lambda: (self._folder / "freezer.state").read_text() == "FROZEN\n", self.thaw)

    def thaw(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            _write(self._folder / "freezer.state", "THAWED")

    def remove(self) -> bool:
        return _remove(self._folder)


class SignalIce:
    """SIGSTOP to every process of the function, until none is left that runs."""

    holds_the_dead = False

    def __init__(self, processes: Callable[[], list[int]]) -> None:
        self._processes = processes

    async def freeze(self) -> None:
        await _wait(self._stop, self.thaw)

    def _stop(self) -> bool:
        _signal(self._processes(), self._processes, signal.SIGSTOP)
        return all(_state(pid) in "TtZX" for pid in self._processes())

    def thaw(self) -> None:
        # Children first, so that no parent finds a child that still stands.
        _signal(list(reversed(self._processes())), self._processes, signal.SIGCONT)

    def remove(self) -> bool:
        return True


async def release(ice: Ice | None) -> None:
    """The kernel takes a moment to forget the last process of a group."""
    for _ in range(_ROUNDS if ice is not None else 0):
        if ice is None or ice.remove():
            return
        await asyncio.sleep(0.01)


async def _wait(frozen: Callable[[], bool], thaw: Callable[[], None]) -> None:
    """Until it is frozen; a process deep in the kernel may take its time, but then it is thawed and said so."""
    deadline = time.monotonic() + _PATIENCE
    try:
        while not frozen():
            if time.monotonic() > deadline:
                raise Unavailable(f"the function's processes did not stop within {_PATIENCE:g} s")
            await asyncio.sleep(_POLL)
    except BaseException:
        thaw()
        raise


def _gather(folder: Path, processes: Callable[[], list[int]]) -> None:
    """Moves all of the function's processes into the group; what they fork from then on is born there."""
    folder.mkdir(exist_ok=True)
    for _ in range(_ROUNDS):
        inside = set((folder / "cgroup.procs").read_text().split())
        outside = [pid for pid in processes() if str(pid) not in inside and _state(pid) not in "ZX"]
        if not outside:
            return
        for pid in outside:
            # It may have ended meanwhile.
            with contextlib.suppress(ProcessLookupError):
                _write(folder / "cgroup.procs", str(pid))
    raise Unavailable("the function makes processes faster than they can be frozen")


def _signal(pids: list[int], processes: Callable[[], list[int]], number: int) -> None:
    """Held by descriptor and looked up again, so that no signal reaches a stranger with a number used again."""
    held: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            held[pid] = os.pidfd_open(pid)
    try:
        still = set(processes())
        for pid, descriptor in held.items():
            if pid in still:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, number)
    finally:
        for descriptor in held.values():
            os.close(descriptor)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "X"


def _write(path: Path, text: str) -> None:
    """One write(2), and no file made where the kernel has none."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _hierarchy(mountinfo: str, own: str, version: int, key: str) -> Path | None:
    """Where our groups belong in the hierarchy that can freeze: below the group that this process stands in."""
    name = "" if version == 2 else "freezer"
    paths = {
        part: path for line in own.splitlines() for _, names, path in [line.split(":", 2)] for part in names.split(",")
    }
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        root, point = left.split(" ")[3:5]
        kind, _, options = right.split(" ", 2)
        fits = kind == "cgroup2" if version == 2 else kind == "cgroup" and name in options.split(",")
        if fits and name in paths:
            inside = paths[name].removeprefix(root) if root != "/" else paths[name]
            where = Path(point) / inside.lstrip("/")
            return (where if where.is_dir() else Path(point)) / f"septet-{key}"
    return None


def _usable(base: Path | None) -> Path | None:
    """Whether a group can be made there that can freeze; tried, and what an earlier life left is ended."""
    if base is None:
        return None
    trial = base / "trial"
    try:
        clear(base)
        base.mkdir(exist_ok=True)
        trial.mkdir()
    except OSError:
        return None
    try:
        return base if any((trial / name).exists() for name in ("cgroup.freeze", "freezer.state")) else None
    finally:
        trial.rmdir()


def clear(base: Path) -> None:
    """Ends whatever is in groups of an earlier life, thawed so that it can die, and removes them."""
    if not base.is_dir():
        return
    for folder in sorted((path for path in base.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts)):
        for pid in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        for name, text in (("cgroup.freeze", "0"), ("freezer.state", "THAWED")):
            with contextlib.suppress(OSError):
                _write(folder / name, text)
        for _ in range(_ROUNDS):
            # The kernel takes a moment to forget the last process of a group.
            if _remove(folder):
                break
            time.sleep(0.01)
