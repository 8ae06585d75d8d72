"""Limits that an instance met and its function kept to itself: told once in its log, and to calls that fail."""

from __future__ import annotations

import asyncio

from world import World, virtual

from septet.model.instance import InstanceExit, LimitMet

FORKS = LimitMet(name="pids", value="64", times=3)
MORE = LimitMet(name="pids", value="64", times=300)
FULL = LimitMet(name="tmp", value="8 MiB")
KEY = ("default", "hello-00001")


async def asked(world: World, instance: str, age: float = 1.0) -> list[str]:
    assert world.control is not None
    answer: asyncio.Future[tuple[LimitMet, ...]] = asyncio.get_running_loop().create_future()
    world.control.scaler.limits(instance, age, answer.set_result)
    return [str(met) for met in await answer]


def said(world: World) -> list[str]:
    return [line.text for line in world.logs.lines if "reached" in line.text]


async def begin(world: World) -> str:
    await world.start()
    await world.deploy("hello", min=1)
    (instance,) = world.sandbox.running
    return instance


@virtual
async def test_a_call_that_fails_learns_what_was_met_since_it_began_and_the_log_says_it_once(world: World) -> None:
    instance = await begin(world)
    assert await asked(world, instance) == []
    await asyncio.sleep(1)
    world.sandbox.met = (FORKS,)
    assert await asked(world, instance) == ["pids 64"]
    await asyncio.sleep(10)
    assert await asked(world, instance, 5.0) == [], "that was before this call"
    world.sandbox.met = (MORE, FULL)
    assert await asked(world, instance, 5.0) == ["pids 64", "tmp 8 MiB"]
    await asyncio.sleep(10)
    assert await asked(world, instance, 5.0) == ["tmp 8 MiB"], "it is full still"
    world.sandbox.met = (MORE,)
    await asyncio.sleep(10)
    assert await asked(world, instance, 5.0) == []
    assert said(world) == ["pids limit 64 reached (3 times)", "tmp limit 8 MiB reached"]
    world.sandbox.end(instance, InstanceExit(code=0, asked=True, met=(MORE,)))
    assert said(world)[2:] == ["pids limit 64 reached (300 times)"], "what came after is told at the end"


@virtual
async def test_a_burst_of_failing_calls_is_one_look_and_nobody_else_costs_one(world: World) -> None:
    instance = await begin(world)
    await asyncio.sleep(60)
    looked = world.sandbox.looks
    await asyncio.sleep(60)
    assert world.sandbox.looks == looked, "nobody looks at an instance that is not called"
    await asyncio.gather(*(asked(world, instance) for _ in range(5)))
    assert world.sandbox.looks == looked + 1
    for _ in range(50):
        assert await asked(world, instance) == []
    assert looked + 1 < world.sandbox.looks <= looked + 10
    assert await asked(world, "i-unknown") == []


@virtual
async def test_what_runs_is_looked_at_at_the_tick(world: World) -> None:
    await begin(world)
    world.sandbox.met = (FORKS,)
    call = world.call("hello", 9.0)
    await asyncio.sleep(5)
    assert said(world)[:1] == ["pids limit 64 reached (3 times)"]
    await call.ended.wait()


@virtual
async def test_an_instance_that_nobody_looked_at_tells_at_its_end(world: World) -> None:
    instance = await begin(world)
    world.sandbox.end(instance, InstanceExit(code=1, limit="pids", met=(FORKS,)))
    assert said(world) == ["pids limit 64 reached (3 times)"]
