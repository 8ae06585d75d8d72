"""Rates of namespaces and tokens that hold over all processes: their state in shared memory, under one lock.

A slot is the hash of the owner's name and one number (the arrival time that `policy.admission` keeps). The kernel
lets go of the lock when its holder dies, and the clock is the same in all processes.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
from collections.abc import Callable, Mapping

from septet.dataplane.admission import Admission
from septet.dataplane.table import Table
from septet.model.access import Caller
from septet.model.objects import Quota

_SLOT = struct.Struct("<16sd")
SLOTS = 16_384
_EMPTY = bytes(16)
_PROBES = 64


def make_memory() -> int:
    """A descriptor of memory for the rates."""
    fd = os.memfd_create("septet-rates", os.MFD_CLOEXEC)
    os.ftruncate(fd, SLOTS * _SLOT.size)
    return fd


class Arrivals(dict[str, float]):
    """What Admission keeps, in shared memory; the lock is its user's to hold."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._memory = mmap.mmap(fd, SLOTS * _SLOT.size)

    def __len__(self) -> int:
        return 0

    def get(self, owner: str, default: float = 0.0) -> float:  # type: ignore[override]
        at, name, value = self._find(owner)
        return value if name != _EMPTY and at >= 0 else default

    def __setitem__(self, owner: str, value: float) -> None:
        at, _, _ = self._find(owner)
        _SLOT.pack_into(self._memory, at, _digest(owner), value)

    def update(self, arrivals: Mapping[str, float]) -> None:  # type: ignore[override]
        for owner, value in arrivals.items():
            self[owner] = value

    def _find(self, owner: str) -> tuple[int, bytes, float]:
        """The owner's slot or a free one; when all near ones are taken, the one longest unused."""
        digest = _digest(owner)
        first = int.from_bytes(digest[:4], "big")
        oldest = (0.0, -1)
        for step in range(_PROBES):
            at = (first + step) % SLOTS * _SLOT.size
            name, value = _SLOT.unpack_from(self._memory, at)
            if name in (digest, _EMPTY):
                return at, name, value
            if oldest[1] < 0 or value < oldest[0]:
                oldest = (value, at)
        return oldest[1], _EMPTY, 0.0


class SharedAdmission(Admission):
    """Admission whose rates count the calls of all processes."""

    def __init__(
        self,
        table: Table,
        authenticate: Callable[[str], Caller],
        now: Callable[[], float],
        wall: Callable[[], float],
        memory: int,
    ) -> None:
        super().__init__(table, authenticate, now, wall)
        self._fd = memory
        self._arrivals = Arrivals(memory)

    def _count(self, held: list[tuple[str, Quota]]) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            super()._count(held)
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)


def _digest(owner: str) -> bytes:
    return hashlib.blake2b(owner.encode(), digest_size=16).digest()
