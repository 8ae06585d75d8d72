"""Namespaces come, go with everything in them, and finish going after a crash."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from service_world import World

from septet.model.errors import Conflict, NotFound
from septet.model.function import FunctionSpec, FunctionTemplate, SecretUse
from septet.model.objects import EnvironmentSpec, NamespaceSpec, Quota, RouteMatch, RouteSpec, RouteTarget
from septet.service import commands as c


async def fill(world: World, namespace: str) -> None:
    await world.namespace(namespace)
    await world.run(c.ApplySecret(namespace=namespace, name="db", data={"k": b"v"}))
    await world.run(c.ApplyEnvironment(namespace=namespace, name="env", spec=EnvironmentSpec(runtime="python")))
    function = await world.function(namespace=namespace, environment="env", secrets=(SecretUse(name="db"),))
    await world.revision(function, 1)
    spec = RouteSpec(match=RouteMatch(host="a.example"), targets=(RouteTarget(function="hello"),))
    await world.run(c.ApplyRoute(namespace=namespace, name="r", spec=spec))


async def left(world: World, namespace: str) -> list[str]:
    found = []
    for kind in ("Function", "Revision", "Route", "Secret", "Environment"):
        found += [obj.meta.name for obj in (await world.store.page(kind, namespace)).items]
    return found


async def test_deleting_a_namespace_takes_everything_in_it_and_nothing_else(world: World) -> None:
    await fill(world, "one")
    await fill_other(world)
    before = await left(world, "two")
    await world.run(c.DeleteNamespace(name="one"))
    assert await left(world, "one") == []
    assert await left(world, "two") == before
    with pytest.raises(NotFound):
        await world.run(c.GetNamespace(namespace="one"))


async def fill_other(world: World) -> None:
    await world.namespace("two")
    await world.function(namespace="two")
    await world.run(c.ApplySecret(namespace="two", name="db", data={"k": b"v"}))


async def test_a_namespace_waits_for_what_has_to_end_first(world: World) -> None:
    await fill(world, "slow")
    function = await world.run(c.GetFunction(namespace="slow", name="hello"))
    held = msgspec.structs.replace(function, meta=msgspec.structs.replace(function.meta, finalizers=("test/hold",)))
    held = await world.store.update(held)
    await world.run(c.DeleteNamespace(name="slow"))
    keeping = asyncio.create_task(world.service.keep_house())
    await asyncio.sleep(0.05)
    assert (await world.run(c.GetNamespace(namespace="slow"))).meta.deleting_since is not None
    current = await world.store.get("Function", "slow", "hello")
    await world.store.update(
        msgspec.structs.replace(current, meta=msgspec.structs.replace(current.meta, finalizers=()))
    )
    keeping.cancel()
    keeping = asyncio.create_task(world.service.keep_house())
    async with asyncio.timeout(5):
        while (await world.store.page("Namespace")).items[-1].meta.name == "slow":
            await asyncio.sleep(0.01)
    keeping.cancel()
    assert await left(world, "slow") == []


async def test_default_stays(world: World) -> None:
    with pytest.raises(Conflict):
        await world.run(c.DeleteNamespace(name="default"))


async def test_the_quota_of_functions_holds(world: World) -> None:
    from septet.model.errors import QuotaExceeded

    await world.namespace("small", NamespaceSpec(quota=Quota(functions=1)))
    await world.function("one", namespace="small")
    with pytest.raises(QuotaExceeded, match="1 of functions"):
        await world.function("two", namespace="small")
    spec = FunctionSpec(template=FunctionTemplate(runtime="node"))
    applied = await world.run(c.ApplyFunction(namespace="small", name="one", spec=spec))
    assert applied.action == "updated"


async def test_the_quota_of_storage_holds(world: World) -> None:
    from septet.model.errors import QuotaExceeded

    await world.namespace("small", NamespaceSpec(quota=Quota(storage=1)))
    first = await world.blob("small", b"a" * 700_000)
    with pytest.raises(QuotaExceeded, match="storage"):
        await world.blob("small", b"b" * 700_000)
    assert await world.blob("small", b"a" * 700_000) == first
