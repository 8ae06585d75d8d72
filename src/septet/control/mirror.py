"""The store's objects in memory, kept current by its watch.

All of them but most functions: those that nothing is left to be done for (`Store.settle`) rest in the store until
somebody asks for one, and only so many of them stay here after that.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, cast

from septet.model.errors import Expired
from septet.model.function import Function, Revision
from septet.model.objects import KINDS, AnyObject, Route, kind_of
from septet.ports.store import Change, Family, Store

Object = TypeVar("Object")
Listener = Callable[[Change], None]
Key = tuple[str, str]
Drop = Callable[[Key, Sequence[Key]], None]

FAMILIES = ("Function", "Revision")
RESTING = 200
"""Functions at rest that stay in memory; one that is used beyond that is read again, which takes about 0.1 ms."""
TRIES = 8


class Mirror:
    """A view that lags the store by the time of a watch event. Listeners run on the loop and must not block.

    A function and its revisions come and go together, and go only when nothing is left to be done for them.
    """

    def __init__(
        self, store: Store, kinds: frozenset[str] = frozenset(KINDS), *, whole: bool = False, resting: int = RESTING
    ) -> None:
        """`whole` keeps everything: for those who hand all of it to other processes."""
        self._store = store
        self._kinds = kinds
        self._whole = whole
        self._most = resting
        self._objects: dict[str, dict[Key, AnyObject]] = {kind: {} for kind in (*kinds, *FAMILIES)}
        self._revisions: dict[Key, dict[Key, Revision]] = {}
        self._routes: dict[Key, dict[Key, Route]] = {}
        """Both by the key of the function."""
        self._awake: dict[Key, None] = {}
        self._resting: dict[Key, None] = {}
        self._gone: dict[str, int] = {}
        self._listeners: list[Listener] = []
        self._readers: list[tuple[Callable[[AnyObject], None], Drop]] = []
        self._in_use: Callable[[Sequence[Revision]], bool] = lambda _: False
        self._waiting: list[asyncio.Event] = []
        self.synced = asyncio.Event()
        self.version = 0

    def listen(self, listener: Listener) -> None:
        """Calls `listener` for every change from now on, those found by listing again included, and for every object
        that something is left to be done for when it is first seen."""
        self._listeners.append(listener)

    def read(self, learn: Callable[[AnyObject], None], drop: Drop) -> None:
        """Calls `learn` for each object at rest that is fetched, and `drop` with the names of a function and its
        revisions that are let go again."""
        self._readers.append((learn, drop))

    def spare(self, in_use: Callable[[Sequence[Revision]], bool]) -> None:
        """A function whose revisions are in use stays here as long as others can go."""
        self._in_use = in_use

    # -- what is known

    def get(self, kind: type[Object], namespace: str, name: str) -> Object | None:
        """The object of that name. A function at rest is read from the store: Unavailable, Corrupt."""
        known = self._objects[kind.__name__].get((namespace, name))
        if known is None and kind.__name__ in FAMILIES and self._may_rest(kind.__name__, (namespace, name)):
            self._fetch(kind.__name__, namespace, name)
            known = self._objects[kind.__name__].get((namespace, name))
        return cast("Object | None", known)

    def all(self, kind: type[Object], namespace: str | None = None) -> Iterator[Object]:
        """Every object of a kind that is here, as a snapshot that may be walked while changes arrive."""
        found = list(self._objects[kind.__name__].items())
        return (cast("Object", obj) for key, obj in found if namespace is None or key[0] == namespace)

    def revisions(self, function: Function) -> list[Revision]:
        """Of one function, in no order: the time does not grow with the number of all revisions."""
        key = (function.meta.namespace, function.meta.name)
        if key not in self._awake and key not in self._resting:
            self._fetch("Function", *key)
        own = self._revisions.get(key, {}).values()
        return [revision for revision in own if revision.spec.function_uid == function.meta.uid]

    def routes_to(self, namespace: str, function: str) -> list[Route]:
        """The routes that name a function of their namespace."""
        return list(self._routes.get((namespace, function), {}).values())

    # -- who rests

    def awake(self) -> list[Key]:
        """(namespace, name) of all functions that something may be left to be done for; some may be gone."""
        return list(self._awake)

    def family(self, key: Key) -> Family | None:
        """What is here of an awake function; None when it is gone, and with it all its revisions."""
        function = cast("Function | None", self._objects["Function"].get(key))
        if function is not None:
            return Family(function, tuple(self.revisions(function)))
        if key not in self._revisions:
            self._awake.pop(key, None)
            return None
        return Family(None, tuple(self._revisions[key].values()))

    def wake(self, namespace: str, name: str) -> None:
        """Something may be left to be done for a function that itself did not change."""
        self._wake((namespace, name))

    def rest(self, family: Family) -> None:
        """The store has noted that it is settled: it may be let go. What changed meanwhile stays awake."""
        if family.function is None:
            return
        key = (family.function.meta.namespace, family.function.meta.name)
        if key in self._awake and self.family(key) == family:
            del self._awake[key]
            self._resting[key] = None
            self._let_go()

    # -- what changes

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
        """Reads all that is to be here; what is no longer there counts as deleted. Returns the version to watch
        from."""
        versions = []
        for kind in sorted(self._kinds - set(FAMILIES)):
            found, version = await self._list_kind(kind)
            versions.append(version)
            for key, obj in list(self._objects[kind].items()):
                if key not in found and obj.meta.resource_version <= version:
                    self._delete(Change(version, "delete", kind, obj))
            for obj in found.values():
                self._put(obj)
        if self._kinds & set(FAMILIES):
            versions.append(await self._list_families())
        self.version = min(versions, default=0)
        self._moved()
        return self.version

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

    async def _list_families(self) -> int:
        """Looks again at those that are here, and takes in those that something is left to be done for."""
        keys, version = await self._store.unsettled()
        for kind in FAMILIES:
            for key, obj in list(self._objects[kind].items()):
                self._look_again(kind, key, obj, version)
        if self._whole:
            keys += [("Function", *key) for key in (await self._list_kind("Function"))[0]]
        for number, (kind, namespace, name) in enumerate(keys):
            if number % 50 == 0:
                await asyncio.sleep(0)
            if (namespace, name) not in self._objects[kind]:
                self._fetch(kind, namespace, name)
        return version

    def _look_again(self, kind: str, key: Key, obj: AnyObject, version: int) -> None:
        family = self._store.family(kind, *key)
        there = _members(family) if family is not None else []
        for found in there:
            self._put(found)
        if all(found.meta.uid != obj.meta.uid for found in there):
            self._delete(Change(version, "delete", kind, obj))

    # -- one object

    def _put(self, obj: AnyObject) -> None:
        if isinstance(obj, Function | Revision):
            self._wake(_family(obj))
        change = self._place(obj)
        if change is not None:
            self._tell(change)

    def _place(self, obj: AnyObject) -> Change | None:
        """Puts it among the others, unless it is older than what is here."""
        key = (obj.meta.namespace, obj.meta.name)
        known = self._objects[kind_of(obj)].get(key)
        if obj.meta.resource_version <= self._gone.get(obj.meta.uid, 0):
            return None
        if known is not None and known.meta.resource_version >= obj.meta.resource_version:
            return None
        if known is not None:
            self._unlist(key, known)
        self._objects[kind_of(obj)][key] = obj
        if isinstance(obj, Revision):
            self._revisions.setdefault(_family(obj), {})[key] = obj
        elif isinstance(obj, Route):
            for function in _led_to(obj):
                self._routes.setdefault(function, {})[key] = obj
        return Change(obj.meta.resource_version, "put", kind_of(obj), obj)

    def _delete(self, change: Change) -> None:
        obj = change.obj
        key = (obj.meta.namespace, obj.meta.name)
        if isinstance(obj, Function | Revision):
            self._wake(_family(obj))
        self._gone[obj.meta.uid] = change.version
        while len(self._gone) > 1000:
            del self._gone[next(iter(self._gone))]
        known = self._objects[change.kind].get(key)
        if known is None and change.kind in FAMILIES:
            # It was at rest: who has something of it all the same must hear.
            self._tell(change)
        if known is not None and known.meta.uid == obj.meta.uid:
            del self._objects[change.kind][key]
            self._unlist(key, known)
            self._tell(change)

    def _unlist(self, key: Key, obj: AnyObject) -> None:
        if isinstance(obj, Revision):
            _take_out(self._revisions, _family(obj), key)
        elif isinstance(obj, Route):
            for function in _led_to(obj):
                _take_out(self._routes, function, key)

    def _tell(self, change: Change) -> None:
        for listener in self._listeners:
            listener(change)

    # -- one function with its revisions

    def _may_rest(self, kind: str, key: Key) -> bool:
        return kind == "Revision" or (key not in self._awake and key not in self._resting)

    def _wake(self, key: Key) -> None:
        """Something is done to it: it stays here with all that belongs to it until it is settled again."""
        if key not in self._awake and key not in self._resting:
            self._fetch("Function", *key)
        self._resting.pop(key, None)
        self._awake[key] = None

    def _fetch(self, kind: str, namespace: str, name: str) -> None:
        """Takes in what is not here; quietly what is at rest, and as news what is not."""
        family = self._store.family(kind, namespace, name)
        if family is None:
            return
        key = _family(family.function or family.revisions[0])
        quiet = family.settled and key not in self._awake and key not in self._resting
        if quiet:
            self._resting[key] = None
        elif key not in self._resting:
            self._awake[key] = None
        changes = [change for obj in _members(family) if (change := self._place(obj)) is not None]
        for change in changes:
            if not quiet:
                self._tell(change)
                continue
            for learn, _ in self._readers:
                learn(change.obj)
        self._let_go()

    def _let_go(self) -> None:
        """Those that came to rest first go first; not for long those that are in use."""
        for _ in range(TRIES):
            if len(self._resting) <= self._most or self._whole:
                return
            key = next(iter(self._resting))
            del self._resting[key]
            own = self._revisions.get(key, {})
            if self._in_use(list(own.values())):
                self._resting[key] = None
                continue
            self._objects["Function"].pop(key, None)
            self._revisions.pop(key, None)
            for revision in own:
                del self._objects["Revision"][revision]
            for _, drop in self._readers:
                drop(key, list(own))


def _members(family: Family) -> list[AnyObject]:
    return [*family.revisions] if family.function is None else [family.function, *family.revisions]


def _family(obj: Function | Revision) -> Key:
    return (obj.meta.namespace, obj.spec.function if isinstance(obj, Revision) else obj.meta.name)


def _led_to(route: Route) -> set[Key]:
    return {(route.meta.namespace, target.function) for target in route.spec.targets}


def _take_out(groups: dict[Key, dict[Key, Object]], group: Key, key: Key) -> None:
    del groups[group][key]
    if not groups[group]:
        del groups[group]


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
