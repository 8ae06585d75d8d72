"""Makes the suite's own modules importable, and the test beds."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "e2e"))
sys.path.insert(0, str(Path(__file__).parents[2] / "harness"))

from sandbox_beds import BEDS, Bed


@pytest.fixture(params=sorted(BEDS))
async def bed(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bed]:
    bed = BEDS[request.param](tmp_path)
    await bed.open()
    try:
        yield bed
    finally:
        await bed.close()
