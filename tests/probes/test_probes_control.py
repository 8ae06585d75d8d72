"""The control that proves the probes: with all walls up every door is shut; without a wall, the probes that name
that wall come out open. All of it happens in a throw-away host (cell.py), never on this one."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from septet.drivers.sandbox.process import seccomp
from septet.drivers.sandbox.process.seccomp_tables import NUMBERS

HERE = Path(__file__).parent
SRC = HERE.parents[1] / "src"
EXPECTED: dict[str, dict[str, str]] = tomllib.loads((HERE / "expected.toml").read_text())


def load_probes() -> dict[int, tuple[str, tuple[str, ...], object]]:
    spec = importlib.util.spec_from_file_location("probe", HERE / "probe.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[int, tuple[str, tuple[str, ...], object]] = module.PROBES
    return found


PROBES = load_probes()
WALLS = sorted({wall for _, walls, _ in PROBES.values() for wall in walls})
ALL = sorted({part for wall in WALLS for part in wall.split("+")})
root = pytest.mark.root


@pytest.fixture(scope="module")
def runs() -> dict[str, dict[str, Any]]:
    asked = {"all walls": [], **{wall: wall.split("+") for wall in WALLS}, "no walls": ALL}
    apart = ("unshare", "--mount", "--pid", "--fork", "--net", "--ipc", "--uts", "--mount-proc", "--kill-child")
    done = subprocess.run(
        [*apart, sys.executable, str(HERE / "cell.py"), json.dumps({"runs": list(asked.values())})],
        capture_output=True,
        timeout=300,
        env={"PYTHONPATH": os.pathsep.join([str(SRC), *sys.path]), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["without"] for answer in answers] == [sorted(without) for without in asked.values()]
    found = dict(zip(asked, answers, strict=True))
    for name, answer in found.items():
        assert "error" not in answer["probes"], (name, answer["probes"])
    return found


def opened(run: dict[str, Any]) -> set[int]:
    doors = {int(number) for number, answer in run["probes"].items() if answer["verdict"] == "open"}
    return doors | ({35} if run["lingers"] else set())


@root
def test_with_all_walls_every_door_is_shut(runs: dict[str, dict[str, Any]]) -> None:
    answers = runs["all walls"]["probes"]
    assert opened(runs["all walls"]) == set(), {n: a["detail"] for n, a in answers.items() if a["verdict"] == "open"}
    assert {int(n) for n, a in answers.items() if a["verdict"] == "n/a"} == {33, 34, 35}
    assert not [a["detail"] for a in answers.values() if "Error" in a["detail"]]


@root
@pytest.mark.parametrize("wall", WALLS)
def test_without_a_wall_its_probes_are_open(runs: dict[str, dict[str, Any]], wall: str) -> None:
    naming = {number for number, (_, walls, _) in PROBES.items() if wall in walls}
    assert naming <= opened(runs[wall]), {number: runs[wall]["probes"][str(number)] for number in naming}


@root
def test_with_no_walls_almost_everything_is_open(runs: dict[str, dict[str, Any]]) -> None:
    assert len(opened(runs["no walls"])) >= 36


@root
def test_a_probe_that_opens_in_no_run_is_listed_with_its_reason(runs: dict[str, dict[str, Any]]) -> None:
    ever = set().union(*(opened(run) for run in runs.values()))
    assert set(PROBES) - ever == {int(number) for number in EXPECTED["never_opens"]}
    assert all(EXPECTED["never_opens"].values())


# Numbers that are allowed but refuse bad arguments with the same error as a filter would.
QUIRKS = {"prctl", "mknod", "mknodat", "futex", "clone", "restart_syscall"}


@root
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the untried numbers are those of x86_64")
def test_the_denied_numbers_are_those_of_the_list(runs: dict[str, dict[str, Any]]) -> None:
    """Probe 9 against the allow-list, number by number: what is allowed reaches the kernel, the rest does not."""
    detail = runs["all walls"]["probes"]["9"]["detail"]
    denied: set[int] = set()
    for part in detail.removeprefix("denied=").split(";")[0].split(","):
        first, _, last = part.partition("-")
        denied |= set(range(int(first), int(last or first) + 1))
    numbers = NUMBERS["x86_64"]
    allowed = {numbers[name] for name in seccomp.allowed("wide")}
    untried = {15, 34, 56, 57, 58, 60, 130, 231, 435}
    passed = {335, 336}  # the kernel lets uprobes' own calls past every filter, and refuses them elsewhere itself
    assert set(range(601)) - allowed - untried - passed - denied == set()
    names = {number: name for name, number in numbers.items()}
    assert {names[number] for number in denied & allowed} <= QUIRKS


def test_the_probes_and_the_table_agree() -> None:
    assert sorted(PROBES) == list(range(1, 41))
    for level in ("root", "rootless"):
        table = EXPECTED[level]
        assert {int(number) for number in table} <= set(PROBES)
        assert set(table.values()) <= {"closed", "open", "n/a", "any"}
        assert {n for n, verdict in table.items() if verdict == "n/a"} == set(EXPECTED["not_applicable"])
    for number, (name, walls, _) in PROBES.items():
        assert name and (walls or str(number) in EXPECTED["never_opens"])
