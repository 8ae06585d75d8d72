"""The pool: who gets which instance, who waits, who is told no. Time is the test's own."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from septet.dataplane.pool import InstancePool, RevisionPool
from septet.model.errors import QueueFull, QueueTimeout, SeptetError, StartFailed
from septet.model.function import Limits
from septet.model.instance import ColdReason, InstanceExit, InstanceInfo, LimitMet
from septet.ports.contract import Link, Reply, RequestHead, Upload
from septet.ports.signals import RevisionKey

KEY = ("default", "hello-00001")


class VirtualLoop:
    """`time` and `call_at` of an event loop, moved by hand."""

    def __init__(self) -> None:
        self._now = 100.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []

    def time(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[[], None], *args: Any) -> object:
        heapq.heappush(self._timers, (when, next(self._order), lambda: callback(*args)))
        return object()

    def advance(self, seconds: float) -> None:
        end = self._now + seconds
        while self._timers and self._timers[0][0] <= end:
            self._now, _, callback = heapq.heappop(self._timers)
            callback()
        self._now = end


class SilentLink:
    def __init__(self, name: str) -> None:
        self.instance = InstanceInfo(
            id=name,
            namespace="default",
            function="hello",
            revision=KEY[1],
            driver="test",
            state="ready",
            protocol="frames",
            started_at=0,
        )

    def begin(self, head: RequestHead, reply: Reply) -> Upload:
        raise AssertionError("the pool starts no exchange")

    async def close(self, grace: float) -> None:
        raise AssertionError("the pool closes no link")


class Call:
    def __init__(self) -> None:
        self.link: Link | None = None
        self.done: Callable[[], None] | None = None
        self.error: SeptetError | None = None

    def assign(self, link: Link, on_done: Callable[[], None]) -> None:
        assert self.link is None
        assert self.error is None
        self.link, self.done = link, on_done

    def fail(self, error: SeptetError) -> None:
        assert self.link is None
        assert self.error is None
        self.error = error

    def end(self) -> None:
        assert self.done is not None
        self.done()

    @property
    def where(self) -> str | None:
        return self.link.instance.id if self.link else None


class Wanted:
    def __init__(self) -> None:
        self.keys: list[RevisionKey] = []

    def wanted(self, key: RevisionKey) -> None:
        self.keys.append(key)

    def cold_reason(self, key: RevisionKey) -> ColdReason:
        return "burst"

    def lost(self, key: RevisionKey, instance: str) -> None:
        raise AssertionError

    def limits(self, instance: str, age: float, then: Callable[[tuple[LimitMet, ...]], None]) -> None:
        then(())

    def explain(self, instance: str, then: Callable[[InstanceExit | None], None]) -> None:
        raise AssertionError


@pytest.fixture
def loop() -> VirtualLoop:
    return VirtualLoop()


@pytest.fixture
def demand() -> Wanted:
    return Wanted()


@pytest.fixture
def pool(loop: VirtualLoop, demand: Wanted) -> RevisionPool:
    return RevisionPool(KEY, cast(asyncio.AbstractEventLoop, loop), demand)


def submit(pool: RevisionPool, limits: Limits | None = None, again: bool = False) -> Call:
    call = Call()
    pool.submit(call, limits or Limits(), again)
    return call


def test_a_warm_call_goes_at_once(pool: RevisionPool, demand: Wanted) -> None:
    pool.add(SilentLink("a"), 1)
    assert submit(pool).where == "a"
    assert demand.keys == []


def test_concurrency_is_a_hard_limit_and_the_queue_is_first_come_first_served(
    pool: RevisionPool, demand: Wanted
) -> None:
    pool.add(SilentLink("a"), 1)
    first, second, third = submit(pool), submit(pool), submit(pool)
    assert (first.where, second.where, third.where) == ("a", None, None)
    assert demand.keys == [KEY, KEY]
    first.end()
    assert (second.where, third.where) == ("a", None)
    second.end()
    assert third.where == "a"


def test_the_hottest_instance_with_room_is_taken(pool: RevisionPool) -> None:
    pool.add(SilentLink("a"), 2)
    pool.add(SilentLink("b"), 2)
    assert [submit(pool).where for _ in range(4)] == ["b", "b", "a", "a"]


def test_no_limit_means_no_limit(pool: RevisionPool) -> None:
    pool.add(SilentLink("a"), -1)
    assert {submit(pool).where for _ in range(500)} == {"a"}


def test_a_full_queue_says_no(pool: RevisionPool) -> None:
    limits = Limits(queue=1)
    waiting, refused = submit(pool, limits), submit(pool, limits)
    assert waiting.error is None
    assert isinstance(refused.error, QueueFull)
    assert refused.error.limit == "queue 1"
    assert refused.error.retry_after


def test_a_call_waits_no_longer_than_it_may(pool: RevisionPool, loop: VirtualLoop) -> None:
    first = submit(pool, Limits(queue_timeout=5))
    loop.advance(3)
    second = submit(pool, Limits(queue_timeout=5))
    loop.advance(2.5)
    assert isinstance(first.error, QueueTimeout)
    assert second.error is None
    loop.advance(3)
    assert isinstance(second.error, QueueTimeout)


def test_a_call_that_lost_its_instance_goes_to_the_head(pool: RevisionPool) -> None:
    pool.add(SilentLink("a"), 1)
    running, waiting = submit(pool), submit(pool)
    moved = submit(pool, again=True)
    running.end()
    assert (moved.where, waiting.where) == ("a", None)


def test_a_withdrawn_call_is_not_started(pool: RevisionPool) -> None:
    gone, next_one = submit(pool), submit(pool)
    assert pool.withdraw(gone)
    assert not pool.withdraw(gone)
    pool.add(SilentLink("a"), 1)
    assert (gone.where, next_one.where) == (None, "a")


def test_draining_takes_no_new_call_and_lets_the_running_one_end(pool: RevisionPool) -> None:
    pool.add(SilentLink("a"), 2)
    running = submit(pool)
    assert pool.drain("a") is False
    waiting = submit(pool)
    assert waiting.where is None
    running.end()
    assert waiting.where is None
    assert pool.drain("a") is True


def test_a_removed_instance_serves_nobody(pool: RevisionPool) -> None:
    pool.add(SilentLink("a"), 1)
    running = submit(pool)
    pool.remove("a")
    waiting = submit(pool)
    running.end()
    assert waiting.where is None


def test_waiting_calls_fail_with_the_functions_own_error(pool: RevisionPool) -> None:
    calls = [submit(pool) for _ in range(3)]
    error = StartFailed("it ends at once")
    assert pool.fail_waiting(error) == 3
    assert [call.error for call in calls] == [error] * 3


def test_load_is_the_time_weighted_mean(pool: RevisionPool, loop: VirtualLoop) -> None:
    pool.add(SilentLink("a"), 1)
    call = submit(pool)
    loop.advance(1)
    submit(pool)
    loop.advance(1)
    call.end()
    load = pool.sample()
    assert load.average == pytest.approx(1.5)
    assert load.rate == pytest.approx(1.0)
    assert (load.waiting, load.running) == (0, 1)
    loop.advance(2)
    assert pool.sample().average == pytest.approx(1.0)


def test_the_whole_pool_answers_for_unknown_instances(loop: VirtualLoop, demand: Wanted) -> None:
    pools = InstancePool(cast(asyncio.AbstractEventLoop, loop))
    pools.attach(demand)
    assert pools.drain(KEY, "x") is True
    assert pools.idle_since(KEY, "x") is None
    assert pools.running(KEY, "x") == 0
    pools.add(KEY, SilentLink("a"), 1)
    loop.advance(1)
    assert pools.idle_since(KEY, "a") == pytest.approx(100.0)
    pools.remove(KEY, "a")
    pools.forget(KEY)
    assert pools.keys() == []


@given(st.lists(st.sampled_from(["call", "end", "add", "drain", "remove", "withdraw", "tick"]), max_size=80), st.data())
@settings(max_examples=200, deadline=None)
def test_no_call_is_lost_doubled_or_over_the_limit(steps: list[str], data: st.DataObject) -> None:
    loop = VirtualLoop()
    pool = RevisionPool(KEY, cast(asyncio.AbstractEventLoop, loop), Wanted())
    limits: dict[str, int] = {}
    calls: list[Call] = []
    running: list[Call] = []
    gone: set[int] = set()
    for step in steps:
        if step == "call":
            calls.append(submit(pool, Limits(queue=5, queue_timeout=3)))
        elif step == "end" and running:
            running.pop(data.draw(st.integers(0, len(running) - 1))).end()
        elif step == "add":
            name = f"i{len(limits)}"
            limits[name] = data.draw(st.integers(1, 3))
            pool.add(SilentLink(name), limits[name])
        elif step in ("drain", "remove") and limits:
            getattr(pool, step)(data.draw(st.sampled_from(sorted(limits))))
        elif step == "withdraw" and calls:
            index = data.draw(st.integers(0, len(calls) - 1))
            if pool.withdraw(calls[index]):
                gone.add(index)
        elif step == "tick":
            loop.advance(1)
        seen = {id(call) for call in running}
        running += [c for c in calls if c.link and id(c) not in seen and not getattr(c, "counted", False)]
        for call in running:
            call.counted = True  # type: ignore[attr-defined]
        for place, count in Counter(call.where for call in running).items():
            assert place is not None
            assert count <= limits[place]
        waiting = [c for i, c in enumerate(calls) if c.link is None and c.error is None and i not in gone]
        load = pool.sample()
        assert load.waiting == len(waiting)
        assert load.running == len(running)
