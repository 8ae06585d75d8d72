"""What a worker tells of itself, as control hears it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from septet.app.workers.channel import Channel, pair
from septet.app.workers.messages import Explain, Loads, Message, Told, Wanted
from septet.app.workers.reports import OwnedPool, Reports
from septet.dataplane.metrics import Metrics
from septet.model.instance import InstanceExit, InstanceInfo
from septet.model.invocation import InvocationRecord
from septet.ports.logs import LogLine

KEY = ("default", "hello-00001")
BOUNDS = SimpleNamespace(queue=10, queue_timeout=5.0)


class World:
    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        mine, theirs = pair()
        self.heard: list[Message] = []
        self.metrics = Metrics()
        self.pool = OwnedPool(loop)
        self.open = 0
        self.channel = Channel(mine, lambda *_: None, lambda: None)
        self.other = Channel(theirs, lambda message, _: self.heard.append(message), lambda: None)
        self.reports = Reports(self.channel, self.pool, self.metrics, lambda: self.open)

    def of(self, kind: type) -> list[Any]:
        return [message for message in self.heard if isinstance(message, kind)]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)

    def close(self) -> None:
        self.channel.close()
        self.other.close()


class Caller:
    """A call that waits, and holds its place when it has one."""

    def __init__(self) -> None:
        self.done: Callable[[], None] | None = None

    def assign(self, link: Any, on_done: Callable[[], None]) -> None:
        self.done = on_done

    def fail(self, error: Exception) -> None:
        raise error


def link() -> Any:
    instance = InstanceInfo(
        id="i-1",
        namespace=KEY[0],
        function="hello",
        revision=KEY[1],
        driver="process",
        state="ready",
        protocol="frames",
        started_at=0.0,
    )
    return SimpleNamespace(instance=instance)


async def test_a_call_that_waits_is_told_at_once_and_those_that_follow_soon() -> None:
    world = World()
    callers = [Caller() for _ in range(5)]
    for caller in callers:
        world.pool.of(KEY).submit(cast("Any", caller), BOUNDS)
    await world.until(lambda: len(world.of(Wanted)) >= 2)
    assert [each.load.waiting for each in world.of(Wanted)][:2] == [1, 5]
    world.close()


async def test_loads_are_told_until_nothing_is_left_to_tell() -> None:
    world = World()
    world.pool.add(KEY, link(), 1)
    caller = Caller()
    world.pool.of(KEY).submit(cast("Any", caller), BOUNDS)
    await world.until(lambda: any(each.revisions and each.revisions[0].running for each in world.of(Loads)))
    assert caller.done is not None
    caller.done()

    def last() -> Any:
        told = [load for each in world.of(Loads) for load in each.revisions]
        return told[-1] if told else None

    await world.until(lambda: last().running == 0)
    assert [(slot.instance, slot.running, slot.draining) for slot in last().slots] == [("i-1", 0, False)]
    world.pool.drain(KEY, "i-1")
    world.reports.touch(KEY)
    world.reports.flush()
    await world.until(lambda: last().slots[0].draining)
    total = sum(load.arrived for each in world.of(Loads) for load in each.revisions)
    assert total == pytest.approx(1.0)
    world.close()


async def test_records_lines_and_counts_arrive_and_counts_grow_once() -> None:
    world = World()
    series = world.metrics.of("default", "hello", "hello-00001", "http")
    series.add(200, 0.01)
    world.reports.record(InvocationRecord(id="1", namespace="default", function="hello"))
    world.reports.record_encoded(("default", "hello"), b'{"id":"2"}')
    line = LogLine(
        at=1.0, namespace="default", function="hello", revision="r", instance="i", stream="stdout", text="said"
    )
    world.reports.write(line)
    await world.until(lambda: any(each.lines for each in world.of(Told)))
    assert [line] == [each for told in world.of(Told) for each in told.lines]
    world.reports.flush()
    # Whoever holds a series goes on counting in it.
    series.add(200, 0.02)
    series.add(500, 0.02)
    world.reports.flush()
    world.reports.flush()
    await world.until(lambda: len([each for told in world.of(Told) for each in told.tallies]) >= 2)
    assert [each.id for told in world.of(Told) for each in told.records] == ["1"]
    assert [each for told in world.of(Told) for each in told.encoded] == [(("default", "hello"), b'{"id":"2"}')]
    tallies = [each for told in world.of(Told) for each in told.tallies]
    assert [{name: sum(counts) for name, (counts, _) in each.status.items()} for each in tallies] == [
        {"2xx": 1},
        {"2xx": 1, "5xx": 1},
    ]
    world.close()


async def test_why_an_instance_ended_is_asked_and_answered_once() -> None:
    world = World()
    told: list[InstanceExit | None] = []
    world.reports.explain("i-1", told.append)
    await world.until(lambda: world.of(Explain))
    asked = world.of(Explain)[0]
    world.reports.explained(asked.number, InstanceExit(code=3))
    world.reports.explained(asked.number, None)
    assert told == [InstanceExit(code=3)]
    world.close()


async def test_the_reason_of_a_wait() -> None:
    world = World()
    assert world.reports.cold_reason(KEY) == "scaled-to-zero"
    world.reports.emptied(KEY, "crashed")
    assert world.reports.cold_reason(KEY) == "crashed"
    world.pool.add(KEY, link(), 1)
    assert world.reports.cold_reason(KEY) == "burst"
    world.close()


def test_pair_is_a_stream_of_messages() -> None:
    """Descriptors ride on bytes, so that a message and its descriptor cannot be parted."""
    one, two = pair()
    assert one.type == two.type == socket.SOCK_STREAM
    one.close()
    two.close()
