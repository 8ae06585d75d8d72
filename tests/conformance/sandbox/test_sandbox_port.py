"""Every clause of the sandbox port, for every driver."""

from __future__ import annotations

import inspect
import re

import pytest
from clauses import Clause
from sandbox_beds import Bed
from sandbox_clauses import suite

import septet.ports.sandbox


@pytest.mark.parametrize("clause", suite.clauses, ids=lambda clause: clause.name)
async def test_clause(clause: Clause, bed: Bed) -> None:
    await clause.check(bed)


def test_every_clause_of_the_port_has_a_test() -> None:
    written = set(re.findall(r"sandbox\.\d+", inspect.getsource(septet.ports.sandbox)))
    assert written == suite.ids()
