"""The SQLite store at its edges: altered columns without a checksum, bounds on what is kept, copies that fail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from septet.drivers.clock.system import SystemClock
from septet.drivers.store.sqlite import connection
from septet.drivers.store.sqlite.store import SqliteStore
from septet.model.errors import Corrupt, Unavailable
from septet.model.meta import Meta, OwnerReference
from septet.model.objects import AnyObject, Environment


@contextlib.asynccontextmanager
async def opened(path: Path, keep: int = 1000) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, SystemClock(), keep=keep, keep_audit=keep)
    try:
        yield store
    finally:
        await store.close()


def environment(name: str, owner: AnyObject | None = None) -> Environment:
    reference = OwnerReference(kind="Environment", name=owner.meta.name, uid=owner.meta.uid) if owner else None
    return Environment(meta=Meta(name=name, namespace="n", owner=reference))


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    db = apsw.Connection(str(path))
    try:
        return [tuple(row) for row in db.execute(sql)]
    finally:
        db.close()


async def test_text_that_is_no_text_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with opened(path) as store:
        await store.create(environment("a"))
    query(path, "UPDATE objects SET uid = CAST(X'ff41' AS TEXT)")
    async with opened(path) as store:
        with pytest.raises(Corrupt):
            await store.get("Environment", "n", "a")
        with pytest.raises(Corrupt):
            await store.page("Environment")
        with pytest.raises(Corrupt):
            await store.delete("Environment", "n", "a")
        assert await store.check() != []


async def test_a_sequence_that_went_back_gives_no_version_again(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with opened(path) as store:
        for name in "abc":
            await store.create(environment(name))
    query(path, "UPDATE sqlite_sequence SET seq = 1 WHERE name = 'changes'")
    async with opened(path) as store:
        assert await store.check() == ["the sequence of versions went back"]
        assert await store.version() == 3
        assert (await store.create(environment("d"))).meta.resource_version == 4
        assert await store.check() == []


async def test_a_sequence_that_is_no_number_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with opened(path) as store:
        await store.create(environment("a"))
    query(path, "UPDATE sqlite_sequence SET seq = 'one' WHERE name = 'changes'")
    async with opened(path) as store:
        with pytest.raises(Corrupt):
            await store.version()
        with pytest.raises(Corrupt):
            await store.create(environment("b"))
        assert "the sequence of versions" in " ".join(await store.check())


async def test_what_is_kept_is_bounded_in_rows_also_when_commits_are_large(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with opened(path, keep=40) as store:
        for turn in range(4):
            await asyncio.gather(*(store.create(environment(f"e{turn}-{number}")) for number in range(60)))
            await asyncio.gather(*(store.record_audit({"number": number}) for number in range(60)))
    assert query(path, "SELECT count(*), max(version) FROM changes") == [(40, 240)]
    assert query(path, "SELECT count(*), max(id) FROM audit") == [(40, 240)]


async def test_what_an_earlier_process_left_is_bounded_by_the_first_commit(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with opened(path) as store:
        await asyncio.gather(*(store.create(environment(f"e{number}")) for number in range(100)))
    async with opened(path, keep=10) as store:
        await store.record_audit({"number": 1})
    assert query(path, "SELECT count(*), max(version) FROM changes") == [(10, 100)]


async def test_owned_objects_are_found_by_the_index(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with opened(path) as store:
        root = await store.create(environment("root"))
        await asyncio.gather(*(store.create(environment(f"e{number}", root)) for number in range(5)))
        seen: list[str] = []
        store._writer._db.set_profile(lambda sql, _: seen.append(sql))
        await store.delete("Environment", "n", "root")
        assert (await store.page("Environment")).items == ()
    (owned,) = {sql for sql in seen if "WHERE owner =" in sql}
    (plan,) = query(path, "EXPLAIN QUERY PLAN " + owned.replace("?", "'x'"))
    assert "objects_by_owner" in str(plan[-1])


async def test_a_store_outlives_the_loop_of_a_caller(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:

        async def leave() -> None:
            writing = asyncio.ensure_future(store.create(environment("a")))
            await asyncio.sleep(0)
            writing.cancel()

        await asyncio.to_thread(lambda: asyncio.run(leave()))
        assert (await store.create(environment("b"))).meta.name == "b"
        assert len((await store.page("Environment")).items) == 2


async def test_a_copy_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = connection._copy_pages

    def breaks(db: apsw.Connection, target: Path) -> None:
        real(db, target)
        raise apsw.FullError("the disk is full")

    monkeypatch.setattr(connection, "_copy_pages", breaks)
    async with opened(tmp_path / "s.db") as store:
        await store.create(environment("a"))
        with pytest.raises(Unavailable, match="full"):
            await store.backup(tmp_path / "copy.db")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("copy")] == []


async def test_an_error_that_ended_the_transaction_is_the_one_told(tmp_path: Path) -> None:
    def fails(db: apsw.Connection) -> None:
        db.execute("ROLLBACK")
        raise apsw.CorruptError("a page is damaged")

    async with opened(tmp_path / "s.db") as store:
        with pytest.raises(Corrupt):
            await store._read(fails)
        assert await store.version() == 0
