"""Every numbered clause of a port's docstrings has a test that carries its number."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLAUSE = re.compile(r"\b(clock|store|blobs|trees|vault|sandbox|contract|logs|fleet)\.(\d+)\b")


def clauses(folder: Path) -> set[str]:
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        found.update(f"{port}.{number}" for port, number in CLAUSE.findall(path.read_text("utf-8")))
    return found


def test_every_clause_has_a_test() -> None:
    stated = clauses(ROOT / "src/septet/ports")
    assert len(stated) > 30
    assert stated - clauses(ROOT / "tests/conformance") == set()


def test_no_test_speaks_of_a_clause_that_there_is_not() -> None:
    assert clauses(ROOT / "tests/conformance") - clauses(ROOT / "src/septet/ports") == set()
