"""Memory for builds: it counts towards the node's budget, is waited for, and comes back."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from world import World, virtual

from septet.model.errors import NodeFull


class Build:
    """A build that holds its memory until `end` is called."""

    def __init__(self, world: World, memory: int) -> None:
        assert world.control is not None
        self.said: list[str] = []
        self.has = False
        self._over = asyncio.Event()
        self._memory = world.control.memory.reserve(memory, "the build of x", self.said.append)
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        async with self._memory:
            self.has = True
            await self._over.wait()

    async def end(self) -> None:
        self._over.set()
        await self.task


def used(world: World) -> int:
    assert world.control is not None
    return world.control.fleet.memory()


@virtual
async def test_a_build_on_an_empty_node_has_its_memory_at_once_and_gives_it_back(world: World) -> None:
    await world.start(memory=512)
    build = Build(world, 512)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert build.has and used(world) == 512 and build.said == []
    await build.end()
    assert used(world) == 0


@virtual
async def test_without_a_budget_nothing_waits(world: World) -> None:
    await world.start()
    await world.deploy("a", min=3)
    build = Build(world, 1 << 20)
    await world.until(lambda: build.has, 1)
    await build.end()


@virtual
async def test_idle_instances_go_for_a_build_and_it_waits_until_they_are_gone(world: World) -> None:
    await world.start(memory=512)
    for name in "abcd":
        await world.deploy(name)
    world.sandbox.stop_delay = 3.0
    build = Build(world, 256)
    await asyncio.sleep(2)
    assert not build.has and used(world) == 512, "what is being stopped still counts"
    assert build.said == ["waits for 256 MiB of the node's memory: 512 of 512 MiB are taken"]
    await world.until(lambda: build.has, 10)
    assert len(world.sandbox.running) == 2 and used(world) == 512
    assert len(build.said) == 1
    await build.end()


@virtual
async def test_nobody_takes_the_room_of_a_build(world: World) -> None:
    await world.start(memory=256)
    await world.deploy("a")
    await world.deploy("b")
    build = Build(world, 256)
    await world.until(lambda: build.has, 10)
    call = world.call("a")
    await call.ended.wait()
    assert isinstance(call.outcome, NodeFull) and call.outcome.retry_after == 1.0
    assert "256 MiB are taken by 1 instances and builds" in call.outcome.message
    waiting = world.call("b")
    await asyncio.sleep(0.3)
    await build.end()
    await waiting.ended.wait()
    assert waiting.outcome == "b-00001", "those who wait have the room as soon as it is free"


@virtual
async def test_a_build_waits_for_busy_instances(world: World) -> None:
    await world.start(memory=256)
    await world.deploy("a")
    await world.deploy("b")
    busy = [world.call("a", 5.0), world.call("b", 9.0)]
    build = Build(world, 256)
    await asyncio.sleep(8)
    assert not build.has
    await world.until(lambda: build.has, 10)
    assert [call.outcome for call in busy] == ["a-00001", "b-00001"]
    await build.end()


@virtual
async def test_functions_with_many_instances_give_some_up(world: World) -> None:
    await world.start(memory=512)
    await world.deploy("a", max=4)
    calls = world.clients("a", 4, 1.0, until=world.clock.now() + 40)
    await world.until(lambda: world.ready() == 4, 30)
    build = Build(world, 256)
    await world.until(lambda: build.has, 15)
    await build.end()
    await asyncio.sleep(40)
    assert {call.outcome for call in calls} == {"a-00001"}, "they finish their calls"


@virtual
async def test_two_builds_have_their_memory_one_after_the_other(world: World) -> None:
    await world.start(memory=512)
    one, two = Build(world, 300), Build(world, 300)
    await asyncio.sleep(1)
    assert one.has and not two.has
    await one.end()
    await world.until(lambda: two.has, 1)
    await two.end()


@virtual
async def test_a_build_that_was_cancelled_while_it_waited_leaves_nothing(world: World) -> None:
    await world.start(memory=256)
    await world.deploy("a", min=2)
    held, waiting = Build(world, 1), Build(world, 100)
    await asyncio.sleep(1)
    assert not held.has and not waiting.has
    for build in (held, waiting):
        build.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await build.task
    assert world.control is not None
    assert world.control.fleet.reserved() == []


@virtual
async def test_more_than_the_whole_budget_fails_at_once_and_says_what_to_do(world: World) -> None:
    await world.start(memory=512)
    with pytest.raises(NodeFull) as caught:
        await Build(world, 513).task
    assert caught.value.message == (
        "the build of x needs 513 MiB of memory, and the node has 512 MiB for all instances and builds"
    )
    assert "build.memory" in caught.value.hint and "--memory-budget" in caught.value.hint
    assert (caught.value.limit, caught.value.retry_after) == ("node memory 512 MiB", None)


@virtual
async def test_a_build_without_room_gives_up_in_the_end(world: World) -> None:
    await world.start(memory=256, progress=30.0)
    await world.deploy("a", min=2)
    began = world.clock.now()
    with pytest.raises(NodeFull, match="waited 30 s for 200 MiB of the node's memory: 256 of 256 MiB are taken"):
        await Build(world, 200).task
    assert 29 < world.clock.now() - began < 32
    assert used(world) == 256


@virtual
async def test_a_build_takes_no_place_among_the_instances(world: World) -> None:
    await world.start(memory=1024, instances=2)
    await world.deploy("a", min=1)
    build = Build(world, 128)
    await world.until(lambda: build.has, 1)
    await world.deploy("b", min=1)
    assert world.ready() == 2
    await build.end()
