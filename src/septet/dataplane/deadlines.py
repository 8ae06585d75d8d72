"""Deadlines of many connections with one timer, so that a call costs no timer of its own."""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

STEP = 0.05
"""Seconds between two looks; nothing fires earlier than asked, and at most this much later."""


class Dated(Protocol):
    """Something with a deadline: `when` is loop time, infinity for none; `bucket` belongs to Deadlines."""

    when: float
    bucket: int

    def expired(self, now: float) -> None: ...


class Deadlines:
    """Moving a deadline further away costs one assignment; it is looked at where it stood before."""

    def __init__(self, loop: asyncio.AbstractEventLoop, step: float = STEP) -> None:
        self._loop = loop
        self._step = step
        self._buckets: dict[int, set[Dated]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0

    def arm(self, item: Dated, when: float) -> None:
        """Sets the deadline, earlier or later than before."""
        item.when = when
        if when == math.inf:
            return
        bucket = int(when / self._step) + 1
        if item.bucket and item.bucket <= bucket:
            return
        self.drop(item)
        item.bucket = bucket
        self._buckets.setdefault(bucket, set()).add(item)
        if self._timer is None or bucket < self._next:
            self._schedule(bucket)

    def drop(self, item: Dated) -> None:
        """Forgets it; a closed connection must not be held."""
        if item.bucket:
            found = self._buckets.get(item.bucket)
            if found is not None:
                found.discard(item)
                if not found:
                    del self._buckets[item.bucket]
            item.bucket = 0

    def _schedule(self, bucket: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = bucket
        self._timer = self._loop.call_at(bucket * self._step, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        for bucket in [bucket for bucket in self._buckets if bucket * self._step <= now]:
            due = self._buckets.pop(bucket, set())
            while due:
                item = due.pop()
                item.bucket = 0
                if item.when <= now:
                    item.expired(now)
                else:
                    self.arm(item, item.when)
        if self._buckets:
            soonest = min(self._buckets)
            if self._timer is None or soonest < self._next:
                self._schedule(soonest)
