"""SPECIFICATION.md names only tests and benchmarks that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def rows() -> list[tuple[str, str]]:
    """(promise, what shows it) of the first table."""
    text = (ROOT / "SPECIFICATION.md").read_text().partition("## Measured")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
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


def test_every_benchmark_and_promise_test_is_named() -> None:
    text = (ROOT / "SPECIFICATION.md").read_text()
    scripts = [path for path in (ROOT / "bench").glob("*.py") if path.name != "harness.py"]
    tests = list((ROOT / "tests" / "promises").glob("test_*.py"))
    assert len(scripts) >= 8 and tests
    for path in (*scripts, *tests):
        assert f"`{path.relative_to(ROOT)}" in text, f"no promise names {path.relative_to(ROOT)}"


def test_a_benchmark_is_a_program_that_the_readme_explains() -> None:
    readme = (ROOT / "bench" / "README.md").read_text()
    names = (ROOT / "bench" / "run").read_text()
    for path in (ROOT / "bench").glob("*.py"):
        if path.name != "harness.py":
            assert f"`{path.name}`" in readme and path.stem in names, path.name
            assert path.read_text().startswith('#!/usr/bin/env python3\n"""'), path.name


def test_measured_numbers_name_their_benchmark() -> None:
    """A row of the table of numbers has what was measured, what it is compared with, and the script."""
    section = (ROOT / "SPECIFICATION.md").read_text().partition("## Measured")[2]
    lines = [line for line in section.splitlines() if line.startswith("| ")][2:]
    assert len(lines) >= 8
    for line in lines:
        what, ours, theirs, script = (cell.strip() for cell in line.strip("|").split("|"))
        assert what and re.search(r"\d", ours) and theirs, line
        assert (ROOT / script.strip("`")).is_file(), line
