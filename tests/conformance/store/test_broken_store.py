"""The suite can fail: for every check there is a broken store that it finds out."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from broken_stores import BROKEN
from clauses import Clause
from store_beds import SqliteBed
from store_clauses import suite

from septet.model.errors import SeptetError


@pytest.mark.parametrize("clause", suite.clauses, ids=lambda clause: clause.name)
async def test_a_broken_store_fails(clause: Clause, tmp_path: Path) -> None:
    bed = SqliteBed(tmp_path, BROKEN[clause.check.__name__])
    await bed.open()
    try:
        with pytest.raises((AssertionError, SeptetError)):
            await asyncio.wait_for(clause.check(bed), 15)
    finally:
        await bed.close()


def test_each_is_broken_in_its_own_way() -> None:
    assert set(BROKEN) == {clause.check.__name__ for clause in suite.clauses}
    assert len(set(BROKEN.values())) == len(BROKEN)
