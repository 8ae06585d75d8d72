"""The store's objects in memory, kept current by its watch."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import TypeVar, cast

from septet.model.errors import Expired
from septet.model.function import Revision
from septet.model.objects import KINDS, AnyObject, kind_of
from septet.ports.store import Change, Store

Object = TypeVar("Object")
Listener = Callable[[Change], None]
Key = tuple[str, str]


class Mirror:
    """A view that lags the store by the time of a watch event. Listeners run on the loop and must not block."""

    def __init__(self, store: Store, kinds: frozenset[str] = frozenset(KINDS)) -> None:
        self._store = store
        self._kinds = kinds
        self._objects: dict[str, dict[Key, AnyObject]] = {kind: {} for kind in kinds}
        self._revisions: dict[str, dict[Key, Revision]] = {}
        self._gone: dict[str, int] = {}
        self._listeners: list[Listener] = []
        self._waiting: list[asyncio.Event] = []
        self.synced = asyncio.Event()
        self.version = 0

    def listen(self, listener: Listener) -> None:
        """Calls `listener` for every change from now on, those found by listing again included."""
        self._listeners.append(listener)

    def get(self, kind: type[Object], namespace: str, name: str) -> Object | None:
        return cast("Object | None", self._objects[kind.__name__].get((namespace, name)))

    def all(self, kind: type[Object], namespace: str | None = None) -> Iterator[Object]:
        """Every object of a kind, as a snapshot that may be walked while changes arrive."""
        found = list(self._objects[kind.__name__].items())
        return (cast("Object", obj) for key, obj in found if namespace is None or key[0] == namespace)

    def revisions(self, function_uid: str) -> list[Revision]:
        """Of one function, in no order: the time does not grow with the number of all revisions."""
        return list(self._revisions.get(function_uid, {}).values())

    def apply(self, obj: AnyObject) -> None:
        """Takes over what a write returned, ahead of the watch."""
        self._put(obj)
        self._moved()

    async def reach(self, obj: AnyObject) -> None:
        """Returns when the mirror, and whoever listens to it, has this object as it is here, or newer, or gone."""
        while not self._reached(obj):
            moved = asyncio.Event()
            self._waiting.append(moved)
            await moved.wait()

    def _reached(self, obj: AnyObject) -> bool:
        version = obj.meta.resource_version
        known = self._objects[kind_of(obj)].get((obj.meta.namespace, obj.meta.name))
        return self.version >= version or (known is not None and known.meta.resource_version >= version)

    def _moved(self) -> None:
        waiting, self._waiting = self._waiting, []
        for moved in waiting:
            moved.set()

    async def run(self) -> None:
        """Lists, then follows the watch, for ever; lists again when the watch has lost its place."""
        while True:
            with _no_collection():
                version = await self._list()
            self.synced.set()
            try:
                async for change in self._store.watch(version, self._kinds):
                    if change.type == "put":
                        self._put(change.obj)
                    else:
                        self._delete(change)
                    self.version = change.version
                    self._moved()
            except Expired:
                continue
            return

    async def _list(self) -> int:
        """Reads all kinds; what is no longer there counts as deleted. Returns the version to watch from."""
        oldest = 0
        for kind in sorted(self._kinds):
            found, version = await self._list_kind(kind)
            oldest = min(oldest, version) if oldest else version
            for key, obj in list(self._objects[kind].items()):
                if key not in found and obj.meta.resource_version <= version:
                    self._delete(Change(version, "delete", kind, obj))
            for obj in found.values():
                self._put(obj)
        self.version = oldest
        self._moved()
        return oldest

    async def _list_kind(self, kind: str) -> tuple[dict[Key, AnyObject], int]:
        while True:
            found: dict[Key, AnyObject] = {}
            cursor = ""
            try:
                while True:
                    page = await self._store.page(kind, limit=500, cursor=cursor)
                    found.update(((obj.meta.namespace, obj.meta.name), obj) for obj in page.items)
                    cursor = page.cursor
                    if not cursor:
                        return found, page.version
            except Expired:
                continue

    def _put(self, obj: AnyObject) -> None:
        key = (obj.meta.namespace, obj.meta.name)
        known = self._objects[kind_of(obj)].get(key)
        if obj.meta.resource_version <= self._gone.get(obj.meta.uid, 0):
            return
        if known is not None and known.meta.resource_version >= obj.meta.resource_version:
            return
        self._objects[kind_of(obj)][key] = obj
        if isinstance(obj, Revision):
            if isinstance(known, Revision) and known.spec.function_uid != obj.spec.function_uid:
                self._unlist(key, known)
            self._revisions.setdefault(obj.spec.function_uid, {})[key] = obj
        self._tell(Change(obj.meta.resource_version, "put", kind_of(obj), obj))

    def _delete(self, change: Change) -> None:
        key = (change.obj.meta.namespace, change.obj.meta.name)
        self._gone[change.obj.meta.uid] = change.version
        while len(self._gone) > 1000:
            del self._gone[next(iter(self._gone))]
        known = self._objects[change.kind].get(key)
        if known is not None and known.meta.uid == change.obj.meta.uid:
            del self._objects[change.kind][key]
            if isinstance(known, Revision):
                self._unlist(key, known)
            self._tell(change)

    def _unlist(self, key: Key, revision: Revision) -> None:
        siblings = self._revisions[revision.spec.function_uid]
        del siblings[key]
        if not siblings:
            del self._revisions[revision.spec.function_uid]

    def _tell(self, change: Change) -> None:
        for listener in self._listeners:
            listener(change)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """The cyclic collector would walk all objects again and again while they come in, and later too: they have no
    cycles, so it never looks at them."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was:
            gc.enable()
