"""Every clause of the store port, for every driver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from clauses import Clause, raises, written_clauses
from store_beds import BEDS, SqliteBed, function, take, watching
from store_clauses import suite

import septet.ports.store
from septet.model.errors import Unavailable


@pytest.fixture(params=sorted(BEDS))
async def bed(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqliteBed]:
    made = BEDS[request.param](tmp_path)
    await made.open()
    yield made
    await made.close()


@pytest.mark.parametrize("clause", suite.clauses, ids=lambda clause: clause.name)
async def test_clause(clause: Clause, bed: SqliteBed) -> None:
    await clause.check(bed)


def test_every_clause_of_the_port_has_a_test() -> None:
    assert written_clauses(septet.ports.store, "store") == suite.ids()


async def test_audit_entries_are_read_newest_first(bed: SqliteBed) -> None:
    for number in range(5):
        await bed.store.record_audit({"number": number, "id": "not yours"})
    await bed.reopen()
    newest = await bed.store.read_audit(limit=2)
    assert [entry["number"] for entry in newest] == [4, 3]
    before = newest[-1]["id"]
    assert isinstance(before, int)
    assert [entry["number"] for entry in await bed.store.read_audit(before=before)] == [2, 1, 0]


async def test_the_audit_log_is_bounded(bed: SqliteBed) -> None:
    await bed.reopen(keep=20)
    for number in range(60):
        await bed.store.record_audit({"number": number})
    kept = [entry["number"] for entry in await bed.store.read_audit(limit=100)]
    assert kept == list(range(59, 59 - len(kept), -1))
    assert 20 <= len(kept) <= 26


async def test_a_watch_ends_when_the_store_closes(bed: SqliteBed) -> None:
    await bed.store.create(function("a"))
    async with watching(bed.store, 0) as changes:
        await take(changes, 1)
        waiting = asyncio.ensure_future(take(changes, 1))
        await asyncio.sleep(0.01)
        await bed.close()
        with pytest.raises((StopAsyncIteration, RuntimeError)):
            await waiting


async def test_a_closed_store_is_unavailable(bed: SqliteBed) -> None:
    await bed.close()
    await bed.close()
    await raises(Unavailable, bed.store.get("Function", "default", "a"))
    await raises(Unavailable, bed.store.create(function("a")))


async def test_a_caller_that_goes_does_not_take_its_write_back(bed: SqliteBed) -> None:
    writing = asyncio.ensure_future(bed.store.create(function("a")))
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    while await bed.store.version() == 0:
        await asyncio.sleep(0.001)
    assert (await bed.store.get("Function", "default", "a")).meta.generation == 1
