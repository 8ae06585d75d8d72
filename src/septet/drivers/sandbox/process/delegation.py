"""Whose a control group of version 2 is, and handing its controllers to the groups below it.

A group that hands on controllers may hold no processes of its own (the root group may), so whoever is in it moves
into a leaf. That is only ours to do where the group was given to us: elsewhere we would move a user's shell, or
work against systemd, which writes the groups it did not delegate.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

from septet.drivers.sandbox.process.supervise import descendants

LEAF = "septet-platform"
# What systemd writes on a group with Delegate=; only root can read the second.
_MARKS = ("user.delegate", "trusted.delegate")
_ROUNDS = 5


def is_root(own: Path) -> bool:
    """The root group of the hierarchy: it may hold processes and hand on controllers."""
    return not (own / "cgroup.type").exists()


def is_ours(own: Path) -> bool:
    """Delegated to us, or nobody but us and our children is in it."""
    for mark in _MARKS:
        with contextlib.suppress(OSError):
            if os.getxattr(own, mark) == b"1":
                return True
    return set(_members(own)) <= {str(pid) for pid in descendants(os.getpid())}


def _members(group: Path) -> list[str]:
    return (group / "cgroup.procs").read_text().split()


def _handed_on(own: Path) -> frozenset[str]:
    with contextlib.suppress(OSError):
        return frozenset(word.lstrip("+") for word in (own / "cgroup.subtree_control").read_text().split())
    return frozenset()


@dataclass
class Delegation:
    """What of `wanted` the group `own` hands on to the groups below it, and how to take that back."""

    own: Path
    wanted: frozenset[str]
    _enabled: list[str] = field(default_factory=list)
    _moved: bool = False

    def check(self) -> None:
        """Whether `take` may and can be done. OSError with the file; changes nothing."""
        if self.wanted <= _handed_on(self.own):
            needed = [self.own]
        else:
            needed = [self.own, self.own / "cgroup.subtree_control"]
            if not is_root(self.own):
                needed.append(self.own / "cgroup.procs")
                if not is_ours(self.own):
                    raise OSError(errno.EPERM, "other processes are in the group and it was not delegated", self.own)
        for path in needed:
            if path.exists() and not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    def take(self) -> frozenset[str]:
        """Moves the members into a leaf where it must be, and returns the controllers that groups below have now.

        OSError, and then nothing has changed.
        """
        self.check()
        before = _handed_on(self.own)
        missing = sorted(self.wanted - before)
        if not missing:
            return self.wanted
        try:
            if not is_root(self.own):
                self._move_in()
            self._enable(missing)
        except OSError:
            self.give_back()
            raise
        return (before & self.wanted) | frozenset(self._enabled)

    def _enable(self, names: list[str]) -> None:
        file = self.own / "cgroup.subtree_control"
        try:
            file.write_text(" ".join(f"+{name}" for name in names))
            self._enabled = names
        except OSError as error:
            for name in names:  # all or none: so one that the kernel refuses takes the others with it
                with contextlib.suppress(OSError):
                    file.write_text(f"+{name}")
                    self._enabled.append(name)
            if not self._enabled:
                raise OSError(error.errno, error.strerror, file) from None

    def _move_in(self) -> None:
        leaf = self.own / LEAF
        leaf.mkdir(exist_ok=True)
        self._moved = True
        done: set[str] = set()
        for _ in range(_ROUNDS):  # a member may fork meanwhile
            members = [pid for pid in _members(self.own) if pid not in done]
            if not members:
                return
            _move(members, leaf)
            done.update(members)

    def give_back(self) -> None:
        """Undoes `take`. What another platform in the same group still uses stays."""
        with contextlib.suppress(OSError):
            if self._enabled:
                (self.own / "cgroup.subtree_control").write_text(" ".join(f"-{name}" for name in self._enabled))
                self._enabled = []
            if self._moved:
                leaf = self.own / LEAF
                _move(_members(leaf), self.own)
                self._moved = False
                leaf.rmdir()


def _move(pids: list[str], group: Path) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            (group / "cgroup.procs").write_text(pid)


def advice(own: Path, missing: list[str]) -> str:
    """What to do so that groups below `own` get the controllers `missing`."""
    above = [path for path in own.parents if (path / "cgroup.controllers").exists()]
    top = above[-1] if above else own
    known: list[str] = []
    with contextlib.suppress(OSError):
        known = (top / "cgroup.controllers").read_text().split()
    absent = [name for name in missing if name not in known]
    if absent:
        switches = " ".join(f"cgroup_enable={name}" for name in absent)
        return f"this kernel offers no {', '.join(absent)} here: boot it with {switches}, or one that has it"
    if not os.geteuid():
        text = "`septet service install`, or `systemd-run --scope -p Delegate=yes septet up`"
    else:
        text = "`systemd-run --user --scope -p Delegate=yes septet up`, or as root `septet service install`"
        if missing:
            text += "; the unit user@.service needs Delegate=cpu memory pids"
    if missing:
        names = " ".join(f"+{name}" for name in missing)
        text += f"; without systemd, write '{names}' into cgroup.subtree_control of {own.parent}"
    return text
