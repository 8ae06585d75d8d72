"""Everything at once: calls, deploys, deaths, refusals and a full node, on virtual time, from a seed."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from fakes import Call, VirtualLoop
from world import World, condition

from septet.model.errors import InitFailed, NodeFull, SeptetError, StartFailed, Unavailable
from septet.model.instance import InstanceExit

NAMES = ("a", "b", "c", "d")
BUDGET = 128 * 10
EXPECTED = (InitFailed, StartFailed, Unavailable, NodeFull)
"""What the storm makes; nobody may get a 404, or wait in vain for a revision that was replaced meanwhile."""
SECONDS = 40


async def storm(world: World, seed: int) -> None:
    dice = random.Random(seed)
    world.random = random.Random(seed)
    calm = False

    def dies(info: Any) -> InstanceExit | None:
        return InstanceExit(code=1) if not calm and dice.random() < 0.1 else None

    def refuses(*_: Any) -> SeptetError | None:
        if calm or dice.random() > 0.1:
            return None
        return dice.choice([StartFailed("not now"), Unavailable("the driver is busy")])

    await world.start(memory=BUDGET, sweep=7.0, settle=10.0, patience=0.5)
    for name in NAMES:
        await world.deploy(
            name, window=6.0, grace=1.0, min=dice.choice([0, 1]), concurrency=dice.choice([1, 4]), retain=1
        )
    world.sandbox.dies = dies
    world.sandbox.refuse = refuses
    world.contract.refuse = lambda info, template: None if calm or dice.random() > 0.05 else InitFailed("odd luck")
    calls: list[Call] = []
    end = world.clock.now() + SECONDS
    while world.clock.now() < end:
        await asyncio.sleep(dice.expovariate(5))
        what, name = dice.random(), dice.choice(NAMES)
        if what < 0.7:
            calls += [world.call(name, dice.choice([0.001, 0.05, 0.3])) for _ in range(dice.choice([1, 1, 3, 20]))]
        elif what < 0.75:
            await world.apply(name, env={"N": str(dice.random())}, rollout=dice.choice([0.0, 8.0]))
        elif what < 0.85 and world.sandbox.running:
            victim = dice.choice(sorted(world.sandbox.running))
            if dice.random() < 0.5 and victim in world.contract.links:
                world.contract.links[victim].on_lost()
            world.sandbox.end(victim, InstanceExit(signal=9))
        elif what < 0.87:
            world.store.break_watches = True
            await world.store.kick()
    calm = True
    for call in calls:
        await asyncio.wait_for(call.ended.wait(), 100)
    assert world.sandbox.peak <= BUDGET
    wrong = [call.outcome for call in calls if not isinstance(call.outcome, (str, *EXPECTED))]
    assert [error for error in wrong if "closed under a running call" not in str(error)] == []
    assert sum(isinstance(call.outcome, str) for call in calls) > len(calls) * 0.7
    await recovered(world)


async def recovered(world: World) -> None:
    """When the storm is over everything is as it should be, without help."""
    for name in NAMES:
        function = await world.apply(name, env={"calm": "yes"}, rollout=0.0, min=0)
        function = await world.settled(name, function.meta.generation)
        ready = condition(function, "Ready")
        assert ready is not None and ready.status is True, ready
        assert [t.revision for t in function.status.traffic] == [function.status.latest_created]
        call = world.call(name)
        await call.ended.wait()
        assert call.outcome == function.status.latest_created
    await world.until(lambda: not world.sandbox.running, 400)
    assert world.control is not None
    assert world.control.fleet.members() == []
    await world.until(lambda: sum(key[0] == "Revision" for key in world.store.objects) <= len(NAMES) * 2, 100)


@pytest.mark.parametrize("seed", range(4))
def test_storm_ends_in_order(seed: int) -> None:
    async def scenario() -> None:
        world = World()
        try:
            await storm(world, seed)
        finally:
            await world.stop()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scenario())
