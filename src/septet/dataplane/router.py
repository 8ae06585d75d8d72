"""Which revision a call goes to: by the function's traffic, by a tag or revision in the address, or by a route."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from septet.dataplane.table import FunctionEntry, RevisionEntry, Table, not_ready, unknown_function
from septet.model.errors import InvalidInput, NotFound
from septet.model.objects import Route, RouteTarget
from septet.policy import routes
from septet.wire.callroute import CallRoute

GOALS = 1024
GOAL_SIZE = 512
"""So many targets of at most so many bytes are remembered with their goals."""


class Goal(NamedTuple):
    """A call's function, its revision, and the target (path and query) that the function sees. `steady`: until the
    table changes, every such request has this goal."""

    function: FunctionEntry
    revision: RevisionEntry
    target: bytes
    steady: bool = False


class Router:
    """Pure look-ups in the table; `random` gives numbers in [0, 1)."""

    def __init__(self, table: Table, random: Callable[[], float]) -> None:
        self.table = table
        self._random = random
        self._entries: tuple[routes.Entry, ...] = ()
        self._entries_of = -1
        self._goals: dict[tuple[bytes, bool, str, bytes], Goal] = {}
        self._goals_of = -1

    def named(self, route: CallRoute, target: bytes) -> Goal:
        """The goal of a request under a call route's prefix; NotFound, Unavailable, InvalidInput.

        Goals without a choice by chance are remembered until the table changes.
        """
        if self._goals_of != self.table.generation:
            self._goals.clear()
            self._goals_of = self.table.generation
        key = (route.prefix, route.namespaced, route.namespace, target)
        goal = self._goals.get(key)
        if goal is None:
            goal = self._find(route, target)
            if goal.steady and len(target) <= GOAL_SIZE:
                if len(self._goals) >= GOALS:
                    self._goals.clear()
                self._goals[key] = goal
        return goal

    def _find(self, route: CallRoute, target: bytes) -> Goal:
        path, mark, query = target.partition(b"?")
        parts = path[len(route.prefix) :].split(b"/", 2 if route.namespaced else 1)
        namespace = _segment(parts.pop(0)) if route.namespaced else route.namespace
        if not parts or not parts[0]:
            raise NotFound("the address names no function", hint=f"call {_shape(route)}")
        name, _, pick = _segment(parts[0]).partition("@")
        function = self.table.function(namespace, name)
        if function is None:
            raise unknown_function(namespace, name)
        rest = b"/" + (parts[1] if len(parts) > 1 else b"")
        steady = bool(pick) or len(function.traffic) == 1
        return Goal(function, self.revision(function, pick), rest + mark + query, steady)

    def matched(self, host: bytes, target: bytes, method: bytes) -> Goal | tuple[str, ...]:
        """The goal of the route object that the request belongs to, or the methods that would have matched."""
        if not self.table.routes:
            return ()
        path, mark, query = target.partition(b"?")
        found = routes.find(self._routes(), host.decode("latin-1"), path.decode("latin-1"), method.decode("latin-1"))
        if isinstance(found, routes.Miss):
            return found.allow
        chosen = self._weighted(found.route)
        function = self.table.function(found.route.meta.namespace, chosen.function)
        if function is None:
            raise unknown_function(found.route.meta.namespace, chosen.function)
        rest = found.rest.encode("latin-1") if found.route.spec.strip else path
        pick = chosen.revision or chosen.tag
        steady = len(found.route.spec.targets) == 1 and (bool(pick) or len(function.traffic) == 1)
        return Goal(function, self.revision(function, pick), rest + mark + query, steady)

    def revision(self, function: FunctionEntry, pick: str = "") -> RevisionEntry:
        """The revision named or tagged `pick`, else one by the shares of the traffic."""
        if pick:
            entry = function.revisions.get(function.tags.get(pick, pick))
            if entry is None:
                raise NotFound(
                    f"{function.name!r} has no ready revision and no tag named {pick!r}",
                    hint=f"`septet revisions {function.name}` lists them",
                    details={"kind": "Revision", "name": pick, "namespace": function.namespace},
                )
            return entry
        if len(function.traffic) == 1:
            entry = function.revisions.get(function.traffic[0][0])
            if entry is not None:
                return entry
        left = self._random() * sum(percent for _, percent in function.traffic)
        for name, percent in function.traffic:
            left -= percent
            entry = function.revisions.get(name)
            if left < 0 and entry is not None:
                return entry
        raise not_ready(function)

    def _routes(self) -> tuple[routes.Entry, ...]:
        if self._entries_of != self.table.routes_version:
            self._entries = routes.table(self.table.routes.values())
            self._entries_of = self.table.routes_version
        return self._entries

    def _weighted(self, route: Route) -> RouteTarget:
        targets = route.spec.targets
        left = self._random() * sum(target.weight for target in targets)
        for target in targets:
            left -= target.weight
            if left < 0:
                return target
        return targets[-1]


def _segment(raw: bytes) -> str:
    try:
        return (unquote_to_bytes(raw) if b"%" in raw else raw).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput("a name in the address is not UTF-8", details={"field": "path"}) from error


def _shape(route: CallRoute) -> str:
    return route.prefix.decode() + ("<namespace>/<function>" if route.namespaced else "<function>")
