"""Reads what an instance prints: whole lines, bounded in length and in rate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

LINE_MAX = 64 * 1024


class OutputPipe(asyncio.Protocol):
    """One stream's end on our side. `line` gets each line without its newline; longer ones come in pieces.

    Past `rate` bytes a second, above a `burst`, reading pauses: the pipe fills and the writer waits, so a flood
    costs its own instance and nobody else. `flooded` is called when that begins.
    """

    def __init__(self, line: Callable[[bytes], None], flooded: Callable[[], None], rate: float, burst: float) -> None:
        self._line = line
        self._flooded = flooded
        self._rate = rate
        self._burst = burst
        self._budget = burst
        self._filled_at = 0.0
        self._rest = bytearray()
        self._noted = False
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.ReadTransport | None = None
        self._hurry = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop has transports of its own, which are no subclass of the standard ones
        self._transport = cast("asyncio.ReadTransport", transport)
        self._filled_at = asyncio.get_running_loop().time()

    def data_received(self, data: bytes) -> None:
        self._split(data)
        if self._hurry:
            return
        now = asyncio.get_running_loop().time()
        self._budget = min(self._burst, self._budget + (now - self._filled_at) * self._rate) - len(data)
        self._filled_at = now
        if self._budget < 0 and self._timer is None and self._transport is not None:
            self._transport.pause_reading()
            # A little longer than needed, so that a flood does not wake us for every page.
            delay = -self._budget / self._rate + 0.05
            self._timer = asyncio.get_running_loop().call_later(delay, self._resume)
            if not self._noted:
                self._noted = True
                self._flooded()

    def _resume(self) -> None:
        self._timer = None
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _split(self, data: bytes) -> None:
        self._rest += data
        start = 0
        while True:
            end = self._rest.find(b"\n", start, start + LINE_MAX + 1)
            if end < 0 and len(self._rest) - start <= LINE_MAX:
                break
            if end < 0:
                self._line(bytes(self._rest[start : start + LINE_MAX]))
                start += LINE_MAX
            else:
                self._line(bytes(self._rest[start:end]))
                start = end + 1
        del self._rest[:start]

    def hurry(self) -> None:
        """The writers are gone: read what the pipe still holds, without delay."""
        self._hurry = True
        if self._timer is not None:
            self._timer.cancel()
            self._resume()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._rest:
            self._line(bytes(self._rest))
            self._rest.clear()
        if self._timer is not None:
            self._timer.cancel()
        if not self.closed.done():
            self.closed.set_result(None)
