"""The pool: children of a zygote that stand behind their walls already, and wait to be told their function.

One that waits runs our own first process alone. What depends on the function comes when it is taken: its tree, its
private files, its limits; only then the rights are dropped and its process is made, exactly as in any other start.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from septet.drivers.sandbox.process.cgroup import Cgroups, Group
from septet.drivers.sandbox.process.instance import Instance
from septet.drivers.sandbox.process.spec import Header, Spec, into_memory
from septet.drivers.sandbox.process.zygotes import Zygote
from septet.model.function import Limits

PAUSE = 0.05
"""Seconds after a start before the pool is filled again: the start's answer goes first."""
OURS = Limits(memory=1024 * 1024, cpu=64.0, pids=64)
"""While it waits; a limit can be lowered at any time, but not always raised."""
_FUNCTION = "/function"
_REMEMBERED = 4096

Size = Callable[[Sequence[float], int, int], int]
"""Of the times of starts, how many wait, and the bytes that one takes: how many should wait."""
ASSUMED = 4 * 1024 * 1024
"""Bytes that one takes until one was measured: its own pages and the kernel's objects for its namespaces."""


@dataclass(eq=False)
class Prepared:
    """One that waits, or was taken by `instance`."""

    id: str
    zygote: Zygote
    spec: Spec
    group: Group | None
    control: socket.socket
    pid: int = 0
    waiting: bool = False
    instance: Instance | None = None

    def fits(self, spec: Spec) -> bool:
        """Whether what stands can become `spec`: it adds nothing but the function's own tree."""
        own = spec.mounts[len(self.spec.mounts) :]
        return (
            spec.mounts[: len(self.spec.mounts)] == self.spec.mounts
            and all(item.target == _FUNCTION and item.hidden for item in own)
            and (spec.masks, spec.proc_masks) == (self.spec.masks, self.spec.proc_masks)
        )


class WarmPool:
    """`make` gives the spec of one for a zygote, with a host id of its own; `drop` takes its id and group back."""

    def __init__(
        self,
        cgroups: Cgroups,
        size: Size,
        make: Callable[[Zygote, str], Spec],
        drop: Callable[[Prepared], None],
        now: Callable[[], float],
    ) -> None:
        self._cgroups = cgroups
        self._size = size
        self._make = make
        self._drop = drop
        self._now = now
        self._all: dict[str, Prepared] = {}
        self._starts: dict[Zygote, deque[float]] = {}
        self._numbers = itertools.count(1)
        self._timer: asyncio.TimerHandle | None = None
        self._zygotes: list[Zygote] = []

    def open(self, zygote: Zygote) -> None:
        """The zygote is ready: begins to fill."""
        if zygote not in self._zygotes:
            self._zygotes.append(zygote)
            self._starts[zygote] = deque(maxlen=_REMEMBERED)
        self._fill_soon()

    def find(self, id: str) -> Prepared | None:
        return self._all.get(id)

    def waiting(self) -> int:
        """How many could be taken now."""
        return sum(item.waiting for item in self._all.values())

    def take(self, zygote: Zygote) -> Prepared | None:
        """One that waits, None when there is none; either way a start to be ready for next time."""
        if zygote in self._starts:
            self._starts[zygote].append(self._now())
            self._fill_soon()
        for item in self._all.values():
            if item.waiting and item.zygote is zygote:
                item.waiting = False
                asyncio.get_running_loop().remove_reader(item.control.fileno())
                return item
        return None

    def give_back(self, item: Prepared) -> None:
        """It was taken, and is not needed after all."""
        item.waiting = True
        asyncio.get_running_loop().add_reader(item.control.fileno(), self._readable, item)

    def gone(self, item: Prepared) -> None:
        """Nothing is left of its processes."""
        del self._all[item.id]
        if item.instance is None:
            if item.control.fileno() >= 0:
                asyncio.get_running_loop().remove_reader(item.control.fileno())
                item.control.close()
            self._drop(item)

    def lost(self, zygote: Any) -> None:
        """The zygote died, with all its children."""
        for item in [item for item in self._all.values() if item.zygote is zygote]:
            self.gone(item)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._zygotes.clear()
        for item in [item for item in self._all.values() if item.instance is None]:
            item.zygote.kill(item.id)
        for _ in range(200):
            if not self._all:
                return
            await asyncio.sleep(0.01)

    # -- filling ----------------------------------------------------------------------------------------------

    def _fill_soon(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(PAUSE, self._fill)

    def _fill(self) -> None:
        """Makes one at most, the next when that one waits: they must not crowd out what runs."""
        self._timer = None
        for zygote in self._zygotes:
            idle = [item for item in self._all.values() if item.zygote is zygote and item.instance is None]
            wanted = self._size(self._starts[zygote], len(idle), ASSUMED) if zygote.ready else 0
            if all(item.waiting for item in idle) and len(idle) < wanted:
                self._launch(zygote)
            elif len(idle) > max(wanted, 0) and zygote.ready and idle[0].waiting:
                idle[0].waiting = False
                zygote.kill(idle[0].id)

    def _launch(self, zygote: Zygote) -> None:
        id = f"pool-{next(self._numbers)}"
        spec = self._make(zygote, id)
        group = self._cgroups.create(id, OURS) if self._cgroups.held else None
        spec = spec.within(group.files if group else [])
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        item = self._all[id] = Prepared(id, zygote, spec, group, ours)
        asyncio.get_running_loop().add_reader(ours.fileno(), self._readable, item)
        header = Header(id=id, walls=True, rootless=spec.rootless, uid=spec.uid, gid=spec.gid, family=zygote.family)
        zygote.launch(header, [into_memory(spec), theirs.detach()])

    def _readable(self, item: Prepared) -> None:
        try:
            data = item.control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data and json.loads(data)["op"] == "waiting":
            item.waiting = True
            self._fill_soon()
        else:  # it failed or ended: the zygote tells when it is gone
            item.waiting = False
            asyncio.get_running_loop().remove_reader(item.control.fileno())
            item.control.close()


def tell(item: Prepared, spec: Spec, descriptors: list[int]) -> None:
    """Makes it the function's, with stdout, stderr and the link. OSError when it is gone already."""
    file = into_memory(spec)
    try:
        socket.send_fds(item.control, [b'{"op":"be"}'], [file, *descriptors])
    finally:
        os.close(file)
