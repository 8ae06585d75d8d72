"""Ready instances and the calls that wait for them, by revision.

A call takes the most recently used instance that has room, so that few instances stay hot and the others can
idle out; without room it waits in a bounded queue of its own revision. No task, future or timer per call: one
timer per revision watches the oldest waiting call.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from septet.model.errors import QueueFull, QueueTimeout, SeptetError
from septet.policy import ahead
from septet.ports.contract import Link, ShortLink
from septet.ports.signals import Demand, Load, RevisionKey

NO_LIMIT = 1 << 30


class Waiter(Protocol):
    """A call that wants an instance. Exactly one of `assign` and `fail` is called."""

    def assign(self, link: Link, on_done: Callable[[], None]) -> None:
        """Go ahead on this link; call `on_done` once, when the instance is free of this call."""
        ...

    def fail(self, error: SeptetError) -> None: ...


class ShortWaiter(Protocol):
    """A call that goes to an instance in one step. Exactly one of `enter` and `fail` is called."""

    def enter(self, slot: Slot) -> None:
        """Go ahead there, and call `RevisionPool.release` once, when the instance is free of this call."""
        ...

    def fail(self, error: SeptetError) -> None: ...


class Queued(NamedTuple):
    """A waiting call: until when (loop time), how long that is, how it goes on, and whether that is in one step."""

    expires: float
    allowed: float
    enter: Callable[[Slot], None]
    short: bool


class QueueBounds(Protocol):
    """What the pool reads of a revision: how many calls may wait, and for how long (seconds)."""

    @property
    def queue(self) -> int: ...

    @property
    def queue_timeout(self) -> float: ...


CROWDED = 1.0
"""Seconds after a call that found no room."""


class Slot:
    """One instance in the pool. `looked` is when a short call of it last failed in a way that was looked into."""

    __slots__ = (
        "draining",
        "free",
        "idle_since",
        "limit",
        "link",
        "looked",
        "moved",
        "name",
        "near",
        "owner",
        "running",
        "short",
        "since",
    )

    def __init__(self, owner: RevisionPool, link: Link, limit: int, now: float) -> None:
        self.owner = owner
        self.link = link
        self.short = link if isinstance(link, ShortLink) else None
        self.name = link.instance.id.encode()
        self.limit = limit
        self.running = 0
        self.draining = False
        self.free = False
        self.idle_since = now
        self.since = now
        self.moved = now
        self.near = False
        self.looked = -math.inf

    def done(self) -> None:
        """A call left this instance; the next waiting one takes its place."""
        self.owner.release(self)


class RevisionPool:
    """The instances of one revision and its queue."""

    def __init__(self, key: RevisionKey, loop: asyncio.AbstractEventLoop, demand: Demand) -> None:
        self.key = key
        self.slots: dict[str, Slot] = {}
        self._loop = loop
        self._demand = demand
        self._free: list[Slot] = []
        self._waiting: OrderedDict[Waiter | ShortWaiter, Queued] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._near: deque[Slot] = deque()
        self._depth = 0
        self._ran = self._slow = 0
        self._ran_for = 0.0
        self._look: asyncio.TimerHandle | None = None
        self._running = 0
        now = loop.time()
        self._busy_area = 0.0
        self._area_at = now
        self._sampled_at = now
        self._arrived = 0
        self._crowded_at = -CROWDED

    # -- calls

    def submit(self, waiter: Waiter, bounds: QueueBounds, again: bool = False) -> None:
        """Assigns the call at once, queues it, or fails it with QueueFull. `again` puts it at the head of the
        queue: it waited already and its instance was lost."""
        self._account()
        if not again:
            self._arrived += 1
        if self._free and not self._waiting:
            self._assign(waiter)
            return
        self._queue(waiter, lambda slot: waiter.assign(slot.link, slot.done), bounds, again, False)

    def queue(self, waiter: ShortWaiter, bounds: QueueBounds, now: float, again: bool = False) -> None:
        """As `submit`, of a call that found no room."""
        self._busy_area += (self._running + len(self._waiting)) * (now - self._area_at)
        self._area_at = now
        if not again:
            self._arrived += 1
        if self._depth:
            self._crowd()
        if self._near and not self._waiting and not again:
            slot = self._nearest()
            if slot is not None:
                self._demand.wanted(self.key)
                waiter.enter(self._join(slot))
                return
        self._queue(waiter, waiter.enter, bounds, again, True)

    def _queue(
        self, waiter: Waiter | ShortWaiter, enter: Callable[[Slot], None], bounds: QueueBounds, again: bool, short: bool
    ) -> None:
        if len(self._waiting) >= bounds.queue and not again:
            waiter.fail(
                QueueFull(
                    f"{len(self._waiting)} calls wait for {self.key[1]}, and its queue holds no more",
                    hint="try again shortly, or raise limits.queue or scale.max",
                    limit=f"queue {bounds.queue}",
                    retry_after=1.0,
                )
            )
            return
        allowed = bounds.queue_timeout
        self._waiting[waiter] = Queued(self._loop.time() + allowed, allowed, enter, short)
        if again:
            self._waiting.move_to_end(waiter, last=False)
        if self._timer is None:
            self._arm()
        self._demand.wanted(self.key)

    def withdraw(self, waiter: Waiter | ShortWaiter) -> bool:
        """The caller of a waiting call is gone; False when it was not waiting."""
        if waiter not in self._waiting:
            return False
        self._account()
        del self._waiting[waiter]
        return True

    def take(self, now: float) -> Slot | None:
        """Room for a call that begins now (loop time) and ends with `release`; None when it would have to wait."""
        if not self._free or self._waiting:
            return None
        self._busy_area += self._running * (now - self._area_at)
        self._area_at = now
        self._arrived += 1
        return self._occupy()

    def release(self, slot: Slot, now: float = 0.0) -> None:
        now = now or self._loop.time()
        self._busy_area += (self._running + len(self._waiting)) * (now - self._area_at)
        self._area_at = now
        self._running -= 1
        slot.running -= 1
        slot.moved = now
        if slot.running == 0:
            slot.idle_since = now
        if slot.draining or self.slots.get(slot.link.instance.id) is not slot:
            return
        if slot.running >= slot.limit:
            if self._depth and not slot.near and self._area_at - self._crowded_at < CROWDED:
                self._come_near(slot)
        elif not slot.free:
            slot.free = True
            self._free.append(slot)
        if self._waiting:
            self._serve()

    def ran(self, slot: Slot, began: float, now: float) -> None:
        """A short call ended, before its `release`. One that waited inside began when the one before it ended."""
        took = now - (began if began > slot.moved else slot.moved)
        self._ran += 1
        self._ran_for += took
        if took > ahead.SHORT:
            self._slow += 1
        if self._ran >= ahead.WINDOW:
            self._depth = ahead.depth(self._ran, self._slow, self._ran_for)
            self._forget_runs()

    def _forget_runs(self) -> None:
        self._ran = self._slow = 0
        self._ran_for = 0.0

    # -- instances

    def add(self, link: Link, concurrency: int) -> None:
        limit = concurrency if concurrency > 0 else NO_LIMIT
        slot = Slot(self, link, limit, self._loop.time())
        self.slots[link.instance.id] = slot
        slot.free = True
        self._free.append(slot)
        self._account()
        self._serve()

    def drain(self, instance: str) -> bool:
        slot = self.slots.get(instance)
        if slot is None:
            return True
        slot.draining = True
        slot.near = False
        self._unfree(slot)
        return slot.running == 0

    def remove(self, instance: str) -> None:
        slot = self.slots.pop(instance, None)
        if slot is not None:
            slot.draining = True
            self._unfree(slot)

    def fail_waiting(self, error: SeptetError) -> int:
        self._account()
        failed = list(self._waiting)
        self._waiting.clear()
        for waiter in failed:
            waiter.fail(error)
        return len(failed)

    def take_waiting(self) -> list[Waiter | ShortWaiter]:
        """Those that wait, who from now on wait no more here."""
        self._account()
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    def sample(self) -> Load:
        """Load since the previous sample."""
        self._account()
        now = self._loop.time()
        span = now - self._sampled_at
        busy = self._running + len(self._waiting)
        load = Load(
            average=self._busy_area / span if span > 0 else float(busy),
            rate=self._arrived / span if span > 0 else 0.0,
            waiting=len(self._waiting),
            running=self._running,
        )
        self._busy_area = 0.0
        self._arrived = 0
        self._sampled_at = now
        return load

    @property
    def busy(self) -> bool:
        """Whether a call came since the last sample, or is here now."""
        return bool(self._running or self._waiting or self._arrived)

    @property
    def sampled_at(self) -> float:
        """Loop time of the last sample."""
        return self._sampled_at

    @property
    def empty(self) -> bool:
        return not self.slots and not self._waiting and not self._running

    # -- inside

    def _account(self) -> None:
        now = self._loop.time()
        self._busy_area += (self._running + len(self._waiting)) * (now - self._area_at)
        self._area_at = now

    def _unfree(self, slot: Slot) -> None:
        if slot.free:
            slot.free = False
            self._free.remove(slot)

    def _assign(self, waiter: Waiter) -> None:
        slot = self._occupy()
        waiter.assign(slot.link, slot.done)

    def _occupy(self) -> Slot:
        """The most recently used instance that has room gets one call more."""
        slot = self._free[-1]
        slot.running += 1
        self._running += 1
        if slot.running == 1:
            slot.moved = self._area_at
        if slot.running >= slot.limit:
            self._free.pop()
            slot.free = False
            if self._depth and not slot.near and self._area_at - self._crowded_at < CROWDED:
                self._come_near(slot)
        return slot

    # -- calls that wait inside a serial instance

    def _crowd(self) -> None:
        """A call found no room. An instance that is rarely asked for more than it takes shall not listen for calls
        behind its own: that costs it a thread which looks around."""
        if self._area_at - self._crowded_at >= CROWDED:
            for slot in self.slots.values():
                if slot.running >= slot.limit and not slot.near:
                    self._come_near(slot)
        self._crowded_at = self._area_at

    def _come_near(self, slot: Slot) -> None:
        """It is full, and may be given a few calls ahead when it is serial and its process agreed to that."""
        if slot.limit == 1 and slot.short is not None and slot.short.takes_ahead() and not slot.draining:
            slot.near = True
            self._near.append(slot)

    def _nearest(self) -> Slot | None:
        """The next instance in turn whose calls end shortly and that has room ahead."""
        for _ in range(len(self._near)):
            slot = self._near.popleft()
            room = slot.limit <= slot.running < slot.limit + self._depth
            if slot.draining or not room or self._area_at - slot.moved > ahead.SHORT:
                slot.near = False
                continue
            self._near.append(slot)
            return slot
        return None

    def _join(self, slot: Slot) -> Slot:
        slot.running += 1
        self._running += 1
        if self._look is None:
            self._look = self._loop.call_later(ahead.STUCK, self._recall)
        return slot

    def _recall(self) -> None:
        """Instances whose call takes longer than was to be expected give back those behind it."""
        now = self._loop.time()
        behind = False
        for slot in self.slots.values():
            if slot.running > slot.limit and slot.short is not None:
                behind = True
                if now - slot.moved > ahead.STUCK:
                    self._depth = 0
                    self._forget_runs()
                    slot.short.recall()
        self._look = self._loop.call_later(ahead.STUCK, self._recall) if behind else None

    def _serve(self) -> None:
        while self._waiting and self._free:
            _, queued = self._waiting.popitem(last=False)
            queued.enter(self._occupy())
        while self._waiting and self._near:
            waiter, queued = next(iter(self._waiting.items()))
            slot = self._nearest() if queued.short else None
            if slot is None:
                break
            del self._waiting[waiter]
            queued.enter(self._join(slot))

    def _arm(self) -> None:
        self._timer = None
        if self._waiting:
            first = next(iter(self._waiting.values()))
            self._timer = self._loop.call_at(first.expires, self._expire)

    def _expire(self) -> None:
        now = self._loop.time()
        self._account()
        while self._waiting:
            waiter, (expires, allowed, _, _) = next(iter(self._waiting.items()))
            if expires > now:
                break
            del self._waiting[waiter]
            waiter.fail(
                QueueTimeout(
                    f"no instance of {self.key[1]} was free within {allowed:g} s",
                    hint="raise scale.max or limits.queue_timeout, or make the function faster",
                    limit=f"queue_timeout {allowed:g} s",
                    retry_after=1.0,
                )
            )
        self._arm()


class InstancePool:
    """All revisions' pools; what control sees of the data plane (`ports/signals.Pool`)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pools: dict[RevisionKey, RevisionPool] = {}
        self._demand: Demand | None = None

    def attach(self, demand: Demand) -> None:
        """Control is there; before this no call may be submitted."""
        self._demand = demand

    def of(self, key: RevisionKey) -> RevisionPool:
        pool = self._pools.get(key)
        if pool is None:
            if self._demand is None:
                raise RuntimeError("the pool has no demand signal attached")
            pool = self._pools[key] = RevisionPool(key, self._loop, self._demand)
        return pool

    def find(self, key: RevisionKey) -> RevisionPool | None:
        return self._pools.get(key)

    def keys(self) -> list[RevisionKey]:
        return list(self._pools)

    def forget(self, key: RevisionKey) -> None:
        """Drops the pool of a revision that is gone or at rest, once nothing is in it."""
        pool = self._pools.get(key)
        if pool is not None and pool.empty:
            del self._pools[key]

    def add(self, key: RevisionKey, link: Link, concurrency: int) -> None:
        self.of(key).add(link, concurrency)

    def drain(self, key: RevisionKey, instance: str) -> bool:
        pool = self._pools.get(key)
        return pool.drain(instance) if pool else True

    def remove(self, key: RevisionKey, instance: str) -> None:
        if pool := self._pools.get(key):
            pool.remove(instance)

    def idle_since(self, key: RevisionKey, instance: str) -> float | None:
        pool = self._pools.get(key)
        slot = pool.slots.get(instance) if pool else None
        return slot.idle_since if slot and slot.running == 0 else None

    def running(self, key: RevisionKey, instance: str) -> int:
        pool = self._pools.get(key)
        slot = pool.slots.get(instance) if pool else None
        return slot.running if slot else 0

    def sample(self, key: RevisionKey) -> Load:
        return self.of(key).sample()

    def fail_waiting(self, key: RevisionKey, error: SeptetError) -> int:
        pool = self._pools.get(key)
        return pool.fail_waiting(error) if pool else 0
