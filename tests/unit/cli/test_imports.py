"""What a client command loads: nothing that is slow and not needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from septet.cli.main import VERBS

SLOW = {"rich", "starlette", "anyio", "uvloop", "cryptography", "asyncio"}
HEAVY = SLOW | {"apsw", "prometheus_client", "yaml", "septet.app"}
NOT_FOR_HTTP = {"http.client", "email", "ssl", "_ssl", "tempfile", "platformdirs", "encodings.idna"}
PROGRAM = """
import sys
from septet.cli.main import main
code = main(sys.argv[1:])
print(*sys.modules, file=sys.stderr)
sys.exit(code)
"""
CLIENTS = ["invoke", "describe", "logs", "delete", "secret", "token", "namespace", "revisions", "version"]


def loaded(*args: str, code: int = 0) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *args], capture_output=True, text=True, env={**os.environ, "CI": "true"}
    )
    assert done.returncode == code, done.stderr
    return set(done.stderr.splitlines()[-1].split())


def test_list_loads_nothing_heavy(platform: Any) -> None:
    modules = loaded("list")
    assert "septet.cli.list" in modules and "septet.cli.exchange" in modules
    assert modules & (HEAVY | NOT_FOR_HTTP) == set()
    assert {name for name in modules if name.startswith("septet.") and not name.startswith("septet.cli")} == set()


def test_a_verb_loads_only_itself(platform: Any) -> None:
    verbs = {module for _, module in VERBS.values()}
    assert loaded("list") & verbs == {"septet.cli.list"}


def test_help_loads_no_verb() -> None:
    modules = loaded("--help")
    assert modules & {module for _, module in VERBS.values()} == set()
    assert modules & HEAVY == set()


@pytest.mark.parametrize("verb", CLIENTS)
def test_no_client_command_needs_an_event_loop(verb: str) -> None:
    assert loaded(verb, "--help") & SLOW == set()


def test_the_probe_itself_can_see_a_heavy_module(tmp_path: Path) -> None:
    """Deploy reads YAML: the same probe has to find it."""
    (tmp_path / "septet.yaml").write_text("functions: {}\n")
    assert "yaml" in loaded("deploy", "--file", str(tmp_path / "septet.yaml"), code=2)
