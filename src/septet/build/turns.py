"""One at a time for each key."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Turns:
    """Keeps a lock for as long as somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[asyncio.Lock, int]] = {}

    @contextlib.asynccontextmanager
    async def of(self, key: str) -> AsyncIterator[None]:
        lock, users = self._open.get(key) or (asyncio.Lock(), 0)
        self._open[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._open.pop(key)
            if users > 1:
                self._open[key] = (lock, users - 1)
