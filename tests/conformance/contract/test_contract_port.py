"""Every clause of the contract port, for every kind of process."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from contract_beds import BEDS, Bed
from contract_clauses import CLAUSES

from septet.ports import contract


@pytest.fixture(params=BEDS, ids=lambda bed: bed.name)
def bed(request: pytest.FixtureRequest) -> Bed:
    found: Bed = request.param
    found.need()
    return found


@pytest.mark.parametrize("clause", CLAUSES)
async def test_clause(clause: str, bed: Bed, tmp_path: Path) -> None:
    await CLAUSES[clause](bed, tmp_path)


def test_every_clause_of_the_port_has_a_check() -> None:
    text = Path(contract.__file__).read_text()
    assert set(re.findall(r"contract\.\d+", text)) == set(CLAUSES)
