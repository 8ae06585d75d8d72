"""The whole suite again as an ordinary user, when the tests run as root."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ordinary_user import REPOSITORY, SOURCE, home, prefix

HERE = Path(__file__).parent


@pytest.mark.root
def test_the_suite_as_an_ordinary_user() -> None:
    if os.geteuid() != 0:
        pytest.skip("the tests run as an ordinary user already")
    files = [str(HERE / name) for name in ("test_sandbox_port.py", "test_process_sandbox.py")]
    command = [*prefix(), sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *files]
    command += [f"--rootdir={REPOSITORY}", "-c", f"{REPOSITORY}/pyproject.toml"]
    with home("suite") as base:
        environment = {
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(base),
            "PYTHONPATH": SOURCE,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command.append(f"--basetemp={base}/t")
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout + done.stderr)
    assert passed is not None, done.stdout
    assert int(passed[1]) >= 36, done.stdout
