"""Collecting what nobody refers to; secrets, tokens, routes, the lease."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any, cast

import msgspec
from world import World, condition, virtual

from septet.control.collector import FINALIZER
from septet.control.revising import REDEPLOY
from septet.model.errors import Unavailable
from septet.model.function import SecretUse, TrafficTarget
from septet.model.meta import Meta
from septet.model.objects import (
    Environment,
    EnvironmentSpec,
    Route,
    RouteMatch,
    RouteSpec,
    RouteTarget,
    Secret,
    SecretSpec,
    Token,
    TokenSpec,
)


async def secret(world: World, name: str, **values: str) -> None:
    sealed = {key: world.vault.seal(value.encode(), f"default/{name}/{key}") for key, value in values.items()}
    await world.store.create(Secret(meta=Meta(name=name, namespace="default"), spec=SecretSpec(sealed=sealed)))


def names(world: World) -> list[str]:
    return [key[2] for key in sorted(world.store.objects) if key[0] == "Revision"]


@virtual
async def test_old_revisions_go_but_those_in_use_and_those_retained_stay(world: World) -> None:
    await world.start(sweep=5.0, settle=20.0)
    await world.deploy("hello", retain=1)
    for version in range(4):
        await world.deploy("hello", env={"V": str(version)})
    assert len(names(world)) == 5
    await world.deploy(
        "hello", traffic=(TrafficTarget(percent=0, revision="hello-00002", tag="old"), TrafficTarget(percent=100))
    )
    await asyncio.sleep(15)
    assert len(names(world)) == 5, "they have not been unused for long enough"
    await asyncio.sleep(60)
    assert names(world) == ["hello-00002", "hello-00004", "hello-00005"]
    assert world.ready("hello-00005") == 1


@virtual
async def test_revision_that_a_route_names_stays(world: World) -> None:
    await world.start(sweep=5.0, settle=5.0)
    await world.deploy("hello", retain=0)
    spec = RouteSpec(match=RouteMatch(path="/old"), targets=(RouteTarget(function="hello", revision="hello-00001"),))
    await world.store.create(Route(meta=Meta(name="r", namespace="default"), spec=spec))
    await world.deploy("hello", env={"A": "1"})
    await world.deploy("hello", env={"A": "2"})
    await asyncio.sleep(120)
    assert names(world) == ["hello-00001", "hello-00003"]


@virtual
async def test_unused_bytes_go_after_a_while_and_used_ones_stay(world: World) -> None:
    await world.start(sweep=10.0, keep_unused=100.0)
    world.blobs.held = {"sha256:one": b"", "sha256:stray": b"", "sha256:log": b""}
    await world.deploy("hello", min=1)
    world.trees.held = {world.revision("hello-00001").status.artifact: b"", "tree:stray": b""}
    await asyncio.sleep(80)
    assert len(world.blobs.held) == 3 and len(world.trees.held) == 2
    await asyncio.sleep(60)
    assert set(world.blobs.held) == {"sha256:one", "sha256:log"}
    assert set(world.trees.held) == {world.revision("hello-00001").status.artifact}


@virtual
async def test_what_builds_keep_goes_with_its_namespace_and_is_shared_out(world: World) -> None:
    await world.namespace("default")
    await world.start(sweep=10.0, caches=1000)
    world.trees.caches = ["default.go", "gone.go"]
    await asyncio.sleep(35)
    assert world.trees.trimmed == [("gone.go", 0), ("default.go", 1000)]
    await world.namespace("second")
    world.trees.caches = ["default.go", "second.go"]
    await asyncio.sleep(35)
    assert world.trees.trimmed[2:] == [("default.go", 500), ("second.go", 500)]


@virtual
async def test_nothing_is_taken_away_while_a_build_runs(world: World) -> None:
    await world.start(sweep=10.0, keep_unused=50.0)
    world.builder.delay = 400.0
    world.trees.held = {"tree:in-the-making": b""}
    await world.apply("hello")
    await asyncio.sleep(300)
    assert world.trees.held


@virtual
async def test_finalizer_keeps_a_function_until_its_last_instance_is_gone(world: World) -> None:
    await world.start(sweep=1.0)
    function = await world.deploy("hello", min=1)
    meta = msgspec.structs.replace(function.meta, finalizers=(FINALIZER,), resource_version=0)
    await world.store.update(msgspec.structs.replace(function, meta=meta))
    await asyncio.sleep(1)
    call = world.call("hello", 5.0)
    await world.store.delete("Function", "default", "hello")
    await asyncio.sleep(4)
    assert world.has("Function", "hello")
    await world.until(lambda: not world.has("Function", "hello"), 20)
    assert call.outcome == "hello-00001"
    assert not world.sandbox.running


@virtual
async def test_expired_tokens_go_after_their_time(world: World) -> None:
    await world.start(sweep=1.0, keep_expired=60.0)
    for name, expires in (("soon", world.clock.wall() + 10), ("never", 0.0)):
        await world.store.create(Token(meta=Meta(name=name), spec=TokenSpec(sha256="x", expires_at=expires)))
    await asyncio.sleep(50)
    assert world.has("Token", "soon", "")
    await asyncio.sleep(30)
    assert not world.has("Token", "soon", "")
    assert world.has("Token", "never", "")


@virtual
async def test_instance_gets_its_secrets_and_a_token_of_its_own_that_ends_with_it(world: World) -> None:
    await world.start()
    await secret(world, "db", user="me")
    await world.deploy(
        "hello", secrets=(SecretUse(name="db", env=True),), platform=("functions:invoke",), window=6.0, grace=0.0
    )
    (request,) = world.sandbox.requests.values()
    files = request.containers[0].files
    assert files["/run/secrets/db/user"] == b"me"
    assert request.containers[0].env["user"] == "me"
    token = files["/run/septet/token"]
    assert token.startswith(b"sept_") and len(token) == 48
    stored = cast("Token", world.store.objects[("Token", "", f"instance:{request.id}")])
    assert stored.spec.sha256 == hashlib.sha256(token).hexdigest()
    assert stored.spec.namespaces == ("default",) and stored.spec.verbs == ("functions:invoke",)
    await world.until(lambda: not world.sandbox.running, 30)
    await world.until(lambda: not any(key[0] == "Token" for key in world.store.objects), 5)


@virtual
async def test_token_left_by_an_earlier_life_goes(world: World) -> None:
    await world.start(sweep=1.0)
    await world.deploy("hello", platform=("functions:invoke",))
    (name,) = [key[2] for key in world.store.objects if key[0] == "Token"]
    token = cast("Token", world.store.objects[("Token", "", name)])
    meta = msgspec.structs.replace(token.meta, name="instance:i-gone")
    await world.store.create(msgspec.structs.replace(token, meta=meta))
    await asyncio.sleep(3)
    assert not world.has("Token", "instance:i-gone", "")
    assert world.has("Token", name, "")


@virtual
async def test_missing_secret_fails_the_deploy_by_name_and_so_does_one_for_the_build(world: World) -> None:
    await world.start()
    ready = condition(await world.deploy("a", secrets=(SecretUse(name="nope"),)), "Ready")
    assert ready is not None and ready.status is False and "no secret 'nope'" in ready.message
    from septet.model.function import Build

    ready = condition(await world.deploy("b", build=Build(secret="nope")), "Ready")
    assert ready is not None and ready.status is False and "no secret 'nope'" in ready.message
    await secret(world, "index", URL="https://user:pass@host")
    await world.deploy("c", build=Build(secret="index"))
    assert world.builder.builds[-1] == ("c", {"URL": "https://user:pass@host"})


@virtual
async def test_environment_names_the_runtime_and_its_secrets(world: World) -> None:
    await world.start()
    await secret(world, "shared", key="v")
    spec = EnvironmentSpec(runtime="python", env={"E": "1"}, secrets=(SecretUse(name="shared"),))
    await world.store.create(Environment(meta=Meta(name="env", namespace="default"), spec=spec))
    await world.deploy("hello", runtime="anything", environment="env")
    (request,) = world.sandbox.requests.values()
    assert request.containers[0].runtime == "python"
    assert request.containers[0].env["E"] == "1"
    assert request.containers[0].files == {"/run/secrets/shared/key": b"v"}


@virtual
async def test_route_says_whether_its_targets_exist(world: World) -> None:
    await world.start()
    spec = RouteSpec(match=RouteMatch(path="/x"), targets=(RouteTarget(function="hello", tag="blue"),))
    await world.store.create(Route(meta=Meta(name="r", namespace="default"), spec=spec))

    def ready() -> Any:
        return condition(cast("Any", world.store.objects[("Route", "default", "r")]), "Ready")

    await world.until(lambda: ready() is not None)
    assert ready().status is False and "no function 'hello'" in ready().message
    await world.deploy("hello")
    await world.until(lambda: "no tag 'blue'" in ready().message)
    await world.deploy("hello", traffic=(TrafficTarget(percent=100, tag="blue"),))
    await world.until(lambda: ready().status is True)


@virtual
async def test_redeploy_of_the_same_source_makes_a_revision(world: World) -> None:
    await world.start()
    function = await world.deploy("hello")
    meta = msgspec.structs.replace(function.meta, annotations={REDEPLOY: "again"}, resource_version=0)
    await world.store.update(msgspec.structs.replace(function, meta=meta))
    await world.until(lambda: world.function("hello").status.latest_ready == "hello-00002")


@virtual
async def test_second_control_waits_for_the_lease_and_goes_on_when_the_first_is_dead(world: World) -> None:
    await world.store.acquire("control", "somebody", 30.0)
    began = world.clock.now()
    await world.start()
    assert 29 < world.clock.now() - began < 35
    await world.deploy("hello")
    await asyncio.sleep(60)
    assert await world.store.acquire("control", "somebody", 30.0) is None, "it is renewed"
    assert world.control is not None
    await world.control.stop()
    assert await world.store.acquire("control", "somebody", 30.0) is not None


@virtual
async def test_loop_that_breaks_is_run_again(world: World) -> None:
    await world.start()
    page, broken = world.store.page, 0

    async def unavailable(*args: Any, **options: Any) -> Any:
        nonlocal broken
        broken += 1
        if broken < 4:
            raise Unavailable("the disk is full")
        return await page(*args, **options)

    world.store.page = unavailable  # type: ignore[method-assign]
    world.store.break_watches = True
    await world.store.kick()
    await world.apply("hello")
    await world.settled("hello", 1)
    assert broken >= 4


@virtual
async def test_who_loses_the_lease_changes_nothing_until_it_is_theirs_again(world: World) -> None:
    await world.start(lease=15.0)
    await world.deploy("hello", min=1)
    world.store.leases["control"] = world.store.leases["control"]._replace(
        holder="other", expires_at=world.clock.wall() + 60
    )
    await asyncio.sleep(10)
    await world.apply("hello", env={"A": "1"})
    await asyncio.sleep(30)
    assert names(world) == ["hello-00001"]
    call = world.call("hello")
    await call.ended.wait()
    assert call.outcome == "hello-00001", "what runs goes on"
    await world.settled("hello", 2)
    assert names(world) == ["hello-00001", "hello-00002"]
