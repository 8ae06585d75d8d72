"""Memory of the node for builds: they wait for it as instances do, and idle instances go for them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from septet.control.fleet import Fleet, Reservation
from septet.control.room import Room
from septet.control.settings import ControlSettings
from septet.model.errors import NodeFull
from septet.ports.clock import Clock

AGAIN = 0.1
"""Seconds until a full node is asked again: an instance that becomes idle tells nobody."""


class Reserving:
    """Implements `ports/memory.Memory`; `evict` lets an instance go that has to."""

    def __init__(
        self, fleet: Fleet, room: Room, evict: Callable[[str], None], clock: Clock, settings: ControlSettings
    ) -> None:
        self._fleet = fleet
        self._room = room
        self._evict = evict
        self._clock = clock
        self._settings = settings

    @contextlib.asynccontextmanager
    async def reserve(self, memory: int, what: str, waits: Callable[[str], None]) -> AsyncIterator[None]:
        budget = self._settings.memory
        if budget and memory > budget:
            raise NodeFull(
                f"{what} needs {memory} MiB of memory, and the node has {budget} MiB for all instances and builds",
                hint="lower build.memory, or raise the node's memory budget (`septet up --memory-budget`)",
                stage="build",
                limit=f"node memory {budget} MiB",
                details={"needed": memory, "budget": budget},
            )
        wanted = Reservation(memory)
        try:
            await self._wait(wanted, what, waits)
            yield
        finally:
            self._fleet.release(wanted)

    async def _wait(self, wanted: Reservation, what: str, waits: Callable[[str], None]) -> None:
        budget = self._settings.memory
        since = self._clock.now()
        entered = told = False
        while True:
            if not entered and (going := self._room.clear(wanted.memory)) is not None:
                for instance in going:
                    self._evict(instance)
                # It counts from here on, so that nobody else takes what goes for it.
                self._fleet.reserve(wanted)
                entered = True
            if wanted.held:
                return
            used = f"{self._fleet.memory()} of {budget} MiB are taken"
            if not told:
                waits(f"waits for {wanted.memory} MiB of the node's memory: {used}")
                told = True
            if self._clock.now() - since >= self._settings.progress:
                raise NodeFull(
                    f"{what} waited {self._settings.progress:g} s for {wanted.memory} MiB of the node's memory: {used}",
                    hint="deploy again when less runs, lower build.memory, or raise the node's memory budget",
                    stage="build",
                    limit=f"node memory {budget} MiB",
                )
            await self._clock.sleep(AGAIN)
