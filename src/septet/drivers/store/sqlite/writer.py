"""The writer: one thread, which takes everything that waits into one transaction and one sync."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import apsw

from septet.drivers.store.sqlite.connection import connect, migrate, translated
from septet.drivers.store.sqlite.reading import newest
from septet.model.errors import SeptetError, Unavailable

Result = TypeVar("Result")
Work = Callable[[apsw.Connection], Any]
GROUP = 200
PRUNE_EVERY = 500


class Writer:
    """Runs work in write transactions. Work that fails leaves nothing behind and does not disturb its group."""

    def __init__(self, path: Path, keep: int, on_commit: Callable[[int], None]) -> None:
        self._path = path
        self._keep = keep
        self._on_commit = on_commit
        self._queue: queue.SimpleQueue[tuple[Work, asyncio.Future[Any], asyncio.AbstractEventLoop] | None]
        self._queue = queue.SimpleQueue()
        self._closed = False
        self._commits = 0
        with translated():
            self._db = connect(path)
            migrate(self._db, path)
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[apsw.Connection], Result]) -> Result:
        """What `work` returned, once it is on disk; raises what it raised, or Unavailable."""
        if self._closed:
            raise Unavailable("the store is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._queue.put((work, future, loop))
        # A caller that is cancelled does not take back a write that may be under way.
        return await asyncio.shield(future)

    def close(self) -> None:
        """Ends after what was asked for before."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join()
            self._db.close()

    def _run(self) -> None:
        ended = False
        while not ended:
            group = [self._queue.get()]
            with contextlib.suppress(queue.Empty):
                while len(group) < GROUP:
                    group.append(self._queue.get_nowait())
            ended = None in group
            jobs = [job for job in group if job is not None]
            if jobs:
                self._commit(jobs)

    def _commit(self, jobs: list[tuple[Work, asyncio.Future[Any], asyncio.AbstractEventLoop]]) -> None:
        outcomes: list[tuple[Any, BaseException | None]] = []
        try:
            with translated():
                before = newest(self._db)
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    outcomes = [self._attempt(work) for work, _, _ in jobs]
                    self._prune()
                    after = newest(self._db)
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
        except SeptetError as error:
            outcomes = [(None, error)] * len(jobs)
        else:
            if after != before:
                self._on_commit(after)
        for (_, future, loop), (result, failure) in zip(jobs, outcomes, strict=True):
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
                loop.call_soon_threadsafe(_settle, future, result, failure)

    def _attempt(self, work: Work) -> tuple[Any, BaseException | None]:
        self._db.execute("SAVEPOINT work")
        try:
            result = work(self._db)
        except apsw.Error:
            raise
        except Exception as error:
            self._db.execute("ROLLBACK TO work")
            self._db.execute("RELEASE work")
            return None, error
        self._db.execute("RELEASE work")
        return result, None

    def _prune(self) -> None:
        self._commits += 1
        if self._commits % PRUNE_EVERY == 0:
            self._db.execute("DELETE FROM changes WHERE version <= ?", (newest(self._db) - self._keep,))


def _settle(future: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if future.done():
        return
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(result)
