"""What the service may know of instances and of the node (`ports/fleetview.py`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping

from septet.control.fleet import Fleet
from septet.control.mirror import Mirror
from septet.control.references import referred
from septet.control.scaler import Scaler
from septet.model.function import Function
from septet.model.instance import InstanceEvent, InstanceInfo
from septet.model.objects import AnyObject
from septet.ports.clock import Clock
from septet.ports.fleetview import NodeFacts
from septet.ports.sandbox import Check, Sandbox

BACKLOG = 10_000
PATIENCE = 2.0
"""Seconds that a reader waits at most: a control that has lost its lease learns nothing."""


class View:
    """Answers from memory; `checks` asks the default sandbox's driver, which tries and does not assume."""

    def __init__(
        self,
        mirror: Mirror,
        fleet: Fleet,
        scaler: Scaler,
        sandboxes: Mapping[str, Sandbox],
        default: str,
        budget: int,
        clock: Clock,
        zygotes: Callable[[str, str], int] = lambda namespace, function: 0,
    ) -> None:
        self._mirror = mirror
        self._fleet = fleet
        self._scaler = scaler
        self._sandboxes = sandboxes
        self._default = default
        self._budget = budget
        self._clock = clock
        self._zygotes = zygotes
        self._started_at = clock.wall()

    def instances(self, namespace: str = "", function: str = "") -> list[InstanceInfo]:
        return self._fleet.instances(namespace or None, function or None)

    async def watch(self) -> AsyncIterator[InstanceEvent]:
        events: asyncio.Queue[InstanceEvent | None] = asyncio.Queue(BACKLOG)

        def heard(event: InstanceEvent) -> None:
            # A reader that falls too far behind is ended rather than told half of what happened.
            if events.qsize() < BACKLOG - 1:
                events.put_nowait(event)
            elif events.qsize() < BACKLOG:
                events.put_nowait(None)

        stop = self._fleet.listen(heard)
        try:
            for info in self._fleet.instances():
                yield InstanceEvent(instance=info, at=self._clock.wall())
            while (event := await events.get()) is not None:
                yield event
        finally:
            stop()

    def obstacle(self, namespace: str, function: str) -> str:
        known = self._mirror.get(Function, namespace, function)
        if known is None:
            return ""
        for name in sorted(referred(self._mirror, known)):
            ready, error = self._scaler.standing((namespace, name))
            if error is not None and not ready:
                return error.message
        return ""

    def zygotes(self, namespace: str, function: str) -> int:
        return self._zygotes(namespace, function)

    def node(self) -> NodeFacts:
        infos = self._fleet.instances()
        return NodeFacts(
            sandbox=self._default,
            limits=self._sandboxes[self._default].capabilities().limits,
            memory_budget=self._budget,
            memory_used=self._fleet.memory(),
            instances=len(infos),
            started_at=self._started_at,
        )

    def egress_missing(self, sandbox: str = "") -> tuple[Check, ...]:
        return self._sandboxes[sandbox or self._default].capabilities().egress_missing

    async def known(self, objects: Iterable[AnyObject]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                for obj in objects:
                    await self._mirror.reach(obj)

    async def checks(self) -> list[Check]:
        return await self._sandboxes[self._default].probe()
