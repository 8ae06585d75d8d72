"""Output lines and invocation records in bounded files per function, written in batches."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import shutil
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote

import msgspec

from septet.drivers.logs.segments import Segments
from septet.model.errors import NotFound
from septet.model.invocation import InvocationRecord
from septet.ports.clock import Clock
from septet.ports.logs import LogLine

log = logging.getLogger("septet.logs")

FLUSH = 0.05
PENDING_MAX = 20_000
TEXT_MAX = 64 * 1024
FOLLOW_MAX = 10_000
Key = tuple[str, str]
Result = TypeVar("Result")
_line = msgspec.json.Decoder(LogLine)
_record = msgspec.json.Decoder(InvocationRecord)
_encoder = msgspec.json.Encoder()


class FileLogs:
    """`<root>/<namespace>/<function>/{lines,calls}/`. Made on the event loop that uses it.

    All file work happens in one thread, in order; callers only append to lists.
    """

    def __init__(self, root: Path, clock: Clock, *, limit: int = 16 * 1024 * 1024) -> None:
        self._root = root
        self._clock = clock
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="logs")
        self._lines: dict[Key, list[LogLine]] = {}
        self._records: dict[Key, list[InvocationRecord]] = {}
        self._pending = 0
        self._dropped = 0
        self._timer: asyncio.TimerHandle | None = None
        self._files: dict[tuple[Key, str], Segments] = {}
        self._followers: dict[Key, set[asyncio.Queue[LogLine]]] = {}
        self._closed = False

    # -- writing

    def write(self, line: LogLine) -> None:
        if self._closed:
            return
        if self._pending >= PENDING_MAX:
            self._dropped += 1
            return
        if len(line.text) > TEXT_MAX:
            line = msgspec.structs.replace(line, text=line.text[:TEXT_MAX] + " ... (cut)")
        line = msgspec.structs.replace(line, text=printable(line.text))
        key = (line.namespace, line.function)
        self._lines.setdefault(key, []).append(line)
        self._wake()
        for follower in self._followers.get(key, ()):
            with contextlib.suppress(asyncio.QueueFull):
                follower.put_nowait(line)

    def record(self, record: InvocationRecord) -> None:
        if self._closed or self._pending >= PENDING_MAX:
            return
        self._records.setdefault((record.namespace, record.function), []).append(record)
        self._wake()

    def _wake(self) -> None:
        self._pending += 1
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH, self._flush)

    def _flush(self) -> None:
        self._timer = None
        lines, self._lines = self._lines, {}
        records, self._records = self._records, {}
        dropped, self._dropped = self._dropped, 0
        self._pending = 0
        if dropped:
            log.warning("%d lines of function output came too fast and were dropped", dropped)
        self._thread.submit(self._store, lines, records)

    def _store(self, lines: dict[Key, list[LogLine]], records: dict[Key, list[InvocationRecord]]) -> None:
        try:
            for key, new in lines.items():
                if self._file(key, "lines").append([_encoder.encode(line) for line in new]):
                    self._file(key, "lines").append([_encoder.encode(self._cut(new[-1]))])
            for key, made in records.items():
                self._file(key, "calls").append([_encoder.encode(record) for record in made])
        except OSError as error:
            log.warning("function logs cannot be written: %s", error)

    def _cut(self, after: LogLine) -> LogLine:
        return msgspec.structs.replace(
            after, stream="platform", invocation="", text="older lines were dropped: the log is at its bound"
        )

    def _file(self, key: Key, kind: str) -> Segments:
        found = self._files.get((key, kind))
        if found is None:
            found = self._files[(key, kind)] = Segments(self._folder(*key) / kind, self._limit)
        return found

    def _folder(self, namespace: str, function: str) -> Path:
        return self._root / _safe(namespace) / _safe(function)

    # -- reading

    async def read(
        self,
        namespace: str,
        function: str,
        *,
        revision: str = "",
        instance: str = "",
        invocation: str = "",
        since: float = 0.0,
        tail: int = 0,
    ) -> list[LogLine]:
        def wanted(line: LogLine) -> bool:
            return (
                line.at >= since
                and revision in ("", line.revision)
                and instance in ("", line.instance)
                and invocation in ("", line.invocation)
            )

        def job() -> list[LogLine]:
            found: list[LogLine] = []
            for data in self._file((namespace, function), "lines").read_back():
                line = _line.decode(data)
                if since and line.at < since - 60:
                    break
                if wanted(line):
                    found.append(line)
                    if tail and len(found) == tail:
                        break
            return found[::-1]

        return await self._in_order(job)

    async def follow(self, namespace: str, function: str, *, since: float = 0.0) -> AsyncIterator[LogLine]:
        key = (namespace, function)
        queue: asyncio.Queue[LogLine] = asyncio.Queue(FOLLOW_MAX)
        followers = self._followers.setdefault(key, set())
        kept = await self.read(namespace, function, since=since)
        # No await between reading the last kept line and listening: nothing is missed or told twice.
        followers.add(queue)
        try:
            for line in kept:
                yield line
            while True:
                yield await queue.get()
        finally:
            followers.discard(queue)

    async def invocations(self, namespace: str, function: str = "", *, limit: int = 100) -> list[InvocationRecord]:
        def job() -> list[InvocationRecord]:
            names = [function] if function else self._functions(namespace)
            found: list[InvocationRecord] = []
            for name in names:
                newest = itertools.islice(self._file((namespace, name), "calls").read_back(), limit)
                found.extend(map(_record.decode, newest))
            return sorted(found, key=lambda record: record.queued_at, reverse=True)[:limit]

        return await self._in_order(job)

    async def invocation(self, namespace: str, id: str) -> InvocationRecord:
        needle = f'"id":"{id}"'.encode()

        def job() -> InvocationRecord | None:
            for name in self._functions(namespace):
                for data in self._file((namespace, name), "calls").read_back():
                    if needle in data:
                        return _record.decode(data)
            return None

        found = await self._in_order(job) if id.isalnum() else None
        if found is None:
            raise NotFound(
                f"there is no record of the invocation {id[:64]!r}",
                hint="records are kept up to a bound per function; the oldest go first",
                details={"kind": "Invocation", "name": id[:64]},
            )
        return found

    async def delete(self, namespace: str, function: str) -> None:
        key = (namespace, function)

        def job() -> None:
            self._files.pop((key, "lines"), None)
            self._files.pop((key, "calls"), None)
            shutil.rmtree(self._folder(*key), ignore_errors=True)

        await self._in_order(job)

    async def close(self) -> None:
        if self._closed:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._flush()
        self._closed = True
        await asyncio.to_thread(self._thread.shutdown)

    def _functions(self, namespace: str) -> list[str]:
        folder = self._root / _safe(namespace)
        return [_plain(path.name) for path in folder.iterdir()] if folder.is_dir() else []

    async def _in_order(self, job: Callable[[], Result]) -> Result:
        """Runs after everything that was written so far."""
        if self._timer is not None:
            self._timer.cancel()
            self._flush()
        return await self._loop.run_in_executor(self._thread, job)


def printable(text: str) -> str:
    """The text with control characters spelled out, so that no line can forge another or move a terminal's cursor."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode("ascii") for c in text)


def _safe(name: str) -> str:
    return "%" + quote(name, safe="")


def _plain(name: str) -> str:
    return unquote(name[1:])
