"""The writer: one thread, which takes everything that waits into one transaction and one sync."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import apsw

from septet.drivers.store.sqlite.connection import connect, migrate, translated
from septet.drivers.store.sqlite.reading import newest
from septet.model.errors import SeptetError, Unavailable

Result = TypeVar("Result")
Work = Callable[[apsw.Connection], Any]
Job = tuple[Work, asyncio.Future[Any], asyncio.AbstractEventLoop]
Outcome = tuple[Any, BaseException | None]
GROUP = 200
PRUNE_EVERY = 500

log = logging.getLogger("septet.store")


class Writer:
    """Runs work in write transactions. Work that fails leaves nothing behind and does not disturb its group."""

    def __init__(self, path: Path, keep: int, keep_audit: int, on_commit: Callable[[], None]) -> None:
        """Keeps at least `keep` changes and `keep_audit` audit entries, and not many more."""
        self._keep = keep
        self._keep_audit = keep_audit
        self._spare = max(1, min(PRUNE_EVERY, keep // 4, keep_audit // 4))
        self._pruned_at: tuple[int, int] | None = None
        self._on_commit = on_commit
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._closed = False
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
        # Its failure is looked at here too, for the caller may be gone by then.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
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

    def _commit(self, jobs: list[Job]) -> None:
        outcomes: list[Outcome]
        try:
            outcomes = self._transact([work for work, _, _ in jobs])
        except SeptetError as error:
            outcomes = [(None, error)] * len(jobs)
        except BaseException as error:  # whatever it was, those who wait must hear of it
            log.exception("the store's writer met an error of its own")
            outcomes = [(None, Unavailable(f"the store does not answer: {error!r}"))] * len(jobs)
        for (_, future, loop), (result, failure) in zip(jobs, outcomes, strict=True):
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
                loop.call_soon_threadsafe(_settle, future, result, failure)

    def _transact(self, works: list[Work]) -> list[Outcome]:
        with translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                before = newest(self._db)
                outcomes = [self._attempt(work) for work in works]
                self._prune()
                after = newest(self._db)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        if after != before:
            self._on_commit()
        return outcomes

    def _attempt(self, work: Work) -> Outcome:
        self._db.execute("SAVEPOINT work")
        try:
            with translated():
                result = work(self._db)
        except Exception as error:
            if not self._db.in_transaction:  # SQLite took back all of it, the others' work too
                raise
            self._db.execute("ROLLBACK TO work")
            self._db.execute("RELEASE work")
            return None, error
        self._db.execute("RELEASE work")
        return result, None

    def _prune(self) -> None:
        """Forgets the oldest rows, at the first commit and then once so many are new: one commit may bring many."""
        row = self._db.execute("SELECT coalesce(max(id), 0) FROM audit").fetchone()
        now = (newest(self._db), cast("int", row[0]) if row else 0)
        then = self._pruned_at
        if then is None or now[0] - then[0] >= self._spare or now[1] - then[1] >= self._spare:
            self._db.execute("DELETE FROM changes WHERE version <= ?", (now[0] - self._keep,))
            self._db.execute("DELETE FROM audit WHERE id <= ?", (now[1] - self._keep_audit,))
            self._pruned_at = now


def _settle(future: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if future.done():
        return
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(result)
