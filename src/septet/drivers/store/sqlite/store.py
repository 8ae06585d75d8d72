"""The store port on SQLite."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar, cast

import apsw
import msgspec

from septet.drivers.store.sqlite import reading, rows, settling, writing
from septet.drivers.store.sqlite.checking import check_all
from septet.drivers.store.sqlite.connection import connect, copy, translated
from septet.drivers.store.sqlite.writer import Writer
from septet.model.errors import InvalidInput, Unavailable
from septet.model.objects import AnyObject
from septet.ports.clock import Clock
from septet.ports.store import Change, Family, LeaseGrant, Page

Result = TypeVar("Result")
READERS = 3


class SqliteStore:
    """One file, one process. Make it on the event loop that uses it."""

    def __init__(self, path: Path, clock: Clock, *, keep: int = 20_000, keep_audit: int = 100_000) -> None:
        """`keep` is how many changes can be watched and listed back at least. Unavailable, Corrupt."""
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._wakers: set[asyncio.Event] = set()
        self._closed = False
        self._writer = Writer(path, keep, keep_audit, self._on_commit)
        self._idle: queue.SimpleQueue[apsw.Connection] = queue.SimpleQueue()
        with translated():
            for _ in range(READERS):
                self._idle.put(connect(path, readonly=True))
            self._here = connect(path, readonly=True)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")

    # -- writes

    async def create(self, obj: AnyObject) -> AnyObject:
        now = self._clock.wall()
        return await self._writer.run(lambda db: writing.create(db, obj, now))

    async def update(self, obj: AnyObject) -> AnyObject:
        now = self._clock.wall()
        return await self._writer.run(lambda db: writing.update(db, obj, now))

    async def update_status(self, obj: AnyObject) -> AnyObject:
        return await self._writer.run(lambda db: writing.update_status(db, obj))

    async def delete(self, kind: str, namespace: str, name: str, *, resource_version: int = 0) -> AnyObject:
        now = self._clock.wall()
        return await self._writer.run(lambda db: writing.delete(db, kind, namespace, name, resource_version, now))

    # -- reads

    async def get(self, kind: str, namespace: str, name: str) -> AnyObject:
        return await self._read(lambda db: writing.load(db, kind, namespace, name).obj)

    async def page(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        labels: dict[str, str] | None = None,
        limit: int = 0,
        cursor: str = "",
    ) -> Page:
        def read(db: apsw.Connection) -> Page:
            if cursor:
                place = reading.parse_cursor(cursor)
                if (place.kind, place.namespace, place.labels) != (kind, namespace, labels or {}):
                    raise InvalidInput(
                        "the cursor belongs to another list", hint="ask with the same kind, namespace and labels"
                    )
            else:
                place = reading.Cursor(kind, namespace, labels or {}, reading.newest(db), (namespace or "", ""))
            return reading.page(db, place, limit)

        return await self._read(read)

    async def version(self) -> int:
        return await self._read(reading.newest)

    def family(self, kind: str, namespace: str, name: str) -> Family | None:
        if self._closed:
            raise Unavailable("the store is closed")
        return _reading(self._here, lambda db: settling.family(db, kind, namespace, name))

    async def unsettled(self) -> tuple[list[tuple[str, str, str]], int]:
        return await self._read(lambda db: (settling.unsettled(db), reading.newest(db)))

    async def settle(self, families: Sequence[Family]) -> list[tuple[str, str]]:
        return await self._writer.run(lambda db: settling.settle(db, families))

    async def watch(self, after: int, kinds: frozenset[str] | None = None) -> AsyncIterator[Change]:
        waker = asyncio.Event()
        self._wakers.add(waker)
        try:
            while not self._closed:
                waker.clear()
                newest, found = await self._read(
                    lambda db, place=after: (reading.newest(db), reading.changes(db, place, kinds))  # type: ignore[misc]
                )
                for change in found:
                    after = change.version
                    yield change
                if len(found) < reading.BATCH:
                    # What lies between is of other kinds: it need not be kept for this watch.
                    after = max(after, newest)
                    await waker.wait()
        finally:
            self._wakers.discard(waker)

    # -- leases, audit

    async def acquire(self, name: str, holder: str, seconds: float) -> LeaseGrant | None:
        now = self._clock.wall()

        def work(db: apsw.Connection) -> LeaseGrant | None:
            held, fence, expires = _lease(db, name)
            if held not in ("", holder) and expires > now:
                return None
            if held != holder:
                fence += 1
            _put_lease(db, name, holder, fence, now + seconds)
            return LeaseGrant(name, holder, fence, now + seconds)

        return await self._writer.run(work)

    async def release(self, name: str, holder: str) -> None:
        def work(db: apsw.Connection) -> None:
            held, fence, _ = _lease(db, name)
            if held == holder:
                # The row stays, so that the fence goes on growing.
                _put_lease(db, name, "", fence, 0.0)

        await self._writer.run(work)

    async def record_audit(self, entry: dict[str, object]) -> None:
        data = msgspec.json.encode(entry)
        await self._writer.run(
            lambda db: db.execute(
                "INSERT INTO audit (data, checksum) VALUES (?, ?)", (data, rows.checksum("audit", data))
            )
        )

    async def read_audit(self, limit: int = 100, before: int = 0) -> list[dict[str, object]]:
        def read(db: apsw.Connection) -> list[dict[str, object]]:
            answer = db.execute(
                "SELECT id, data, checksum FROM audit WHERE (? = 0 OR id < ?) ORDER BY id DESC LIMIT ?",
                (before, before, limit),
            ).fetchall()
            found: list[dict[str, object]] = []
            for id_, data, check in cast("list[tuple[int, bytes, bytes]]", answer):
                if rows.checksum("audit", data) != check:
                    raise rows.corrupt(f"audit entry {id_}")
                found.append({**msgspec.json.decode(data, type=dict[str, object]), "id": id_})
            return found

        return await self._read(read)

    # -- memories

    async def remember(self, memories: Mapping[str, bytes | None]) -> None:
        def work(db: apsw.Connection) -> None:
            for name, data in memories.items():
                if data is None:
                    db.execute("DELETE FROM memories WHERE name = ?", (name,))
                else:
                    db.execute(
                        "INSERT OR REPLACE INTO memories (name, data, checksum) VALUES (?, ?, ?)",
                        (name, data, rows.checksum("memory", name, data)),
                    )

        await self._writer.run(work)

    async def recollect(self, prefix: str) -> dict[str, bytes]:
        def read(db: apsw.Connection) -> dict[str, bytes]:
            answer = db.execute(
                "SELECT name, data, checksum FROM memories WHERE substr(name, 1, ?) = ?", (len(prefix), prefix)
            ).fetchall()
            found = cast("list[tuple[str, bytes, bytes]]", answer)
            return {name: data for name, data, check in found if rows.checksum("memory", name, data) == check}

        return await self._read(read)

    # -- the whole file

    async def backup(self, path: Path) -> None:
        def work(db: apsw.Connection) -> None:
            # The first read fixes what this transaction sees; else every write would start the copy again.
            reading.newest(db)
            copy(db, path)

        await self._read(work)

    async def check(self) -> list[str]:
        return await self._read(check_all)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for waker in self._wakers:
            waker.set()
        # The writer goes last: the last connection moves the log's contents into the file.
        await asyncio.to_thread(self._readers.shutdown)
        while not self._idle.empty():
            self._idle.get().close()
        self._here.close()
        await asyncio.to_thread(self._writer.close)

    # -- inside

    async def _read(self, work: Callable[[apsw.Connection], Result]) -> Result:
        if self._closed:
            raise Unavailable("the store is closed")

        def job() -> Result:
            db = self._idle.get()
            try:
                return _reading(db, work)
            finally:
                self._idle.put(db)

        return await self._loop.run_in_executor(self._readers, job)

    def _on_commit(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody watches any more
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for waker in self._wakers:
            waker.set()


def _reading(db: apsw.Connection, work: Callable[[apsw.Connection], Result]) -> Result:
    """One transaction, so that several statements see one state."""
    with translated():
        db.execute("BEGIN")
        try:
            return work(db)
        finally:
            # SQLite has ended it by itself after some errors, and that error is the one to tell.
            if db.in_transaction:
                db.execute("ROLLBACK")


def _lease(db: apsw.Connection, name: str) -> tuple[str, int, float]:
    """(holder, fence, expires at) of a lease, free when nobody ever had it; Corrupt."""
    row = db.execute("SELECT holder, fence, expires_at, checksum FROM leases WHERE name = ?", (name,)).fetchone()
    if row is None:
        return "", 0, 0.0
    holder, fence, expires_at, check = cast("tuple[str, int, float, bytes]", row)
    if rows.checksum("lease", name, holder, fence, expires_at) != check:
        raise rows.corrupt(f"the lease {name!r}")
    return holder, fence, expires_at


def _put_lease(db: apsw.Connection, name: str, holder: str, fence: int, expires_at: float) -> None:
    check = rows.checksum("lease", name, holder, fence, expires_at)
    db.execute(
        "INSERT INTO leases (name, holder, fence, expires_at, checksum) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, fence = excluded.fence,"
        " expires_at = excluded.expires_at, checksum = excluded.checksum",
        (name, holder, fence, expires_at, check),
    )
