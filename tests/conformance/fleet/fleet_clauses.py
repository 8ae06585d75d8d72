"""The clauses of the fleet's view (`septet/ports/fleetview.py`), each as functions that take a test bed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import cast

import msgspec
from clauses import Suite
from fakes import FakeSandbox
from world import World

from septet.control.view import View
from septet.model.function import Function
from septet.model.instance import InstanceEvent, InstanceExit
from septet.ports.fleetview import FleetView
from septet.ports.sandbox import Capabilities, Check, Sandbox

QUICK = 0.05
"""Seconds of real time below which nothing can be said to block; what blocks in the broken views is longer."""
TRIES = 5
BUDGET = 4096
PATIENCE = 30.0


class Bed:
    """A world in virtual time with a function of three instances and one of one, and the view of it."""

    def __init__(self, make: type[View] = View) -> None:
        self.make = make
        self.world = World()
        self.view: FleetView

    async def open(self) -> None:
        await self.world.start(memory=BUDGET)
        control = self.world.control
        assert control is not None
        self.other = FakeSandbox()
        sandboxes = {"process": cast("Sandbox", self.world.sandbox), "other": cast("Sandbox", self.other)}
        self.view = self.make(
            control.mirror, control.fleet, control.scaler, sandboxes, "process", BUDGET, self.world.clock
        )
        await self.world.namespace()
        await self.world.deploy("three", min=3)
        await self.world.deploy("one", min=1)
        await self.world.until(lambda: self.world.ready() == 4)

    async def close(self) -> None:
        await self.world.stop()

    async def replaced(self, function: str) -> str:
        """An instance of the function dies, and another one takes its place; returns the dead one."""
        info = self.view.instances(function=function)[0]
        self.world.sandbox.end(info.id, InstanceExit(code=1, message="it ended"))
        await self.world.until(lambda: self.world.ready() == 4)
        return info.id


suite: Suite[Bed] = Suite()
clause = suite.clause


@contextlib.asynccontextmanager
async def watching(view: FleetView) -> AsyncIterator[AsyncIterator[InstanceEvent]]:
    events = view.watch()
    try:
        yield events
    finally:
        await events.aclose()  # type: ignore[attr-defined]


async def take(events: AsyncIterator[InstanceEvent], count: int) -> list[InstanceEvent]:
    found: list[InstanceEvent] = []
    while len(found) < count:
        try:
            found.append(await asyncio.wait_for(anext(events), PATIENCE))
        except (TimeoutError, StopAsyncIteration):
            raise AssertionError(f"{len(found)} events came, not {count}") from None
    return found


class Listener:
    """Reads a watch as fast as it goes, in the background."""

    def __init__(self, view: FleetView) -> None:
        self.told: list[InstanceEvent] = []
        self._task = asyncio.ensure_future(self._read(view.watch()))

    async def _read(self, events: AsyncIterator[InstanceEvent]) -> None:
        async for event in events:
            self.told.append(event)

    async def heard(self) -> list[InstanceEvent]:
        """All that it was told until now; it must be listening still."""
        await asyncio.sleep(0.01)
        assert not self._task.done(), "the watch ended by itself"
        return list(self.told)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


@contextlib.asynccontextmanager
async def listening(view: FleetView) -> AsyncIterator[Listener]:
    listener = Listener(view)
    try:
        await listener.heard()
        yield listener
    finally:
        await listener.close()


def seconds(work: Callable[[], object]) -> float:
    """The least real time that it took in a few tries: what blocks always takes it, what was preempted does not."""
    taken: list[float] = []
    for _ in range(TRIES):
        begun = time.monotonic()
        work()
        taken.append(time.monotonic() - begun)
    return min(taken)


@clause("fleet.1")
async def instances_do_not_block(bed: Bed) -> None:
    assert seconds(bed.view.instances) < QUICK
    assert seconds(lambda: bed.view.instances("default", "three")) < QUICK
    assert [len(bed.view.instances("default", name)) for name in ("", "three", "one", "none")] == [4, 3, 1, 0]
    assert bed.view.instances("elsewhere") == []


@clause("fleet.1")
async def obstacle_does_not_block(bed: Bed) -> None:
    assert seconds(lambda: bed.view.obstacle("default", "three")) < QUICK
    assert bed.view.obstacle("default", "three") == ""
    assert bed.view.obstacle("default", "none") == ""


@clause("fleet.1")
async def node_does_not_block(bed: Bed) -> None:
    assert seconds(bed.view.node) < QUICK
    node = bed.view.node()
    used = sum(info.memory for info in bed.view.instances())
    assert (node.instances, node.memory_used, node.memory_budget) == (4, used, BUDGET)


@clause("fleet.1")
async def egress_is_told_from_memory(bed: Bed) -> None:
    assert bed.view.egress_missing() == ()
    lacking = Check(name="egress: nft", state="missing", detail="not installed", fix="apt install nftables")
    bed.world.sandbox.capabilities = lambda: Capabilities(egress_missing=(lacking,))  # type: ignore[method-assign]
    assert seconds(bed.view.egress_missing) < QUICK
    assert bed.view.egress_missing() == (lacking,)


@clause("fleet.1")
async def egress_is_the_named_sandboxs(bed: Bed) -> None:
    lacking = Check(name="egress: nft", state="missing", detail="not installed", fix="apt install nftables")
    bed.other.capabilities = lambda: Capabilities(egress_missing=(lacking,))  # type: ignore[method-assign]
    assert bed.view.egress_missing("other") == (lacking,)
    assert bed.view.egress_missing("process") == bed.view.egress_missing() == ()


@clause("fleet.1")
async def beginning_to_watch_does_not_block(bed: Bed) -> None:
    async def begin() -> float:
        begun = time.monotonic()
        async with watching(bed.view) as events:
            await take(events, 1)
        return time.monotonic() - begun

    assert min([await begin() for _ in range(TRIES)]) < QUICK


@clause("fleet.1")
async def checks_leave_the_loop_to_others(bed: Bed) -> None:
    asked = asyncio.Event()
    answer = asyncio.Event()

    async def slow() -> list[Check]:
        asked.set()
        await answer.wait()
        return []

    bed.world.sandbox.probe = slow  # type: ignore[method-assign]
    checking = asyncio.ensure_future(bed.view.checks())
    await asyncio.wait_for(asked.wait(), PATIENCE)
    await asyncio.sleep(0.01)
    assert not checking.done(), "it answered before the host was tried"
    assert len(bed.view.instances()) == 4
    answer.set()
    assert await asyncio.wait_for(checking, PATIENCE) == []


@clause("fleet.2")
async def a_watch_begins_with_what_there_is(bed: Bed) -> None:
    async with listening(bed.view) as listener:
        first = await listener.heard()
    assert len(first) == 4
    assert {event.instance.id: event.instance for event in first} == {info.id: info for info in bed.view.instances()}


@clause("fleet.2")
async def a_watch_tells_every_change_in_order(bed: Bed) -> None:
    async with listening(bed.view) as listener:
        gone = await bed.replaced("three")
        told = [event.instance for event in (await listener.heard())[4:]]
    old = [info for info in told if info.id == gone]
    assert [info.state for info in old] == ["stopped"]
    assert old[0].exit is not None and old[0].exit.code == 1
    new = [info for info in told if info.id != gone]
    assert len({info.id for info in new}) == 1
    assert new[0].state == "starting" and new[-1].state == "ready"
    assert new[-1] in bed.view.instances("default", "three")


@clause("fleet.2")
async def what_happens_while_a_watch_begins_is_told(bed: Bed) -> None:
    async with watching(bed.view) as events:
        told = await take(events, 1)
        await bed.replaced("three")
        await bed.replaced("one")
        told += await to_the_end(events)
    seen = {event.instance.id: event.instance for event in told}
    left = {id: info for id, info in seen.items() if info.state != "stopped"}
    assert left == {info.id: info for info in bed.view.instances()}
    assert len(seen) == 6


@clause("fleet.2")
async def watches_are_independent(bed: Bed) -> None:
    async with listening(bed.view) as one, listening(bed.view) as other:
        gone = await bed.replaced("one")
        first, second = (await one.heard())[4:], (await other.heard())[4:]
    assert first == second
    assert gone in {event.instance.id for event in first}


@clause("fleet.2")
async def a_closed_watch_ends_and_the_others_go_on(bed: Bed) -> None:
    async with listening(bed.view) as kept:
        async with listening(bed.view) as closed:
            pass
        before = await kept.heard()
        gone = await bed.replaced("one")
        later = (await kept.heard())[len(before) :]
    assert gone in {event.instance.id for event in later}
    assert len(closed.told) == 4


@clause("fleet.2")
async def a_slow_reader_is_never_told_half(bed: Bed) -> None:
    """Whatever the bound on what is kept for it: what it is told has no gap, even when it is ended."""
    async with listening(bed.view) as quick, watching(bed.view) as slow:
        await take(slow, 1)
        for _ in range(20):
            await bed.replaced("three")
        right = await quick.heard()
        told = (await to_the_end(slow))[3:]
    assert told == right[4:][: len(told)]
    assert len(told) > 1


def newer(bed: Bed, name: str) -> Function:
    """A function as a write has just left it in the store."""
    function = bed.world.function(name)
    version = bed.world.store.number + 1
    return msgspec.structs.replace(function, meta=msgspec.structs.replace(function.meta, resource_version=version))


async def waits(known: asyncio.Future[None]) -> bool:
    await asyncio.wait([known], timeout=0.5)
    return not known.done()


@clause("fleet.3")
async def a_reader_waits_for_what_calls_do_not_know_yet(bed: Bed) -> None:
    await asyncio.wait_for(bed.view.known([bed.world.function("one")]), 0.1)
    written = newer(bed, "one")
    known = asyncio.ensure_future(bed.view.known([written]))
    assert await waits(known)
    assert bed.world.control is not None
    bed.world.control.mirror.apply(newer(bed, "three"))
    assert await waits(known), "another object does not end it"
    bed.world.control.mirror.apply(written)
    await asyncio.wait_for(known, 0.1)


@clause("fleet.3")
async def a_reader_waits_for_all_of_a_list(bed: Bed) -> None:
    known = asyncio.ensure_future(bed.view.known([bed.world.function("three"), newer(bed, "one")]))
    assert await waits(known)
    await bed.world.apply("one", retain=3)
    await asyncio.wait_for(known, 0.2)


@clause("fleet.3")
async def a_reader_does_not_wait_for_what_is_gone(bed: Bed) -> None:
    function = bed.world.function("one")
    await bed.world.store.delete("Function", "default", "one")
    await bed.world.until(lambda: not bed.world.has("Function", "one"))
    await asyncio.wait_for(bed.view.known([function]), 0.2)


@clause("fleet.3")
async def a_reader_does_not_wait_for_ever(bed: Bed) -> None:
    begun = bed.world.clock.now()
    await asyncio.wait_for(bed.view.known([newer(bed, "one"), newer(bed, "three")]), 60)
    assert 1.9 < bed.world.clock.now() - begun < 2.2


async def to_the_end(events: AsyncIterator[InstanceEvent]) -> list[InstanceEvent]:
    """What is there to be read, until the watch pauses or ends; it cannot be read any further."""
    told: list[InstanceEvent] = []
    try:
        while True:
            told.append(await asyncio.wait_for(anext(events), 0.001))
    except (TimeoutError, StopAsyncIteration):
        return told
