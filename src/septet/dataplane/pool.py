"""Ready instances and the calls that wait for them, by revision.

A call takes the most recently used instance that has room, so that few instances stay hot and the others can
idle out; without room it waits in a bounded queue of its own revision. No task, future or timer per call: one
timer per revision watches the oldest waiting call.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from septet.model.errors import QueueFull, QueueTimeout, SeptetError
from septet.ports.contract import Link, ShortLink
from septet.ports.signals import Demand, Load, RevisionKey

NO_LIMIT = 1 << 30


class Waiter(Protocol):
    """A call that wants an instance. Exactly one of `assign` and `fail` is called."""

    def assign(self, link: Link, on_done: Callable[[], None]) -> None:
        """Go ahead on this link; call `on_done` once, when the instance is free of this call."""
        ...

    def fail(self, error: SeptetError) -> None: ...


class QueueBounds(Protocol):
    """What the pool reads of a revision: how many calls may wait, and for how long (seconds)."""

    @property
    def queue(self) -> int: ...

    @property
    def queue_timeout(self) -> float: ...


class Slot:
    """One instance in the pool."""

    __slots__ = ("draining", "free", "idle_since", "limit", "link", "name", "owner", "running", "short")

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
        self._waiting: OrderedDict[Waiter, tuple[float, float]] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._running = 0
        now = loop.time()
        self._busy_area = 0.0
        self._area_at = now
        self._sampled_at = now
        self._arrived = 0

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
        self._waiting[waiter] = (self._loop.time() + bounds.queue_timeout, bounds.queue_timeout)
        if again:
            self._waiting.move_to_end(waiter, last=False)
        if self._timer is None:
            self._arm()
        self._demand.wanted(self.key)

    def withdraw(self, waiter: Waiter) -> bool:
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

    def untake(self, slot: Slot) -> None:
        """The call that took it goes another way, and is counted there."""
        self._arrived -= 1
        self.release(slot)

    def release(self, slot: Slot, now: float = 0.0) -> None:
        now = now or self._loop.time()
        self._busy_area += (self._running + len(self._waiting)) * (now - self._area_at)
        self._area_at = now
        self._running -= 1
        slot.running -= 1
        if slot.running == 0:
            slot.idle_since = now
        if slot.draining or self.slots.get(slot.link.instance.id) is not slot:
            return
        if not slot.free:
            slot.free = True
            self._free.append(slot)
        if self._waiting:
            self._serve()

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
        self._unfree(slot)
        return slot.running == 0

    def remove(self, instance: str) -> None:
        slot = self.slots.pop(instance, None)
        if slot is not None:
            self._unfree(slot)

    def fail_waiting(self, error: SeptetError) -> int:
        self._account()
        failed = list(self._waiting)
        self._waiting.clear()
        for waiter in failed:
            waiter.fail(error)
        return len(failed)

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
        if slot.running >= slot.limit:
            self._free.pop()
            slot.free = False
        return slot

    def _serve(self) -> None:
        while self._waiting and self._free:
            waiter, _ = self._waiting.popitem(last=False)
            self._assign(waiter)

    def _arm(self) -> None:
        self._timer = None
        if self._waiting:
            expires, _ = next(iter(self._waiting.values()))
            self._timer = self._loop.call_at(expires, self._expire)

    def _expire(self) -> None:
        now = self._loop.time()
        self._account()
        while self._waiting:
            waiter, (expires, allowed) = next(iter(self._waiting.items()))
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

    def keys(self) -> list[RevisionKey]:
        return list(self._pools)

    def forget(self, key: RevisionKey) -> None:
        """Drops the pool of a revision that is gone, once nothing is in it."""
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
