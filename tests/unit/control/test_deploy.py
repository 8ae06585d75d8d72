"""Deploying: revisions, builds, readiness, and traffic."""

from __future__ import annotations

import asyncio
from typing import Any

from world import World, condition, virtual

from septet.model.errors import BuildFailed, InitFailed, StartFailed, Unavailable
from septet.model.function import TrafficTarget
from septet.model.instance import InstanceExit


@virtual
async def test_first_deploy_makes_revision_one_and_sends_all_traffic_there(world: World) -> None:
    await world.start()
    function = await world.deploy("hello")
    assert function.status.latest_created == function.status.latest_ready == "hello-00001"
    assert function.status.traffic == (TrafficTarget(percent=100, revision="hello-00001"),)
    assert function.status.observed_generation == function.meta.generation
    revision = world.revision("hello-00001")
    assert revision.status.phase == "ready"
    assert revision.status.artifact.startswith("tree:")
    assert revision.meta.owner is not None and revision.meta.owner.uid == function.meta.uid
    call = world.call("hello")
    await call.ended.wait()
    assert call.outcome == "hello-00001"
    assert call.waited == 0.0


@virtual
async def test_change_of_the_template_makes_a_revision_and_a_change_beside_it_none(world: World) -> None:
    await world.start()
    await world.deploy("hello")
    function = await world.deploy("hello", retain=3)
    assert function.status.latest_created == "hello-00001"
    assert function.status.observed_generation == 2
    function = await world.deploy("hello", env={"A": "b"})
    assert function.status.latest_created == "hello-00002"
    assert function.status.traffic[0].revision == "hello-00002"


@virtual
async def test_no_call_fails_during_deploys_under_load(world: World) -> None:
    await world.start()
    await world.deploy("hello", concurrency=8)
    began = world.clock.now()
    calls = world.clients("hello", 32, 0.03, until=began + 20)
    for version in range(4):
        await asyncio.sleep(2)
        await world.deploy("hello", env={"V": str(version)})
    await asyncio.sleep(began + 21 - world.clock.now())
    served = [call.outcome for call in calls]
    assert len(served) > 1000
    assert all(isinstance(outcome, str) for outcome in served), [o for o in served if not isinstance(o, str)][:3]
    assert set(served) >= {"hello-00001", "hello-00005"}
    assert served[-1] == "hello-00005"


@virtual
async def test_failed_build_says_why_and_leaves_traffic_alone(world: World) -> None:
    await world.start()
    await world.deploy("hello")
    world.builder.refuse = lambda template: (
        BuildFailed("pip ended with code 1", hint="read the log", details={"log": "no such package: nope"})
        if template.source == "sha256:two"
        else None
    )
    function = await world.deploy("hello", source="sha256:two")
    ready = condition(function, "Ready")
    assert ready is not None and ready.status is False
    assert ready.reason == "build-failed"
    assert "pip ended with code 1" in ready.message and "no such package: nope" in ready.message
    traffic = condition(function, "TrafficReady")
    assert traffic is not None and traffic.status is True
    assert function.status.traffic[0].revision == "hello-00001"
    failed = world.revision("hello-00002")
    assert failed.status.phase == "failed"
    assert world.blobs.held[failed.status.build_log] == b"no such package: nope"
    call = world.call("hello")
    await call.ended.wait()
    assert call.outcome == "hello-00001"


@virtual
async def test_handler_that_cannot_be_loaded_fails_the_revision_at_once_with_its_trace(world: World) -> None:
    await world.start()
    world.contract.refuse = lambda info, template: (
        InitFailed("the handler cannot be loaded", details={"trace": "ImportError: no module named nope"})
        if template.handler == "bad"
        else None
    )
    await world.deploy("hello")
    began = world.clock.now()
    function = await world.deploy("hello", handler="bad")
    assert world.clock.now() - began < 2
    ready = condition(function, "Ready")
    assert ready is not None and ready.reason == "init-failed" and "no module named nope" in ready.message
    assert function.status.traffic[0].revision == "hello-00001"
    await world.until(lambda: not any(i.revision == "hello-00002" for i in world.sandbox.running.values()))


@virtual
async def test_process_that_ends_before_it_is_ready_is_tried_again_then_given_up(world: World) -> None:
    await world.start(attempts=3)
    world.sandbox.dies = lambda info: InstanceExit(code=5, message="it ended with code 5")
    function = await world.deploy("hello")
    ready = condition(function, "Ready")
    assert ready is not None and ready.status is False
    assert "code 5" in ready.message
    assert len(world.sandbox.requests) == 3
    assert function.status.traffic == ()


@virtual
async def test_one_bad_start_does_not_fail_a_deploy(world: World) -> None:
    await world.start()
    ends = iter([InstanceExit(code=1), None])
    world.sandbox.dies = lambda info: next(ends, None)
    function = await world.deploy("hello")
    assert function.status.latest_ready == "hello-00001"


@virtual
async def test_exit_reason_wins_over_a_stream_that_just_ended(world: World) -> None:
    await world.start(attempts=1)

    def refuse(info: Any, template: Any) -> Any:
        loop = asyncio.get_running_loop()
        loop.call_later(0.1, world.sandbox.end, info.id, InstanceExit(signal=9, limit="memory"))
        return StartFailed("the stream ended")

    world.contract.refuse = refuse
    ready = condition(await world.deploy("hello"), "Ready")
    assert ready is not None and ready.reason == "function-out-of-memory"


@virtual
async def test_interrupted_build_goes_on_after_a_restart(world: World) -> None:
    await world.start()
    world.builder.delay = 1000.0
    await world.apply("hello")
    await world.until(
        lambda: world.has("Revision", "hello-00001") and world.revision("hello-00001").status.phase == "building"
    )
    assert world.control is not None
    await world.control.stop()
    world.builder.delay = 0.1
    await world.start()
    function = await world.settled("hello", 1)
    assert function.status.latest_ready == "hello-00001"
    assert len(world.builder.builds) == 2


@virtual
async def test_crash_between_revision_and_status_does_not_make_a_second_revision(world: World) -> None:
    await world.start()
    broken = asyncio.Event()

    async def before(obj: Any) -> None:
        if obj.meta.name == "hello" and not broken.is_set():
            broken.set()
            raise Unavailable("the disk is slow")

    world.store.before_status = before
    function = await world.deploy("hello")
    assert broken.is_set()
    assert function.status.latest_created == "hello-00001"
    assert not world.has("Revision", "hello-00002")


@virtual
async def test_weights_pinned_revisions_and_tags_are_resolved(world: World) -> None:
    await world.start()
    await world.deploy("hello")
    await world.deploy("hello", env={"A": "1"})
    function = await world.deploy(
        "hello",
        traffic=(TrafficTarget(percent=20, revision="hello-00001", tag="old"), TrafficTarget(percent=80)),
    )
    assert function.status.traffic == (
        TrafficTarget(percent=20, revision="hello-00001", tag="old"),
        TrafficTarget(percent=80, revision="hello-00002"),
    )
    function = await world.deploy("hello", env={"A": "2"})
    assert [t.revision for t in function.status.traffic] == ["hello-00001", "hello-00003"]


@virtual
async def test_traffic_to_a_revision_that_does_not_exist_changes_nothing(world: World) -> None:
    await world.start()
    await world.deploy("hello")
    function = await world.deploy("hello", percent={"hello-00009": 100})
    ready = condition(function, "TrafficReady")
    assert ready is not None and ready.status is False and ready.reason == "RevisionMissing"
    assert function.status.traffic[0].revision == "hello-00001"


@virtual
async def test_rollback_is_the_move_of_a_pointer(world: World) -> None:
    await world.start()
    await world.deploy("hello")
    await world.deploy("hello", env={"A": "1"})
    builds, started = len(world.builder.builds), world.clock.now()
    function = await world.deploy("hello", percent={"hello-00001": 100})
    assert function.status.traffic == (TrafficTarget(percent=100, revision="hello-00001"),)
    assert len(world.builder.builds) == builds
    assert world.clock.now() - started < 1


@virtual
async def test_gradual_rollout_climbs_from_one_percent_and_a_second_deploy_goes_on_from_there(world: World) -> None:
    await world.start()
    await world.deploy("hello", rollout=20.0)
    await world.apply("hello", env={"A": "1"})
    await world.until(lambda: world.function("hello").status.latest_ready == "hello-00002")
    seen: list[dict[str, int]] = []
    for _ in range(10):
        seen.append({t.revision: t.percent for t in world.function("hello").status.traffic})
        await asyncio.sleep(1)
    assert seen[0] == {"hello-00001": 99, "hello-00002": 1}
    shares = [mix["hello-00002"] for mix in seen]
    assert shares == sorted(shares) and 30 < shares[-1] < 70
    ready = condition(world.function("hello"), "TrafficReady")
    assert ready is not None and ready.status is None and ready.reason == "RolloutInProgress"
    await world.apply("hello", env={"A": "2"})
    await world.until(lambda: world.function("hello").status.latest_ready == "hello-00003")
    mix = {t.revision: t.percent for t in world.function("hello").status.traffic}
    assert mix["hello-00003"] == 1 and mix["hello-00001"] > 20 and mix["hello-00002"] > 20
    function = await world.settled("hello", 3)
    assert function.status.traffic == (TrafficTarget(percent=100, revision="hello-00003"),)
    assert function.status.rollout_started_at == 0


@virtual
async def test_builds_wait_for_each_other(world: World) -> None:
    await world.namespace(builds=1)
    await world.start(builds=2)
    world.builder.delay = 1.0
    for name in ("a", "b", "c"):
        await world.apply(name)
        await world.apply(name, namespace="other")
    for name in ("a", "b", "c"):
        await world.settled(name, 1)
        await world.settled(name, 1, "other")
    assert world.builder.most == 2
    assert len(world.builder.builds) == 6


@virtual
async def test_deleted_function_takes_its_revisions_and_instances_along(world: World) -> None:
    await world.start(sweep=1.0)
    await world.deploy("hello", min=1)
    await world.store.delete("Function", "default", "hello")
    await world.until(lambda: not world.sandbox.running, 5)
    assert not world.has("Revision", "hello-00001")
    await world.until(lambda: ("default", "hello") in world.logs.deleted, 5)


@virtual
async def test_built_revision_is_not_built_again_after_a_restart(world: World) -> None:
    await world.start()
    world.contract.init_delay = 1000.0
    await world.apply("hello", start_timeout=2000.0)
    await world.until(lambda: bool(world.sandbox.running))
    assert world.control is not None
    await world.control.stop()
    world.contract.init_delay = 0.02
    await world.start()
    function = await world.settled("hello", 1)
    assert function.status.latest_ready == "hello-00001"
    assert len(world.builder.builds) == 1


@virtual
async def test_spec_that_changes_while_its_status_is_written_is_not_overlooked(world: World) -> None:
    await world.start()
    await world.deploy("hello")
    changed = 0

    async def before(obj: Any) -> None:
        nonlocal changed
        if obj.meta.name == "hello" and changed < 3:
            changed += 1
            await world.apply("hello", retain=changed)

    world.store.before_status = before
    await world.apply("hello", env={"A": "1"})
    await world.until(lambda: changed == 3)
    function = await world.settled("hello", world.function("hello").meta.generation)
    assert function.status.latest_ready == "hello-00002"
    assert function.status.traffic[0].revision == "hello-00002"


@virtual
async def test_a_source_that_is_not_there_is_said_and_what_served_still_serves(world: World) -> None:
    """Written straight into the store, past the checks of the API."""
    await world.start()
    await world.deploy("hello")
    world.blobs.gone.add("sha256:none")
    ready = condition(await world.deploy("hello", source="sha256:none"), "Ready")
    assert ready is not None and (ready.status, ready.reason) == (False, "invalid-input")
    assert "source: there are no bytes of sha256:none" in ready.message
    assert world.revision("hello-00002").status.phase == "failed"
    call = world.call("hello")
    await call.ended.wait()
    assert call.outcome == "hello-00001"
