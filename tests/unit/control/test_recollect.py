"""Idle times over a restart of the platform, and `keep_alive: auto` of a function's own."""

from __future__ import annotations

import asyncio

import pytest
from world import World, virtual

from septet.control import recollecting
from septet.dataplane.pool import InstancePool
from septet.policy import keepalive

QUICK = {"window": 6.0, "grace": 0.0}
NAME = "idle/default/hello"


async def every(world: World, seconds: float, times: int) -> list[float]:
    """Calls with a pause after each; how long each waited."""
    waits = []
    for _ in range(times):
        call = world.call("hello")
        await call.ended.wait()
        waits.append(call.waited)
        await asyncio.sleep(seconds)
    return waits


async def restart(world: World) -> None:
    """A new life on the same store, which learns nothing but from there."""
    assert world.control is not None
    control, world.control = world.control, None
    await control.stop()
    world.pool = InstancePool(asyncio.get_running_loop())
    await world.start()


@virtual
async def test_a_restart_forgets_nothing_that_was_learnt(world: World) -> None:
    world.sandbox.freezes = True
    await world.start(keep_alive=0.0)
    await world.deploy("hello", keep_alive="auto", **QUICK)
    await every(world, 1200, 8)
    await restart(world)
    await every(world, 1200, 1)
    waits = await every(world, 1200, 3)
    assert max(waits) < 0.01, "an instance was started for each, as before"
    assert world.control is not None
    assert world.control.scaler.prewarms >= 3


@virtual
async def test_auto_is_the_functions_own_choice_and_others_stay_as_the_platform_says(world: World) -> None:
    world.sandbox.freezes = True
    await world.start(keep_alive=0.0)
    await world.deploy("hello", keep_alive="auto", **QUICK)
    await world.deploy("other", **QUICK)
    for name in ("hello", "other"):
        await world.call(name).ended.wait()
    await world.until(lambda: len(world.sandbox.frozen) == 1 and len(world.sandbox.running) == 1, 30)
    (info,) = world.sandbox.running.values()
    assert info.function == "hello"
    await asyncio.sleep(keepalive.STANDARD)
    assert not world.sandbox.running


@virtual
async def test_it_is_written_now_and_then_and_only_what_changed(world: World) -> None:
    await world.start(keep_alive=None)
    await world.deploy("hello", **QUICK)
    await every(world, 10, 40)
    assert 1 <= world.store.remembered <= 400 / recollecting.EVERY + 1
    before = world.store.remembered
    await asyncio.sleep(10 * recollecting.EVERY)
    assert world.store.remembered <= before + 1
    assert len(world.store.memories[NAME]) < 1024


@virtual
async def test_what_goes_with_its_function_is_forgotten(world: World) -> None:
    await world.start(keep_alive=None)
    await world.deploy("hello", **QUICK)
    await every(world, 10, 3)
    await asyncio.sleep(recollecting.EVERY)
    assert NAME in world.store.memories
    await world.store.delete("Function", "default", "hello")
    await asyncio.sleep(2 * recollecting.EVERY)
    assert world.store.memories == {}
    world.store.memories["idle/default/unknown"] = b"whose"
    await restart(world)
    await world.until(lambda: world.store.memories == {}, 5)


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x92\x81\xcd\x01\x00\x01\x00", b"\x92\x81\x01\xff\x00"])
def test_what_is_damaged_is_learnt_again(data: bytes) -> None:
    @virtual
    async def scenario(world: World) -> None:
        await world.start(keep_alive=None)
        await world.deploy("hello", **QUICK)
        world.store.memories[NAME] = data
        await restart(world)
        await every(world, 10, 3)
        world.store.forgetful = True
        await asyncio.sleep(2 * recollecting.EVERY)
        assert world.store.memories[NAME] == data
        world.store.forgetful = False
        await asyncio.sleep(recollecting.EVERY)
        assert world.store.memories[NAME] != data, "what could not be written is not lost"
        world.store.forgetful = True
        await restart(world)
        await every(world, 10, 1)

    scenario()
