"""A store in memory, by the words of the port, for tests of what stands on it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from septet.model.errors import Conflict, Corrupt, Expired, NotFound, Unavailable
from septet.model.function import Function, Revision
from septet.model.objects import AnyObject, kind_of
from septet.ports.store import Change, Family, LeaseGrant, Page

Key = tuple[str, str, str]


class MemoryStore:
    """`keep` changes are kept for watches; `writes` counts commits."""

    def __init__(self, keep: int = 100_000, wall: Any = None) -> None:
        self.objects: dict[Key, AnyObject] = {}
        self.changes: list[Change] = []
        self.keep = keep
        self.oldest = 0
        self.writes = 0
        self.number = 0
        self.closed = False
        self.break_watches = False
        self.before_status: Any = None
        self.open: set[Key] = set()
        self.families = 0
        self.leases: dict[str, LeaseGrant] = {}
        self.memories: dict[str, bytes] = {}
        self.remembered = 0
        self.forgetful = False
        self._uids = itertools.count(1)
        self._more = asyncio.Condition()
        self._wall = wall or (lambda: 0.0)

    def _key(self, obj: AnyObject) -> Key:
        return (kind_of(obj), obj.meta.namespace, obj.meta.name)

    async def _commit(self, type: Any, obj: AnyObject, **meta: object) -> AnyObject:
        self.number += 1
        self.writes += 1
        stored = msgspec.structs.replace(
            obj, meta=msgspec.structs.replace(obj.meta, resource_version=self.number, **meta)
        )
        if type == "put":
            self.objects[self._key(stored)] = stored
        else:
            self.objects.pop(self._key(stored), None)
            self.open.discard(self._key(stored))
        if isinstance(stored, Function | Revision):
            function = stored.spec.function if isinstance(stored, Revision) else stored.meta.name
            touched = {self._key(stored), ("Function", stored.meta.namespace, function)}
            self.open |= touched & self.objects.keys()
        self.changes.append(Change(self.number, type, kind_of(stored), stored))
        while len(self.changes) > self.keep:
            self.oldest = self.changes.pop(0).version
        async with self._more:
            self._more.notify_all()
        return stored

    async def create(self, obj: AnyObject) -> AnyObject:
        if self._key(obj) in self.objects:
            raise Conflict(f"{self._key(obj)} exists")
        return await self._commit(
            "put", obj, uid=f"uid-{next(self._uids)}", generation=1, created_at=self._wall(), deleting_since=None
        )

    async def get(self, kind: str, namespace: str, name: str) -> AnyObject:
        found = self.objects.get((kind, namespace, name))
        if found is None:
            raise NotFound(f"no {kind} {name}", details={"kind": kind, "name": name})
        return found

    async def page(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        labels: dict[str, str] | None = None,
        limit: int = 0,
        cursor: str = "",
    ) -> Page:
        found = [
            obj
            for key, obj in sorted(self.objects.items())
            if key[0] == kind and namespace in (None, key[1]) and (labels or {}).items() <= obj.meta.labels.items()
        ]
        return Page(tuple(found), self.number, "")

    def _current(self, obj: AnyObject) -> AnyObject:
        found = self.objects.get(self._key(obj))
        if found is None or found.meta.uid != obj.meta.uid:
            raise NotFound(f"{self._key(obj)} is gone")
        if obj.meta.resource_version not in (0, found.meta.resource_version):
            raise Conflict(f"{self._key(obj)} changed")
        return found

    async def update(self, obj: AnyObject) -> AnyObject:
        found = self._current(obj)
        grown = found.meta.generation + (obj.spec != found.spec)
        new: Any = obj
        if hasattr(found, "status"):
            new = msgspec.structs.replace(new, status=found.status)
        if found.meta.deleting_since is not None and not obj.meta.finalizers:
            return await self._remove(found)
        return await self._commit(
            "put", new, generation=grown, deleting_since=found.meta.deleting_since, created_at=found.meta.created_at
        )

    async def update_status(self, obj: AnyObject) -> AnyObject:
        if self.before_status is not None:
            await self.before_status(obj)
        found: Any = self._current(obj)
        given: Any = obj
        if given.status == found.status:
            return found  # type: ignore[no-any-return]
        return await self._commit("put", msgspec.structs.replace(found, status=given.status))

    async def delete(self, kind: str, namespace: str, name: str, *, resource_version: int = 0) -> AnyObject:
        found = await self.get(kind, namespace, name)
        if found.meta.finalizers:
            return await self._commit("put", found, deleting_since=1.0)
        return await self._remove(found)

    async def _remove(self, obj: AnyObject) -> AnyObject:
        removed = await self._commit("delete", obj)
        for other in list(self.objects.values()):
            if other.meta.owner is not None and other.meta.owner.uid == obj.meta.uid:
                await self.delete(kind_of(other), other.meta.namespace, other.meta.name)
        return removed

    async def watch(self, after: int, kinds: frozenset[str] | None = None) -> AsyncIterator[Change]:
        if after < self.oldest:
            raise Expired("too old")
        while not self.closed:
            if self.break_watches:
                self.break_watches = False
                raise Expired("too old")
            ready = [c for c in self.changes if c.version > after]
            for change in ready:
                after = change.version
                if kinds is None or change.kind in kinds:
                    yield change
            if not ready:
                async with self._more:
                    await self._more.wait()

    def family(self, kind: str, namespace: str, name: str) -> Family | None:
        self.families += 1
        found = self.objects.get((kind, namespace, name))
        if isinstance(found, Revision):
            function = self.objects.get(("Function", namespace, found.spec.function))
            if function is None or function.meta.uid != found.spec.function_uid:
                return Family(None, (found,))
            found = function
        if not isinstance(found, Function):
            return None
        uid, own = found.meta.uid, list(self.objects.values())
        revisions = tuple(r for r in own if isinstance(r, Revision) and r.spec.function_uid == uid)
        return Family(found, revisions, self._key(found) not in self.open)

    async def settle(self, families: Sequence[Family]) -> list[tuple[str, str]]:
        noted = []
        for each in families:
            assert each.function is not None
            meta = each.function.meta
            now = self.family("Function", meta.namespace, meta.name)
            versions = [sorted(r.meta.resource_version for r in f.revisions) for f in (each, now or Family(None, ()))]
            if now is not None and now.function == each.function and versions[0] == versions[1]:
                self.open -= {("Function", meta.namespace, meta.name)}
                self.open -= {self._key(revision) for revision in each.revisions}
                noted.append((meta.namespace, meta.name))
        return noted

    async def unsettled(self) -> tuple[list[Key], int]:
        return sorted(self.open), self.number

    async def version(self) -> int:
        return self.number

    async def acquire(self, name: str, holder: str, seconds: float) -> LeaseGrant | None:
        now = self._wall()
        held = self.leases.get(name)
        if held is not None and held.holder != holder and held.expires_at > now:
            return None
        fence = held.fence + (held.holder != holder) if held else 1
        self.leases[name] = LeaseGrant(name, holder, fence, now + seconds)
        return self.leases[name]

    async def release(self, name: str, holder: str) -> None:
        if name in self.leases and self.leases[name].holder == holder:
            self.leases[name] = self.leases[name]._replace(expires_at=0.0)

    async def record_audit(self, entry: dict[str, object]) -> None:
        raise AssertionError("control writes no audit")

    async def read_audit(self, limit: int = 100, before: int = 0) -> list[dict[str, object]]:
        return []

    async def remember(self, memories: Mapping[str, bytes | None]) -> None:
        if self.forgetful:
            raise Unavailable("the disk is full")
        self.remembered += 1
        for name, data in memories.items():
            if data is None:
                self.memories.pop(name, None)
            else:
                self.memories[name] = data

    async def recollect(self, prefix: str) -> dict[str, bytes]:
        if self.forgetful:
            raise Corrupt("the table is damaged")
        return {name: data for name, data in self.memories.items() if name.startswith(prefix)}

    async def backup(self, path: Path) -> None:
        raise AssertionError("control makes no backup")

    async def check(self) -> list[str]:
        return []

    async def close(self) -> None:
        self.closed = True
        async with self._more:
            self._more.notify_all()

    async def kick(self) -> None:
        """Lets every watch look again, for example to break."""
        async with self._more:
            self._more.notify_all()
