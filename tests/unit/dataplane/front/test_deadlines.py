from __future__ import annotations

import asyncio
import math

from septet.dataplane.deadlines import STEP, Deadlines
from septet.dataplane.ids import IdSource


class Item:
    def __init__(self) -> None:
        self.when = math.inf
        self.bucket = 0
        self.fired: list[float] = []

    def expired(self, now: float) -> None:
        self.fired.append(now)


async def test_never_early_and_hardly_late() -> None:
    loop = asyncio.get_running_loop()
    deadlines, items = Deadlines(loop), [Item() for _ in range(20)]
    due = [loop.time() + 0.02 * number for number in range(20)]
    for item, when in zip(items, due, strict=True):
        deadlines.arm(item, when)
    await asyncio.sleep(0.02 * 20 + 3 * STEP)
    for item, when in zip(items, due, strict=True):
        assert len(item.fired) == 1
        assert when <= item.fired[0] <= when + 3 * STEP
    assert not deadlines._buckets
    assert deadlines._timer is None


async def test_moved_later_moved_earlier_and_dropped() -> None:
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(loop)
    later, earlier, dropped, never = Item(), Item(), Item(), Item()
    now = loop.time()
    for item in (later, dropped, never):
        deadlines.arm(item, now + 0.05)
    deadlines.arm(earlier, now + 60)
    deadlines.arm(later, now + 0.3)
    deadlines.arm(earlier, now + 0.1)
    deadlines.arm(never, math.inf)
    deadlines.drop(dropped)
    await asyncio.sleep(0.2)
    assert len(earlier.fired) == 1
    assert not later.fired
    await asyncio.sleep(0.2)
    assert len(later.fired) == 1
    assert not dropped.fired
    assert not never.fired


def test_ids_are_never_all_zero_and_never_the_same() -> None:
    ids = IdSource()
    seen = {ids.invocation() for _ in range(2000)} | {ids.span() for _ in range(2000)}
    assert len(seen) == 4000
    ids._pool, ids._at = "0" * 32 + "1" * 32, 0
    assert ids.invocation() == "1" * 32
