"""Route objects: whether what they lead to exists."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from septet.control.mirror import Mirror
from septet.control.references import revisions
from septet.control.status import Statuses, with_condition
from septet.model.function import Function, Revision
from septet.model.meta import Condition
from septet.model.objects import Route, RouteStatus, RouteTarget
from septet.ports.clock import Clock
from septet.ports.store import Change


class Routing:
    """Writes the status of routes."""

    def __init__(self, mirror: Mirror, statuses: Statuses, clock: Clock) -> None:
        self._mirror = mirror
        self._statuses = statuses
        self._clock = clock
        self._dirty: dict[tuple[str, str], None] = {}
        self._wake = asyncio.Event()
        mirror.listen(self._changed)

    async def run(self) -> None:
        """Looks at every route once, and again when anything that it depends on has changed, for ever."""
        self._mark(self._mirror.all(Route))
        while True:
            while self._dirty:
                # Each may read a function that rests: calls go first.
                await asyncio.sleep(0)
                key = next(iter(self._dirty))
                route = self._mirror.get(Route, *key)
                if route is not None:
                    await self._statuses.change(route, self._seen)
                self._dirty.pop(key, None)
            self._wake.clear()
            await self._wake.wait()

    def calm(self, namespace: str, function: str) -> bool:
        """What routes to a function say of it is up to date."""
        routes = self._mirror.routes_to(namespace, function)
        return not any((route.meta.namespace, route.meta.name) in self._dirty for route in routes)

    def _changed(self, change: Change) -> None:
        obj = change.obj
        if isinstance(obj, Route):
            self._mark([obj])
        elif isinstance(obj, Function):
            self._mark(self._mirror.routes_to(obj.meta.namespace, obj.meta.name))
        elif isinstance(obj, Revision):
            self._mark(self._mirror.routes_to(obj.meta.namespace, obj.spec.function))

    def _mark(self, routes: Iterable[Route]) -> None:
        for route in routes:
            self._dirty[route.meta.namespace, route.meta.name] = None
        self._wake.set()

    def _seen(self, route: Route) -> Route:
        problems = [problem for target in route.spec.targets if (problem := self._problem(route, target))]
        condition = Condition(
            type="Ready",
            status=not problems,
            reason="TargetMissing" if problems else "Ready",
            message="; ".join(problems),
            observed_generation=route.meta.generation,
            changed_at=self._clock.wall(),
        )
        status: RouteStatus = msgspec.structs.replace(
            route.status,
            observed_generation=route.meta.generation,
            conditions=with_condition(route.status.conditions, condition),
        )
        return msgspec.structs.replace(route, status=status)

    def _problem(self, route: Route, target: RouteTarget) -> str:
        function = self._mirror.get(Function, route.meta.namespace, target.function)
        if function is None:
            return f"there is no function {target.function!r}"
        if target.revision and not any(r.meta.name == target.revision for r in revisions(self._mirror, function)):
            return f"function {target.function!r} has no revision {target.revision!r}"
        if target.tag and not any(traffic.tag == target.tag for traffic in function.status.traffic):
            return f"function {target.function!r} has no tag {target.tag!r}"
        return ""
