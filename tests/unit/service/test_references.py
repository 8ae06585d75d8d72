"""The confused deputy: no field of any object reaches into another namespace.

Each case has a control: the same apply in the namespace that owns the target succeeds, so the refusal is about
whose it is. After GHSA-3r8v-2xmj-5c39, GHSA-cvw6-gfvv-953q and GHSA-vjhc-cf4p-72q4.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from service_world import World

from septet.model.access import Caller
from septet.model.errors import InvalidInput
from septet.model.function import Build, FunctionSpec, FunctionTemplate, SecretUse, TrafficTarget
from septet.model.objects import EnvironmentSpec, RouteMatch, RouteSpec, RouteTarget
from septet.service import commands as c

SOURCE = b"the victim's source"


def function(**fields: Any) -> FunctionSpec:
    traffic = fields.pop("traffic", (TrafficTarget(percent=100),))
    return FunctionSpec(template=FunctionTemplate(runtime="python", **fields), traffic=traffic)


def route(target: RouteTarget, namespace: str) -> RouteSpec:
    return RouteSpec(match=RouteMatch(host=f"{namespace}.example"), targets=(target,))


def references(digest: str, namespace: str) -> dict[str, c.Command[Any]]:
    """Field to a command that names the victim's object through it, as if it were in `namespace`."""

    def apply(**fields: Any) -> c.ApplyFunction:
        return c.ApplyFunction(namespace=namespace, name="caller", spec=function(**fields))

    return {
        "template.source": apply(source=digest),
        "template.environment": apply(environment="env"),
        "template.secrets[].name": apply(secrets=(SecretUse(name="db"),)),
        "template.build.secret": apply(build=Build(secret="db")),
        "traffic[].revision": c.SetTraffic(
            namespace=namespace, name="hello", targets=(TrafficTarget(percent=100, revision="hello-00001"),)
        ),
        "rollback.revision": c.Rollback(namespace=namespace, name="hello", revision="hello-00001"),
        "route.targets[].function": c.ApplyRoute(
            namespace=namespace, name="r", spec=route(RouteTarget(function="only"), namespace)
        ),
        "route.targets[].revision": c.ApplyRoute(
            namespace=namespace, name="r", spec=route(RouteTarget(function="hello", revision="hello-00001"), namespace)
        ),
        "route.targets[].tag": c.ApplyRoute(
            namespace=namespace, name="r", spec=route(RouteTarget(function="tagged", tag="blue"), namespace)
        ),
        "environment.secrets[].name": c.ApplyEnvironment(
            namespace=namespace,
            name="mine",
            spec=EnvironmentSpec(runtime="python", secrets=(SecretUse(name="db"),)),
        ),
    }


FIELDS = sorted(references("sha256:" + "0" * 64, "x"))


async def victim(world: World) -> str:
    await world.namespace("victim")
    await world.namespace("mallory")
    digest = await world.blob("victim", SOURCE)
    await world.run(c.ApplySecret(namespace="victim", name="db", data={"password": b"x"}))
    await world.run(c.ApplyEnvironment(namespace="victim", name="env", spec=EnvironmentSpec(runtime="python")))
    for namespace in ("victim", "mallory"):
        hello = await world.function("hello", namespace=namespace)
        if namespace == "victim":
            await world.revision(hello, 1)
        traffic = (TrafficTarget(percent=100, tag="blue" if namespace == "victim" else "green"),)
        await world.run(c.ApplyFunction(namespace=namespace, name="tagged", spec=function(traffic=traffic)))
    await world.function("only", namespace="victim")
    return digest


@pytest.mark.parametrize("field", FIELDS)
async def test_no_reference_reaches_into_another_namespace(world: World, field: str) -> None:
    digest = await victim(world)
    mallory = Caller(name="mallory", namespaces=("mallory",), verbs=("*",))
    with pytest.raises(InvalidInput):
        await world.run(references(digest, "mallory")[field], mallory)
    owner = Caller(name="owner", namespaces=("victim",), verbs=("*",))
    await world.run(references(digest, "victim")[field], owner)


@pytest.mark.parametrize("name", ["victim/db", "../victim/db", "victim:db", "victim.db", "db\0", "*"])
async def test_no_spelling_of_a_name_reaches_out(world: World, name: str) -> None:
    await victim(world)
    mallory = Caller(name="mallory", namespaces=("mallory",), verbs=("*",))
    command = c.ApplyFunction(namespace="mallory", name="x", spec=function(secrets=(SecretUse(name=name),)))
    with pytest.raises(InvalidInput):
        await world.run(command, mallory)


async def test_the_rules_hold_for_updates_as_for_creation(world: World) -> None:
    digest = await victim(world)
    mallory = Caller(name="mallory", namespaces=("mallory",), verbs=("*",))
    await world.run(c.ApplyFunction(namespace="mallory", name="caller", spec=function()), mallory)
    for field in FIELDS:
        if field.startswith("template."):
            with pytest.raises(InvalidInput):
                await world.run(references(digest, "mallory")[field], mallory)
    stored = await world.run(c.GetFunction(namespace="mallory", name="caller"))
    assert stored.spec == function()


def test_every_reference_field_of_the_model_is_covered() -> None:
    """A new field that names something must be added above: these are all text fields of the specs."""
    free = {"runtime", "handler", "working_directory", "sandbox"}
    fields = {f.name for f in msgspec.structs.fields(FunctionTemplate) if f.type is str} - free
    assert fields == {"source", "environment"}
    assert {f.name for f in msgspec.structs.fields(Build) if f.type is str} == {"secret"}
    assert {f.name for f in msgspec.structs.fields(RouteTarget) if f.type is str} == {"function", "revision", "tag"}
    assert {f.name for f in msgspec.structs.fields(TrafficTarget) if f.type is str} == {"revision", "tag"}


async def test_an_upload_of_another_namespace_looks_as_if_it_were_not_there(world: World) -> None:
    from septet.model.errors import NotFound

    digest = await victim(world)
    with pytest.raises(NotFound):
        await world.run(c.GetBlob(namespace="mallory", digest=digest))
    assert (await world.run(c.GetBlob(namespace="victim", digest=digest))).size == len(SOURCE)
    await world.blob("mallory", SOURCE)
    await world.run(c.GetBlob(namespace="mallory", digest=digest))


async def test_a_function_gets_no_verb_that_its_deployer_lacks(world: World) -> None:
    dev = Caller(name="dev", namespaces=("default",), verbs=("functions:*",))
    for verbs, refused in ((("functions:invoke",), False), (("secrets:read",), True), (("*",), True)):
        command = c.ApplyFunction(namespace="default", name="f", spec=function(platform=verbs))
        if refused:
            with pytest.raises(InvalidInput, match="platform"):
                await world.run(command, dev)
        else:
            await world.run(command, dev)
