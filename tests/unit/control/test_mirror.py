"""The view of the store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
from memory_store import MemoryStore
from world import World, virtual

from septet.control.mirror import Mirror
from septet.model.meta import Meta
from septet.model.objects import Environment, EnvironmentSpec, Namespace


@contextlib.asynccontextmanager
async def following(mirror: Mirror) -> AsyncIterator[None]:
    task = asyncio.create_task(mirror.run())
    await mirror.synced.wait()
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def namespace(name: str) -> Namespace:
    return Namespace(meta=Meta(name=name))


@virtual
async def test_sees_what_was_there_and_what_comes(world: World) -> None:
    store = MemoryStore()
    await store.create(namespace("old"))
    mirror = Mirror(store)
    heard: list[tuple[str, str]] = []
    mirror.listen(lambda change: heard.append((change.type, change.obj.meta.name)))
    async with following(mirror):
        await store.create(namespace("new"))
        await store.delete("Namespace", "", "old")
        await asyncio.sleep(0.1)
        assert [n.meta.name for n in mirror.all(Namespace)] == ["new"]
        assert heard == [("put", "old"), ("put", "new"), ("delete", "old")]


@virtual
async def test_lists_again_when_the_watch_lost_its_place_and_finds_what_went_meanwhile(world: World) -> None:
    store = MemoryStore(keep=2)
    for name in ("a", "b"):
        await store.create(namespace(name))
    mirror = Mirror(store)
    heard: list[tuple[str, str]] = []
    mirror.listen(lambda change: heard.append((change.type, change.obj.meta.name)))
    async with following(mirror):
        await asyncio.sleep(0.1)
        store.break_watches = True
        await store.delete("Namespace", "", "a")
        for name in ("c", "d", "e"):
            await store.create(namespace(name))
        await asyncio.sleep(0.1)
        assert sorted(n.meta.name for n in mirror.all(Namespace)) == ["b", "c", "d", "e"]
        assert ("delete", "a") in heard
        await store.create(namespace("f"))
        await asyncio.sleep(0.1)
        assert mirror.get(Namespace, "", "f") is not None


@virtual
async def test_own_write_is_seen_at_once_and_older_news_do_not_undo_it(world: World) -> None:
    store = MemoryStore()
    mirror = Mirror(store)
    first = await store.create(Environment(meta=Meta(name="e", namespace="n")))
    assert isinstance(first, Environment)
    second = await store.update(msgspec.structs.replace(first, spec=EnvironmentSpec(pool=3)))
    mirror.apply(second)
    mirror.apply(first)
    found = mirror.get(Environment, "n", "e")
    assert found is not None and found.spec.pool == 3


@virtual
async def test_deleted_object_is_not_brought_back_by_a_late_write(world: World) -> None:
    store = MemoryStore()
    mirror = Mirror(store)
    async with following(mirror):
        made = await store.create(namespace("a"))
        await store.delete("Namespace", "", "a")
        await asyncio.sleep(0.1)
        mirror.apply(made)
        assert mirror.get(Namespace, "", "a") is None
        again = await store.create(namespace("a"))
        await asyncio.sleep(0.1)
        found = mirror.get(Namespace, "", "a")
        assert found is not None and found.meta.uid == again.meta.uid != made.meta.uid
