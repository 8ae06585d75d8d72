"""The host's clocks."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """`now` is the event loop's clock: monotonic."""

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
