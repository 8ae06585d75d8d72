"""Scaling: to and from zero, with load, on a full node, with quotas, with functions that do not start."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from world import World, condition, virtual

from septet.model.errors import InitFailed, NodeFull, NotFound, QuotaExceeded, SeptetError, StartFailed
from septet.model.instance import InstanceExit


async def all_of(calls: list[Any]) -> list[Any]:
    for call in calls:
        await call.ended.wait()
    return [call.outcome for call in calls]


@virtual
async def test_idle_function_goes_to_zero_after_window_and_grace_and_comes_back_with_a_call(world: World) -> None:
    await world.start()
    await world.deploy("hello", window=6.0, grace=4.0)
    served = world.clock.now()
    await asyncio.sleep(8)
    assert world.ready() == 1, "the grace is not over"
    await world.until(lambda: not world.sandbox.running, 10)
    assert world.clock.now() - served < 16
    assert world.control is not None
    assert world.control.scaler.cold_reason(("default", "hello-00001")) == "scaled-to-zero"
    call = world.call("hello")
    await call.ended.wait()
    assert call.outcome == "hello-00001"
    assert call.waited == pytest.approx(0.07, abs=0.03)
    assert world.control.scaler.cold_reason(("default", "hello-00001")) == "burst"


@virtual
async def test_minimum_is_kept_and_comes_back_after_a_crash(world: World) -> None:
    await world.start()
    await world.deploy("hello", min=2, window=6.0, grace=0.0)
    assert world.ready() == 2
    await asyncio.sleep(60)
    assert world.ready() == 2
    world.sandbox.end(next(iter(world.sandbox.running)), InstanceExit(code=1))
    await asyncio.sleep(3)
    assert world.ready() == 2


@virtual
async def test_two_hundred_first_calls_with_four_instances_all_answer(world: World) -> None:
    await world.start()
    await world.deploy("hello", max=4, window=6.0, grace=0.0)
    await world.until(lambda: not world.sandbox.running, 60)
    outcomes = await all_of([world.call("hello", 0.1) for _ in range(200)])
    assert outcomes == ["hello-00001"] * 200
    assert world.sandbox.most == 4


@virtual
async def test_burst_of_short_calls_does_not_start_an_instance_for_each(world: World) -> None:
    await world.start(step=4)
    await world.deploy("hello", window=6.0, grace=0.0)
    await world.until(lambda: not world.sandbox.running, 60)
    started = len(world.sandbox.requests)
    assert set(await all_of([world.call("hello", 0.001) for _ in range(200)])) == {"hello-00001"}
    assert len(world.sandbox.requests) - started <= 8


@virtual
async def test_step_of_load_is_met_within_eight_seconds_and_held_while_panicking(world: World) -> None:
    await world.start()
    await world.deploy("hello", runtime="http", command=("./server",), target=10.0)
    began = world.clock.now()
    calls = world.clients("hello", 1, 0.5, until=began + 70)
    await asyncio.sleep(20)
    assert world.ready() == 1
    step = world.clock.now()
    calls += world.clients("hello", 99, 0.5, until=step + 20)
    await asyncio.sleep(8)
    assert world.ready() >= 14
    peak = world.ready()
    await asyncio.sleep(30)
    assert world.ready() >= peak, "none goes while it panics"
    await asyncio.sleep(100)
    assert world.ready() <= 2
    assert all(isinstance(call.outcome, str) for call in calls)


@virtual
async def test_function_that_never_becomes_ready_fails_its_callers_with_its_own_error(world: World) -> None:
    await world.start()
    await world.deploy("bad", window=6.0, grace=0.0)
    await world.deploy("good")
    await world.until(lambda: not any(i.function == "bad" for i in world.sandbox.running.values()), 60)
    world.contract.refuse = lambda info, template: (
        InitFailed("the database is gone") if info.function == "bad" else None
    )
    bad = [world.call("bad") for _ in range(50)]
    good = world.clients("good", 4, 0.02, until=world.clock.now() + 30)
    outcomes = await all_of(bad)
    assert all(isinstance(outcome, InitFailed) and "database" in outcome.message for outcome in outcomes)
    later = []
    for _ in range(60):
        later.append(world.call("bad"))
        await asyncio.sleep(0.5)
    outcomes = await all_of(later)
    assert all(isinstance(outcome, InitFailed) for outcome in outcomes)
    assert len([r for r in world.sandbox.requests.values() if r.function == "bad"]) < 20, "back-off holds it down"
    served = await all_of(good)
    assert set(served) == {"good-00001"}
    assert max(call.waited for call in good) < 1
    world.contract.refuse = lambda info, template: None
    await asyncio.sleep(31)
    assert await all_of([world.call("bad")]) == ["bad-00001"], "it recovers by itself"


@virtual
async def test_idle_instances_give_way_on_a_full_node_and_memory_never_exceeds_the_budget(world: World) -> None:
    await world.start(memory=512)
    for name in ("a", "b", "c", "d"):
        await world.deploy(name)
        await asyncio.sleep(0.5)
    assert world.ready() == 4
    await world.deploy("e")
    assert world.ready() == 4
    assert world.control is not None
    assert world.control.scaler.cold_reason(("default", "a-00001")) == "evicted", "the longest idle goes"
    assert await all_of([world.call("a")]) == ["a-00001"]
    assert world.sandbox.peak == 512


@virtual
async def test_busy_full_node_fails_the_call_with_memory_and_numbers(world: World) -> None:
    await world.start(memory=256)
    await world.deploy("a", window=6.0, grace=0.0)
    await world.until(lambda: not world.sandbox.running)
    await world.deploy("b", min=1)
    await world.deploy("c", min=1)
    began = world.clock.now()
    (outcome,) = await all_of([world.call("a")])
    assert isinstance(outcome, NodeFull)
    assert "256 MiB" in outcome.message and "128 MiB" in outcome.message
    assert outcome.retry_after == 1.0
    assert 0.9 < world.clock.now() - began < 2


@virtual
async def test_call_waits_for_a_busy_node_that_has_room_in_time(world: World) -> None:
    await world.start(memory=256)
    await world.deploy("a")
    await world.deploy("b")
    busy = [world.call("a", 0.6), world.call("b", 0.6)]
    await world.deploy("c")
    assert await all_of([*busy, world.call("c")]) == ["a-00001", "b-00001", "c-00001"]
    assert world.sandbox.peak <= 256


@virtual
async def test_namespace_quota_bounds_instances_and_memory(world: World) -> None:
    await world.namespace(instances=2, memory=1024)
    await world.start()
    await world.deploy("a", min=1)
    await world.deploy("b", min=1)
    await world.deploy("other", namespace="free", min=3)
    function = await world.apply("c")
    await asyncio.sleep(5)
    assert world.ready() == 2
    assert world.ready(namespace="free") == 3
    await world.store.delete("Function", "default", "b")
    function = await world.settled("c", function.meta.generation)
    assert function.status.latest_ready == "c-00001"
    await world.deploy("big", namespace="poor")
    await world.namespace("poor", memory=100)
    await asyncio.sleep(200)
    (outcome,) = await all_of([world.call("big", namespace="poor")])
    assert isinstance(outcome, QuotaExceeded) and outcome.limit == "quota memory 100 MiB"


@virtual
async def test_new_revision_that_never_has_room_is_given_up_with_the_reason(world: World) -> None:
    await world.start(memory=256, progress=30.0)
    await world.deploy("a", min=2)
    ready = condition(await world.deploy("b"), "Ready")
    assert ready is not None and ready.status is False and ready.reason == "node-full"


@virtual
async def test_draining_instance_finishes_its_calls(world: World) -> None:
    await world.start()
    await world.deploy("hello", window=6.0, grace=0.0)
    long = world.call("hello", 9.0)
    await world.deploy("hello", env={"A": "1"})
    assert await all_of([long]) == ["hello-00001"]
    assert isinstance(long.outcome, str)
    await world.until(lambda: world.ready("hello-00001") == 0, 30)


@virtual
async def test_crashed_instance_is_replaced_for_those_who_wait(world: World) -> None:
    await world.start()
    await world.deploy("hello", max=1)
    calls = [world.call("hello", 0.2) for _ in range(3)]
    await asyncio.sleep(0.1)
    (instance,) = world.sandbox.running
    world.contract.links[instance].on_lost()
    assert world.control is not None
    assert world.control.scaler.cold_reason(("default", "hello-00001")) == "crashed"
    assert await all_of(calls[1:]) == ["hello-00001"] * 2
    await world.until(lambda: instance not in world.sandbox.running, 2)


@virtual
async def test_call_to_a_revision_that_failed_is_answered_at_once(world: World) -> None:
    from fakes import SMALL, Call

    await world.start(attempts=1)
    world.contract.refuse = lambda info, template: StartFailed("port 8080 is never open")
    await world.deploy("hello")
    call = Call(0.01)
    world.pool.of(("default", "hello-00001")).submit(call, SMALL)
    await call.ended.wait()
    assert isinstance(call.outcome, StartFailed | NotFound)
    assert call.waited == 0 and not world.sandbox.running


@virtual
async def test_sandbox_that_refuses_is_the_functions_or_the_platforms_error(world: World) -> None:
    await world.start(attempts=2)
    world.sandbox.refuse = lambda request: SeptetError("the launcher is gone")
    ready = condition(await world.deploy("hello"), "Ready")
    assert ready is not None and "the launcher is gone" in ready.message
    ready = condition(await world.deploy("other", runtime="cobol"), "Ready")
    assert ready is not None and ready.reason == "invalid-input" and "cobol" in ready.message
    ready = condition(await world.deploy("third", sandbox="moon"), "Ready")
    assert ready is not None and "no sandbox 'moon'" in ready.message


@virtual
async def test_stop_ends_every_instance(world: World) -> None:
    await world.start()
    await world.deploy("hello", min=3)
    assert world.control is not None
    await world.control.stop()
    assert world.sandbox.running == {}


@virtual
async def test_stop_that_fails_is_repeated_until_the_instance_is_gone(world: World) -> None:
    await world.start()
    await world.deploy("hello", window=6.0, grace=0.0)
    world.sandbox.stop_fails = 3
    await world.until(lambda: not world.sandbox.running, 60)


@virtual
async def test_instances_that_live_on_are_adopted_and_those_nobody_wants_are_ended(world: World) -> None:
    world.sandbox.adopt = True
    await world.start()
    await world.deploy("hello", min=2)
    await world.deploy("gone")
    assert world.control is not None
    await world.control.stop()
    assert len(world.sandbox.running) == 3
    await world.store.delete("Function", "default", "gone")
    before = {i.id for i in world.sandbox.running.values() if i.function == "hello"}
    world.pool = type(world.pool)(asyncio.get_running_loop())
    await world.start()
    await world.until(lambda: world.ready() == 2)
    assert set(world.sandbox.running) == before
    outcomes = await all_of([world.call("hello") for _ in range(4)])
    assert set(outcomes) == {"hello-00001"}
    await asyncio.sleep(60)
    assert set(world.sandbox.running) == before


@virtual
async def test_listeners_hear_every_state_of_an_instance(world: World) -> None:
    await world.start()
    heard: list[tuple[str, str]] = []
    assert world.control is not None
    end = world.control.fleet.listen(lambda event: heard.append((event.instance.id, event.instance.state)))
    await world.deploy("hello", window=6.0, grace=0.0)
    await world.until(lambda: not world.sandbox.running, 60)
    assert [state for _, state in heard] == [
        "starting", "starting", "running", "ready", "draining", "draining", "stopped",
    ]  # fmt: skip
    end()
    count = len(heard)
    await all_of([world.call("hello")])
    assert len(heard) == count


@virtual
async def test_who_saw_a_link_break_learns_why_the_instance_ended(world: World) -> None:
    await world.start()
    await world.deploy("hello")
    (instance,) = world.sandbox.running
    heard: list[InstanceExit | None] = []
    assert world.control is not None
    world.contract.links[instance].on_lost()
    world.control.scaler.explain(instance, heard.append)
    world.control.scaler.explain("i-unknown", heard.append)
    await asyncio.sleep(0.1)
    world.sandbox.end(instance, InstanceExit(signal=9, limit="memory"))
    assert heard == [InstanceExit(signal=9, limit="memory")]
    world.control.scaler.explain(instance, heard.append)
    assert heard == [InstanceExit(signal=9, limit="memory")] * 2
    await asyncio.sleep(2)
    assert heard[2:] == [None]


@virtual
async def test_instance_whose_link_broke_but_that_lives_is_killed(world: World) -> None:
    await world.start()
    await world.deploy("hello")
    (instance,) = world.sandbox.running
    world.contract.links[instance].on_lost()
    await asyncio.sleep(1)
    assert instance not in world.sandbox.running


@virtual
async def test_listener_that_fails_harms_nobody(world: World) -> None:
    await world.start()

    def broken(event: Any) -> None:
        raise RuntimeError("full")

    assert world.control is not None
    world.control.fleet.listen(broken)
    function = await world.deploy("hello")
    assert function.status.latest_ready == "hello-00001"


@virtual
async def test_new_revision_with_less_room_than_it_wants_takes_over_and_grows_when_the_old_one_goes(
    world: World,
) -> None:
    await world.start(memory=640)
    await world.deploy("hello", min=3)
    function = await world.deploy("hello", env={"A": "1"}, window=6.0, grace=0.0)
    assert function.status.traffic[0].revision == "hello-00002"
    assert world.ready("hello-00002") == 2
    await world.until(lambda: world.ready("hello-00002") == 3, 200)
    assert world.sandbox.peak <= 640


@virtual
async def test_deleted_function_is_gone_at_once(world: World) -> None:
    await world.start(tick=1000.0)
    await world.deploy("hello")
    await world.store.delete("Function", "default", "hello")
    await world.until(lambda: not world.sandbox.running, 1)


@virtual
async def test_sleeping_revisions_cost_nothing(world: World) -> None:
    await world.start()
    await world.deploy("hello", window=6.0, grace=0.0)
    await world.until(lambda: not world.sandbox.running, 60)
    await asyncio.sleep(10)
    asked = 0
    sample = world.pool.sample

    def counted(key: Any) -> Any:
        nonlocal asked
        asked += 1
        return sample(key)

    world.pool.sample = counted  # type: ignore[method-assign]
    await asyncio.sleep(100)
    assert asked == 0
    assert await all_of([world.call("hello")]) == ["hello-00001"]
    assert asked > 0


@virtual
async def test_function_with_a_full_queue_and_all_the_memory_leaves_an_instance_to_another(world: World) -> None:
    await world.start(memory=512)
    await world.deploy("b", window=6.0, grace=0.0)
    await world.until(lambda: not world.sandbox.running, 60)
    await world.deploy("a")
    end = world.clock.now() + 30
    crowd = world.clients("a", 200, 0.1, until=end)
    await world.until(lambda: world.ready("a-00001") == 4)
    single = world.clients("b", 1, 0.1, until=end)
    await all_of(crowd)
    assert {call.outcome for call in single} == {"b-00001"}
    assert single[0].waited < 0.5
    assert max(call.waited for call in single[1:]) == 0
    assert {call.outcome for call in crowd} == {"a-00001"}
    assert world.sandbox.peak <= 512


@virtual
async def test_instance_that_is_no_longer_wanted_while_the_driver_still_thinks_does_not_escape(world: World) -> None:
    await world.start()
    world.sandbox.ask_delay = 2.0
    await world.apply("hello")
    await asyncio.sleep(1)
    assert world.control is not None and world.control.fleet.members() and not world.sandbox.requests
    await world.store.delete("Function", "default", "hello")
    await asyncio.sleep(5)
    assert len(world.sandbox.requests) == 1
    assert not world.sandbox.running and not world.control.fleet.members()
