"""The routing table: what a call needs to know of functions, revisions and routes, rebuilt from the store's watch.

Entries are made when they are first asked for after a change, and are immutable after that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from septet.model.errors import NotFound, SeptetError, Unavailable
from septet.model.function import Function, Limits, Revision
from septet.model.objects import AnyObject, Namespace, Quota, Route
from septet.model.runtime import Runtime
from septet.ports.signals import RevisionKey
from septet.ports.store import Change

_NO_QUOTA = Quota()


class RevisionEntry(NamedTuple):
    """A revision that can take calls."""

    key: RevisionKey
    limits: Limits
    concurrency: int


class FunctionEntry(NamedTuple):
    """A function's traffic: (revision, percent) pairs, and revision names by tag."""

    namespace: str
    name: str
    public: bool
    traffic: tuple[tuple[str, int], ...]
    tags: Mapping[str, str]
    revisions: Mapping[str, RevisionEntry]
    why_not: str


class Table:
    """In-memory, owned by the data plane; `apply` is fed with every change in order."""

    def __init__(self, runtimes: Mapping[str, Runtime]) -> None:
        self._runtimes = runtimes
        self._functions: dict[tuple[str, str], Function] = {}
        self._revisions: dict[tuple[str, str], dict[str, Revision]] = {}
        self._entries: dict[tuple[str, str], FunctionEntry] = {}
        self._quotas: dict[str, Quota] = {}
        self._find: Callable[[str, str], object] | None = None
        self.routes: dict[tuple[str, str], Route] = {}
        self.routes_version = 0
        self.version = 0
        self.generation = 0
        """Grows with every change of anything here, so that what was derived from it can be dropped."""

    def attach(self, find: Callable[[str, str], object]) -> None:
        """`find` is asked for a function that is not here; what it finds comes by `learn` before it returns."""
        self._find = find

    def touch(self) -> None:
        """Something that decisions hang on changed elsewhere: what was derived is dropped."""
        self.generation += 1

    def clear(self) -> None:
        """Forgets everything, before a fresh list is applied."""
        for known in (self._functions, self._revisions, self._entries, self._quotas, self.routes):
            known.clear()
        self.routes_version += 1
        self.generation += 1

    def apply(self, change: Change) -> None:
        self.version = change.version
        self.generation += 1
        self._take(change.obj, change.type == "delete")

    def learn(self, obj: AnyObject) -> None:
        """What was there before, and was not known here: nothing that was derived hangs on it."""
        self._take(obj, False)

    def drop(self, key: tuple[str, str]) -> None:
        """A function that did not change is found again when it is asked for."""
        for known in (self._functions, self._revisions, self._entries):
            known.pop(key, None)

    def _take(self, obj: AnyObject, gone: bool) -> None:
        if isinstance(obj, Function):
            key = (obj.meta.namespace, obj.meta.name)
            self._entries.pop(key, None)
            if gone:
                self._functions.pop(key, None)
            else:
                self._functions[key] = obj
        elif isinstance(obj, Revision):
            key = (obj.meta.namespace, obj.spec.function)
            self._entries.pop(key, None)
            known = self._revisions.setdefault(key, {})
            if gone:
                known.pop(obj.meta.name, None)
                if not known:
                    del self._revisions[key]
            else:
                known[obj.meta.name] = obj
        elif isinstance(obj, Route):
            key = (obj.meta.namespace, obj.meta.name)
            self.routes_version += 1
            if gone:
                self.routes.pop(key, None)
            else:
                self.routes[key] = obj
        elif isinstance(obj, Namespace):
            if gone:
                self._quotas.pop(obj.meta.name, None)
            else:
                self._quotas[obj.meta.name] = obj.spec.quota

    def quota(self, namespace: str) -> Quota:
        return self._quotas.get(namespace, _NO_QUOTA)

    def function(self, namespace: str, name: str) -> FunctionEntry | None:
        key = (namespace, name)
        entry = self._entries.get(key)
        if entry is None:
            if key not in self._functions and self._find is not None:
                self._find(namespace, name)
            if key in self._functions:
                entry = self._entries[key] = self._make(self._functions[key])
        return entry

    def functions(self) -> list[tuple[str, str]]:
        """All (namespace, name)."""
        return list(self._functions)

    def _make(self, function: Function) -> FunctionEntry:
        namespace, name = function.meta.namespace, function.meta.name
        revisions = {
            rev.meta.name: self._revision(rev)
            for rev in self._revisions.get((namespace, name), {}).values()
            if rev.status.phase == "ready" and rev.spec.function_uid == function.meta.uid
        }
        tags = {t.tag: t.revision for t in function.status.traffic if t.tag}
        if function.status.latest_ready:
            tags.setdefault("latest", function.status.latest_ready)
        traffic = tuple((t.revision, t.percent) for t in function.status.traffic if t.percent)
        return FunctionEntry(
            namespace, name, function.spec.access == "public", traffic, tags, revisions, _why_not(function)
        )

    def _revision(self, revision: Revision) -> RevisionEntry:
        template = revision.spec.template
        runtime = self._runtimes.get(template.runtime)
        concurrency = template.limits.concurrency or (runtime.concurrency if runtime else 1)
        return RevisionEntry((revision.meta.namespace, revision.meta.name), template.limits, concurrency)


def unknown_function(namespace: str, name: str) -> NotFound:
    return NotFound(
        f"there is no function {name!r} in namespace {namespace!r}",
        hint="`septet list` shows the functions that are there",
        details={"kind": "Function", "name": name, "namespace": namespace},
    )


def not_ready(entry: FunctionEntry) -> SeptetError:
    """Why a function that exists cannot be called."""
    return Unavailable(
        f"{entry.name!r} has no revision that is ready: {entry.why_not or 'the first one is being made'}",
        hint=f"`septet describe {entry.name}` says more",
        stage="route",
        retry_after=1.0,
    )


def _why_not(function: Function) -> str:
    for condition in function.status.conditions:
        if condition.type == "Ready" and condition.status is not True:
            return condition.message or condition.reason
    return ""
