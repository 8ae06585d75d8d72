"""One reader that follows a function's lines as they come, with a bound on what waits for it."""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from septet.ports.logs import LogLine

WAITING = 4 * 1024 * 1024


class Follower:
    """A queue bounded by bytes; a reader that is too slow is told how many lines it missed."""

    def __init__(self) -> None:
        self._lines: deque[tuple[LogLine, int]] = deque()
        self._bytes = 0
        self._missed = 0
        self._closed = False
        self._changed = asyncio.Event()

    def put(self, line: LogLine) -> None:
        if self._bytes + len(line.text) > WAITING:
            self._missed += 1
            return
        if self._missed:
            text = f"{self._missed} lines were left out here: they came faster than they were read"
            note = msgspec.structs.replace(line, stream="platform", invocation="", text=text)
            self._lines.append((note, 0))
            self._missed = 0
        self._lines.append((line, len(line.text)))
        self._bytes += len(line.text)
        self._changed.set()

    def close(self) -> None:
        self._closed = True
        self._changed.set()

    async def next(self) -> LogLine | None:
        """The next line; None when the log was closed."""
        while not self._lines:
            if self._closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        line, size = self._lines.popleft()
        self._bytes -= size
        return line
