"""What the service may know of instances and of the node (`ports/fleetview.py`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

from septet.control.fleet import Fleet
from septet.control.scaler import Scaler
from septet.model.instance import InstanceEvent, InstanceInfo
from septet.ports.clock import Clock
from septet.ports.fleetview import NodeFacts
from septet.ports.sandbox import Check, Sandbox

BACKLOG = 10_000


class View:
    """Answers from memory; `checks` asks the default sandbox's driver, which tries and does not assume."""

    def __init__(
        self,
        fleet: Fleet,
        scaler: Scaler,
        sandboxes: Mapping[str, Sandbox],
        default: str,
        budget: int,
        clock: Clock,
    ) -> None:
        self._fleet = fleet
        self._scaler = scaler
        self._sandboxes = sandboxes
        self._default = default
        self._budget = budget
        self._clock = clock
        self._started_at = clock.wall()

    def instances(self, namespace: str = "", function: str = "") -> list[InstanceInfo]:
        return self._fleet.instances(namespace or None, function or None)

    async def watch(self) -> AsyncIterator[InstanceEvent]:
        events: asyncio.Queue[InstanceEvent] = asyncio.Queue(BACKLOG)
        stop = self._fleet.listen(events.put_nowait)
        try:
            for info in self._fleet.instances():
                yield InstanceEvent(instance=info, at=self._clock.wall())
            while True:
                yield await events.get()
        finally:
            stop()

    def obstacle(self, namespace: str, function: str) -> str:
        for info in self._fleet.instances(namespace, function):
            _, error = self._scaler.standing((namespace, info.revision))
            if error is not None:
                return error.message
        return ""

    def node(self) -> NodeFacts:
        infos = self._fleet.instances()
        return NodeFacts(
            sandbox=self._default,
            limits=self._sandboxes[self._default].capabilities().limits,
            memory_budget=self._budget,
            memory_used=sum(info.memory for info in infos),
            instances=len(infos),
            started_at=self._started_at,
        )

    async def checks(self) -> list[Check]:
        return await self._sandboxes[self._default].probe()
