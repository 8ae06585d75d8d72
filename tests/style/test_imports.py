"""Imports go one way, and a module that has no floor in the house is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).parent / "lint-imports"
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    return subprocess.run(
        [str(command), "--no-cache"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the sources that a test may spoil."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


def test_imports_go_one_way() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


SPOILS = [
    ("utils.py", "", "utils"),
    ("model/meta.py", "import septet.policy.retry", "septet.model.meta -> septet.policy.retry"),
    ("policy/retry.py", "import time", "septet.policy.retry -> time"),
    ("policy/traffic.py", "import random", "septet.policy.traffic -> random"),
    ("policy/quota.py", "import asyncio", "septet.policy.quota -> asyncio"),
    ("control/mirror.py", "import septet.dataplane.pool", "septet.control.mirror -> septet.dataplane.pool"),
    ("dataplane/pool.py", "import septet.control.mirror", "septet.dataplane.pool -> septet.control.mirror"),
    ("ports/clock.py", "import septet.service", "septet.ports.clock -> septet.service"),
    ("apis/native/__init__.py", "import septet.ports.store", "septet.apis.native -> septet.ports.store"),
    ("drivers/store/__init__.py", "import septet.policy.retry", "septet.drivers.store -> septet.policy.retry"),
]


def test_every_import_the_wrong_way_is_found(copy: Path) -> None:
    for file, line, _ in SPOILS:
        path = copy / "src" / "septet" / file
        path.write_text((path.read_text() if path.exists() else "") + f"\n{line}\n")
    result = lint(copy)
    assert result.returncode != 0
    text = " ".join(result.stdout.split())
    assert [said for _, _, said in SPOILS if said not in text] == [], result.stdout
