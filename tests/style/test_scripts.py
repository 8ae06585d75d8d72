"""The scripts: they parse, they explain themselves, and an environment is whole or not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ["demo", "test", "check", "first-answer", "bench"]


QUICK = """#!/bin/sh
case "$1 $2" in
  "-m venv") shift 2; exec PYTHON -m venv --without-pip "$@";;
esac
exec PYTHON "$@"
""".replace("PYTHON", sys.executable)
"""A Python that makes environments without pip, which takes most of the time and is not what is tested."""


@pytest.fixture
def quick(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("quick") / "python"
    path.write_text(QUICK)
    path.chmod(0o755)
    return str(path)


def bash(text: str, cwd: Path, *, python: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    program = f"set -euo pipefail\n. {ROOT}/scripts/environment.sh\n"
    program += f"find_python() {{ echo {python}; }}\n{text}" if python else text
    return subprocess.run(["bash", "-c", program], cwd=cwd, capture_output=True, text=True, env={**os.environ, **env})


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_strict_executable_and_explained(name: str) -> None:
    path = ROOT / "scripts" / name
    lines = path.read_text().splitlines()
    assert os.access(path, os.X_OK) and lines[0] == "#!/usr/bin/env bash"
    assert lines[1].startswith("# ") and "set -euo pipefail" in lines
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.parametrize("name", ["demo", "check", "first-answer"])
def test_a_wrong_argument_changes_nothing(name: str) -> None:
    done = subprocess.run([ROOT / "scripts" / name, "--wrong"], capture_output=True, text=True)
    assert done.returncode == 2 and "usage" in done.stderr


def test_ci_runs_the_tests_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[-1] == "exec ./scripts/test" and len(lines) == 3


def test_a_bare_python_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"\n')
    bare.chmod(0o755)
    done = bash('make_environment "$PWD/.venv-x" key true', tmp_path, python=str(bare))
    assert (done.returncode, done.stderr) == (1, f"{bare} cannot make environments: apt install python3-venv\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["python"]


def test_an_environment_that_cannot_be_filled_is_not_there(tmp_path: Path, quick: str) -> None:
    done = bash('fill() { return 1; }; make_environment "$PWD/.venv-x" key fill', tmp_path, python=quick)
    assert done.returncode == 1 and "nothing was left behind" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_environment_is_made_once_for_a_key(tmp_path: Path, quick: str) -> None:
    text = 'fill() { echo filled; touch "$(dirname "$1")/mark"; }; make_environment "$PWD/.venv-x" "$KEY" fill'
    first = bash(text, tmp_path, python=quick, KEY="one")
    assert (first.returncode, first.stdout) == (0, "filled\n"), first.stderr
    assert (tmp_path / ".venv-x" / "bin" / "mark").exists()
    assert bash(text, tmp_path, python=quick, KEY="one").stdout == ""
    assert bash(text, tmp_path, python=quick, KEY="two").stdout == "filled\n"
    assert len(list(tmp_path.glob(".venv-x-*"))) == 1, "the old one is gone"


def test_one_that_broke_off_is_made_anew(tmp_path: Path, quick: str) -> None:
    text = 'fill() { [ -z "$KILL" ] || kill -9 $$; }; make_environment "$PWD/.venv-x" key fill'
    assert bash(text, tmp_path, python=quick, KILL="1").returncode == -9
    assert not (tmp_path / ".venv-x").exists()
    assert bash(text, tmp_path, python=quick, KILL="").returncode == 0
    assert (tmp_path / ".venv-x" / "bin" / "python").exists()


def test_too_old_a_python_is_named(tmp_path: Path) -> None:
    done = bash("command() { return 1; }; find_python", tmp_path)
    assert (done.returncode, done.stderr) == (1, "Python 3.11 or newer is missing: apt install python3 python3-venv\n")
