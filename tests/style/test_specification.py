"""SPECIFICATION.md names only tests and benchmarks that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def rows() -> list[tuple[str, str]]:
    """(promise, what shows it) of the table."""
    lines = [line for line in (ROOT / "SPECIFICATION.md").read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return [(row[0], row[1]) for row in cells]


def test_every_promise_names_what_shows_it_or_is_pending() -> None:
    assert len(rows()) >= 20
    for promise, shown in rows():
        assert shown == "pending" or re.search(r"`(tests|bench)/[^`]+`", shown), promise


def test_what_is_named_exists() -> None:
    for promise, shown in rows():
        for name in re.findall(r"`([^`]+)`", shown):
            path, _, test = name.partition("::")
            assert (ROOT / path).is_file(), f"{promise}: there is no {path}"
            assert not test or f"def {test}(" in (ROOT / path).read_text(), f"{promise}: there is no {name}"
