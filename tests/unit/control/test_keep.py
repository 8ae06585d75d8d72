"""Keep-alive: frozen after the last call, thawed by the next one, gone when it is over or its memory is needed."""

from __future__ import annotations

import asyncio

import pytest
from world import World, virtual

from septet.model.errors import Unavailable
from septet.model.instance import InstanceExit

QUICK = {"window": 6.0, "grace": 0.0}
KEY = ("default", "hello-00001")


async def begin(world: World, keep_alive: float | None = None, **settings: float) -> None:
    world.sandbox.freezes = True
    await world.start(keep_alive=keep_alive, **settings)


async def answered(world: World, name: str = "hello", seconds: float = 0.01) -> float:
    """One call; how long it waited."""
    call = world.call(name, seconds)
    await call.ended.wait()
    assert call.outcome == f"{name}-00001"
    return call.waited


async def frozen(world: World, within: float = 20.0) -> str:
    await world.until(lambda: len(world.sandbox.frozen) == 1, within)
    return next(iter(world.sandbox.frozen))


@virtual
async def test_last_instance_is_frozen_and_answers_the_next_call_without_a_start(world: World) -> None:
    await begin(world, 600.0)
    await world.deploy("hello", **QUICK)
    await answered(world)
    instance = await frozen(world)
    assert world.control is not None
    (info,) = world.control.fleet.instances()
    assert info.state == "frozen"
    assert world.control.scaler.cold_reason(KEY) == "frozen"
    started = len(world.sandbox.requests)
    assert await answered(world) < 0.01
    assert set(world.sandbox.running) == {instance} and not world.sandbox.frozen
    assert len(world.sandbox.requests) == started
    assert world.control.fleet.freezing.thaws == 1
    assert await frozen(world) == instance, "and again"


@virtual
async def test_it_is_kept_as_long_after_its_last_call_as_was_said_and_no_longer(world: World) -> None:
    await begin(world, 0.0)
    await world.deploy("hello", keep_alive=100.0, **QUICK)
    await answered(world)
    called = world.clock.now()
    await frozen(world)
    await asyncio.sleep(called + 95 - world.clock.now())
    assert world.sandbox.frozen
    await world.until(lambda: not world.sandbox.running, 15)
    assert world.control is not None
    assert world.control.scaler.cold_reason(KEY) == "scaled-to-zero"
    assert await answered(world) > 0.05


@pytest.mark.parametrize("platform", [0.0, 600.0])
def test_with_keep_alive_zero_nothing_remains(platform: float) -> None:
    @virtual
    async def scenario(world: World) -> None:
        await begin(world, platform)
        await world.deploy("hello", keep_alive=0.0, **QUICK)
        await answered(world)
        await world.until(lambda: not world.sandbox.running, 20)

    scenario()


@virtual
async def test_function_that_was_never_called_is_not_kept(world: World) -> None:
    await begin(world, 600.0)
    await world.deploy("hello", **QUICK)
    await world.until(lambda: not world.sandbox.running, 20)


@virtual
async def test_driver_that_cannot_freeze_stops_it(world: World) -> None:
    await begin(world, 600.0)
    world.sandbox.freezes = False
    await world.deploy("hello", **QUICK)
    await answered(world)
    await world.until(lambda: not world.sandbox.running, 20)


@virtual
async def test_frozen_one_goes_before_others_and_for_nobody_who_merely_might_call(world: World) -> None:
    await begin(world, 600.0, memory=512)
    await world.deploy("hello", **QUICK)
    for name in ("b", "c", "d"):
        await world.deploy(name)
    await answered(world)
    cold = await frozen(world)
    assert len(world.sandbox.running) == 4
    await world.deploy("e")
    assert cold not in world.sandbox.running
    assert world.control is not None
    assert world.control.scaler.cold_reason(KEY) == "evicted"
    assert world.sandbox.peak <= 512


@virtual
async def test_what_the_scaler_wants_of_itself_takes_a_frozen_one_too(world: World) -> None:
    await begin(world, 600.0, memory=256)
    await world.deploy("hello", **QUICK)
    await answered(world)
    await frozen(world)
    await world.deploy("b", min=2)
    await world.until(lambda: world.ready("b-00001") == 2, 10)
    assert not world.sandbox.frozen
    assert world.sandbox.peak <= 256


@virtual
async def test_quota_counts_frozen_ones_and_takes_them_first(world: World) -> None:
    await world.namespace(instances=1)
    await begin(world, 600.0)
    await world.deploy("hello", **QUICK)
    await answered(world)
    cold = await frozen(world)
    await world.deploy("b")
    assert cold not in world.sandbox.running
    await world.until(lambda: len(world.sandbox.running) == 1, 5)


@virtual
async def test_burst_thaws_and_starts_the_rest(world: World) -> None:
    await begin(world, 600.0)
    await world.deploy("hello", max=3, **QUICK)
    await answered(world)
    instance = await frozen(world)
    calls = [world.call("hello", 0.5) for _ in range(6)]
    for call in calls:
        await call.ended.wait()
        assert call.outcome == "hello-00001"
    assert instance in world.sandbox.running
    assert len(world.sandbox.running) == 3
    await frozen(world)
    await world.until(lambda: len(world.sandbox.running) == 1, 60)


@virtual
async def test_deleted_function_and_one_with_a_newer_revision_keep_nothing(world: World) -> None:
    await begin(world, 600.0)
    await world.deploy("hello", **QUICK)
    await world.deploy("gone", **QUICK)
    await answered(world)
    await answered(world, "gone")
    await world.until(lambda: len(world.sandbox.frozen) == 2, 30)
    await world.store.delete("Function", "default", "gone")
    await world.until(lambda: len(world.sandbox.running) == 1, 5)
    await world.deploy("hello", env={"A": "1"})
    await world.until(lambda: all(i.revision == "hello-00002" for i in world.sandbox.running.values()), 100)


@virtual
async def test_call_that_comes_while_it_freezes_is_answered(world: World) -> None:
    await begin(world, 600.0)
    world.sandbox.freeze_delay = 3.0
    await world.deploy("hello", **QUICK)
    await answered(world)
    assert world.control is not None
    fleet = world.control.fleet
    await world.until(lambda: [info.state for info in fleet.instances()] == ["frozen"], 20)
    assert not world.sandbox.frozen
    assert await answered(world) < 0.05
    await asyncio.sleep(1)
    assert not world.sandbox.frozen and world.ready() == 1


@virtual
async def test_one_that_cannot_be_frozen_is_stopped_and_one_that_cannot_be_thawed_is_replaced(world: World) -> None:
    await begin(world, 600.0)
    world.sandbox.freeze_fails = lambda instance: Unavailable("deep in the kernel")
    await world.deploy("hello", **QUICK)
    await answered(world)
    await world.until(lambda: not world.sandbox.running, 20)
    world.sandbox.freeze_fails = lambda instance: None
    await answered(world)
    cold = await frozen(world)
    world.sandbox.thaw_fails = lambda instance: Unavailable("for ever")
    assert await answered(world) < 1
    await world.until(lambda: cold not in world.sandbox.running, 10)
    assert world.ready() == 1


@virtual
async def test_one_that_dies_frozen_is_forgotten(world: World) -> None:
    await begin(world, 600.0)
    await world.deploy("hello", **QUICK)
    await answered(world)
    instance = await frozen(world)
    world.sandbox.end(instance, InstanceExit(signal=9))
    assert world.control is not None and not world.control.fleet.instances()
    await asyncio.sleep(10)
    assert not world.sandbox.running, "nobody calls it"
    await answered(world)


@virtual
async def test_timer_finds_an_instance_that_was_started_for_it_and_holds_no_memory_before(world: World) -> None:
    await begin(world)
    await world.deploy("hello", **QUICK)
    waits = []
    absent = 0
    for round in range(12):
        begun = world.clock.now()
        waits.append(await answered(world))
        await asyncio.sleep(600)
        absent += round > 8 and not world.sandbox.running
        await asyncio.sleep(begun + 1200 - world.clock.now())
    assert world.control is not None
    assert absent == 3, "half way there is none"
    assert max(waits[7:]) < 0.01, "it is there when the call comes"
    assert world.control.scaler.prewarms >= 4


@virtual
async def test_started_for_a_call_that_does_not_come_it_goes(world: World) -> None:
    await begin(world)
    await world.deploy("hello", **QUICK)
    for _ in range(8):
        await answered(world)
        await asyncio.sleep(1200)
    assert world.control is not None
    prewarms = world.control.scaler.prewarms
    assert prewarms and world.sandbox.running
    await world.until(lambda: not world.sandbox.running, 600)
    await asyncio.sleep(3600)
    assert not world.sandbox.running
    assert world.control.scaler.prewarms == prewarms, "once, not for ever"


@virtual
async def test_nothing_is_evicted_for_a_call_that_is_merely_expected(world: World) -> None:
    await begin(world, None, memory=256)
    await world.deploy("hello", **QUICK)
    for _ in range(8):
        await answered(world)
        await asyncio.sleep(1200)
    assert world.control is not None
    assert await answered(world) < 0.01
    await world.until(lambda: not world.sandbox.running, 30)
    prewarms = world.control.scaler.prewarms
    await world.deploy("b", window=3600.0)
    await world.deploy("c", window=3600.0)
    await asyncio.sleep(1300)
    assert {i.function for i in world.sandbox.running.values()} == {"b", "c"}
    assert world.control.scaler.prewarms == prewarms


@virtual
async def test_build_takes_the_memory_of_a_frozen_one(world: World) -> None:
    await begin(world, 600.0, memory=256)
    await world.deploy("hello", **QUICK)
    await world.deploy("b")
    await answered(world)
    cold = await frozen(world)
    assert world.control is not None
    async with world.control.memory.reserve(128, "a build", lambda told: None):
        assert cold not in world.sandbox.running
        assert world.ready("b-00001") == 1, "those that run stay"
