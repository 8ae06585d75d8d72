"""Output lines and invocation records in bounded files per function, written in batches."""

from __future__ import annotations

import asyncio
import itertools
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from septet.drivers.logs.following import Follower
from septet.drivers.logs.journal import Journal
from septet.drivers.logs.segments import SEGMENTS, Segments
from septet.drivers.logs.text import all_printable, bounded, folder_name
from septet.model.errors import NotFound, Unavailable
from septet.model.invocation import InvocationRecord
from septet.ports.clock import Clock
from septet.ports.logs import LogLine

log = logging.getLogger("septet.logs")

FLUSH = 0.05
SMALLEST = 64 * 1024
TEXT_MAX = 64 * 1024
FIELD_MAX = 2_048
WAITING = 32 * 1024 * 1024
WAITING_EACH = 4 * 1024 * 1024
OVERHEAD = 512
SWEEP = 3_600.0
LINES = "lines"
CALLS = "calls"
MANY = 16
"""So many records of a function in one batch go straight to its own file."""
JOURNAL = 8 * 1024 * 1024
"""Bytes of records that wait in the journal before all of them go to their functions' own files."""
Key = tuple[str, str]
Result = TypeVar("Result")
Kept = TypeVar("Kept")
_line = msgspec.json.Decoder(LogLine)
_record = msgspec.json.Decoder(InvocationRecord)
_encoder = msgspec.json.Encoder()


class _Batch:
    """What one function said since the last flush."""

    def __init__(self) -> None:
        self.lines: list[LogLine] = []
        self.records: list[InvocationRecord | bytes] = []
        self.bytes = 0


class FileLogs:
    """`<root>/<namespace>/<function>/{lines,calls}/`, and the latest records in `<root>/journal`. Made on the event
    loop that uses it.

    All file work happens in one thread, in order; callers only append to lists. What waits for the disk is
    bounded, for each function and for all, so that neither a noisy function nor a slow disk costs others.
    """

    def __init__(
        self, root: Path, clock: Clock, *, limit: int = 16 * 1024 * 1024, age: float = 30 * 24 * 3600.0
    ) -> None:
        """`limit` bounds the bytes of a function's lines, and of its records; at least 64 KiB. What a function
        wrote longer than `age` seconds ago goes in steps of a quarter of the limit."""
        self._root = root
        self._clock = clock
        self._limit = max(limit, SMALLEST)
        self._text_max = min(TEXT_MAX, self._limit // SEGMENTS // 8)
        self._field_max = min(FIELD_MAX, self._limit // SEGMENTS // 64)
        self._age = age
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="logs")
        self._batches: dict[Key, _Batch] = {}
        self._waiting: dict[Key, int] = {}
        self._waiting_all = 0
        self._dropped: dict[Key, tuple[int, LogLine]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._sweeper = self._loop.call_later(SWEEP, self._sweep_later)
        self._files: dict[Path, Segments] = {}
        # The thread's own: the records that the journal holds and their functions' files do not.
        self._journal = Journal(root / "journal")
        self._late: dict[Key, list[bytes]] = {}
        self._followers: dict[Key, set[Follower]] = {}
        self._failing = False
        self._closed = False
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._thread.submit(self._recover)

    # -- writing

    def write(self, line: LogLine) -> None:
        if self._closed:
            return
        key = (line.namespace, line.function)
        text = bounded(line.text, self._text_max)
        if text is not line.text:
            line = msgspec.structs.replace(line, text=text)
        batch = self._room(key, len(text) + OVERHEAD)
        if batch is None:
            count = self._dropped[key][0] if key in self._dropped else 0
            self._dropped[key] = (count + 1, line)
            return
        batch.lines.append(line)
        self._tell(key, line)

    def record(self, record: InvocationRecord) -> None:
        if self._closed:
            return
        batch = self._room((record.namespace, record.function), 2 * OVERHEAD)
        if batch is not None:
            batch.records.append(record)

    def record_encoded(self, function: Key, record: bytes) -> None:
        if self._closed:
            return
        batch = self._room(function, 2 * OVERHEAD)
        if batch is not None:
            batch.records.append(record)

    def _room(self, key: Key, size: int) -> _Batch | None:
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH, self._flush)
        waiting = self._waiting.get(key, 0) + size
        if waiting > WAITING_EACH or self._waiting_all + size > WAITING:
            return None
        self._waiting[key] = waiting
        self._waiting_all += size
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = _Batch()
        batch.bytes += size
        return batch

    def _tell(self, key: Key, line: LogLine) -> None:
        for follower in self._followers.get(key, ()):
            follower.put(line)

    def _flush(self) -> None:
        self._timer = None
        for key, (count, last) in self._dropped.items():
            text = f"{count} lines were dropped here: they came faster than the disk takes them"
            note = msgspec.structs.replace(last, stream="platform", invocation="", text=text)
            self._batches.setdefault(key, _Batch()).lines.append(note)
            self._tell(key, note)
        self._dropped = {}
        batches, self._batches = self._batches, {}
        self._thread.submit(self._store, batches)

    def _store(self, batches: dict[Key, _Batch]) -> None:
        failure: Exception | None = None
        few: list[bytes] = []
        for key, batch in batches.items():
            try:
                if batch.lines:
                    self._file(key, LINES).append([_encoder.encode(line) for line in batch.lines])
                if batch.records:
                    made = [self._encoded(record) for record in batch.records]
                    self._late.setdefault(key, []).extend(made)
                    if len(made) < MANY:
                        few += made
                    else:
                        self._spread_one(key)
            except Exception as error:  # nothing that one function says may keep others from being kept
                failure = error
        try:
            if few:
                self._journal.append(few)
            full = self._journal.size > JOURNAL
        except OSError:
            full = True  # there may be room where there was a file already
        failure = (self._spread() if full else None) or failure
        if failure is not None and not self._failing:
            log.warning("function logs cannot be written, and are lost meanwhile: %s", failure)
        self._failing = failure is not None
        if not self._closed:
            self._loop.call_soon_threadsafe(self._stored, batches)

    def _spread_one(self, key: Key) -> None:
        made = self._late.pop(key, None)
        if made:
            self._file(key, CALLS).append(made)

    def _spread(self) -> Exception | None:
        """All records go to their functions' own files; the first failure of those that were lost."""
        failure: Exception | None = None
        for key in list(self._late):
            try:
                self._spread_one(key)
            except Exception as error:
                failure = failure or error
        try:
            self._journal.clear()
        except OSError as error:
            failure = failure or error
        return failure

    def _recover(self) -> None:
        """What a crash left in the journal, without what had gone to its function's file before."""
        try:
            for line in self._journal.read():
                for record in _decoded(_record, iter([line])):
                    self._late.setdefault((record.namespace, record.function), []).append(line)
            for key, lines in self._late.items():
                there = set(self._file(key, CALLS).read_back())
                lines[:] = [line for line in lines if line not in there]
            failure = self._spread()
        except OSError as error:
            failure = error
        if failure is not None:
            log.warning("the journal of the invocations' records cannot be taken over: %s", failure)

    def _encoded(self, record: InvocationRecord | bytes) -> bytes:
        """The record as JSON. JSON escapes control characters and quotes, so that a short text of ASCII without an
        escape has nothing to make printable, and most records need no look at each field."""
        if isinstance(record, bytes):
            return record
        try:
            data = _encoder.encode(record)
        except UnicodeEncodeError:  # a lone surrogate, which is spelled out
            data = b"\\"
        if len(data) <= self._field_max and data.isascii() and b"\\" not in data and b"\x7f" not in data:
            return data
        return _encoder.encode(all_printable(record, self._field_max))

    def _stored(self, batches: dict[Key, _Batch]) -> None:
        for key, batch in batches.items():
            left = self._waiting.get(key, 0) - batch.bytes
            self._waiting_all -= batch.bytes
            if left > 0:
                self._waiting[key] = left
            else:
                self._waiting.pop(key, None)

    def _file(self, key: Key, kind: str) -> Segments:
        path = self._folder(*key) / kind
        found = self._files.get(path)
        if found is None:
            found = self._files[path] = Segments(path, self._limit)
        return found

    def _folder(self, namespace: str, function: str) -> Path:
        return self._root / folder_name(namespace) / folder_name(function)

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
            segments = self._kept(self._folder(namespace, function) / LINES)
            oldest: LogLine | None = None
            for line in _decoded(_line, segments.read_back()):
                oldest = line
                if since and line.at < since - 60:
                    return found[::-1]
                if wanted(line):
                    found.append(line)
                    if tail and len(found) == tail:
                        return found[::-1]
            if segments.dropped and oldest is not None:
                text = f"older lines were dropped: the log is at its bound of {self._limit >> 10} KiB"
                found.append(msgspec.structs.replace(oldest, stream="platform", invocation="", text=text))
            return found[::-1]

        return await self._in_order(job)

    async def follow(self, namespace: str, function: str, *, since: float = 0.0) -> AsyncIterator[LogLine]:
        if self._closed:
            return
        key = (namespace, function)
        follower = Follower()
        self._followers.setdefault(key, set()).add(follower)
        try:
            # What was written before this call is read; what is written from now on goes to the follower.
            for line in await self.read(namespace, function, since=since):
                yield line
            while (new := await follower.next()) is not None:
                yield new
        finally:
            followers = self._followers.get(key, set())
            followers.discard(follower)
            if not followers:
                self._followers.pop(key, None)

    async def invocations(self, namespace: str, function: str = "", *, limit: int = 100) -> list[InvocationRecord]:
        def job() -> list[InvocationRecord]:
            found: list[InvocationRecord] = []
            self._spread_of(namespace, function)
            folders = [self._folder(namespace, function)] if function else self._functions(namespace)
            for folder in folders:
                newest = _decoded(_record, self._kept(folder / CALLS).read_back())
                found.extend(itertools.islice(newest, max(limit, 0)))
            return sorted(found, key=lambda record: record.queued_at, reverse=True)[:limit]

        return await self._in_order(job)

    async def invocation(self, namespace: str, id: str) -> InvocationRecord:
        needle = id.encode("utf-8", "backslashreplace")

        def job() -> InvocationRecord | None:
            self._spread_of(namespace)
            for folder in self._functions(namespace):
                lines = (data for data in self._kept(folder / CALLS).read_back() if needle in data)
                for record in _decoded(_record, lines):
                    if record.id == id:
                        return record
            return None

        found = await self._in_order(job)
        if found is None:
            raise NotFound(
                f"there is no record of the invocation {id[:64]!r}",
                hint="records are kept up to a bound per function; the oldest go first",
                details={"kind": "Invocation", "name": id[:64]},
            )
        return found

    def _spread_of(self, namespace: str, function: str = "") -> None:
        for key in list(self._late):
            if key[0] == namespace and function in ("", key[1]):
                self._spread_one(key)

    def _functions(self, namespace: str) -> list[Path]:
        folder = self._root / folder_name(namespace)
        return list(folder.iterdir()) if folder.is_dir() else []

    def _kept(self, path: Path) -> Segments:
        return self._files.get(path) or Segments(path, self._limit)

    async def _in_order(self, job: Callable[[], Result]) -> Result:
        """Runs after everything that was written so far."""
        if self._closed:
            raise Unavailable("the logs are closed")
        if self._timer is not None:
            self._timer.cancel()
            self._flush()
        try:
            return await self._loop.run_in_executor(self._thread, job)
        except OSError as error:
            raise Unavailable(
                f"the logs cannot be read: {error.strerror or error}", hint="look at the data directory's disk"
            ) from error

    # -- removing

    async def delete(self, namespace: str, function: str) -> None:
        folder = self._folder(namespace, function)

        def job() -> None:
            self._spread()  # so that no journal brings it back
            self._forget(folder / LINES)
            self._forget(folder / CALLS)
            shutil.rmtree(folder, ignore_errors=True)

        await self._in_order(job)

    def _forget(self, path: Path) -> None:
        self._files.pop(path, None)

    def _sweep_later(self) -> None:
        self._sweeper = self._loop.call_later(SWEEP, self._sweep_later)
        self._thread.submit(self._sweep)

    def _sweep(self) -> None:
        """Removes segments that nothing was added to for longer than `age`."""
        before = self._clock.wall() - self._age
        for path in list(self._root.glob("*/*/*/*.jsonl")):
            try:
                if path.stat().st_mtime < before:
                    path.unlink()
                    self._forget(path.parent)
            except OSError as error:
                log.warning("old logs cannot be removed: %s", error)

    async def close(self) -> None:
        if self._closed:
            return
        self._sweeper.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._flush()
        self._closed = True
        for followers in self._followers.values():
            for follower in followers:
                follower.close()
        self._thread.submit(self._spread)
        self._thread.submit(self._journal.close)
        await asyncio.to_thread(self._thread.shutdown)


def _decoded(decoder: msgspec.json.Decoder[Kept], lines: Iterator[bytes]) -> Iterator[Kept]:
    """What can be read: a line that a broken disk altered is passed over."""
    for data in lines:
        try:
            yield decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
