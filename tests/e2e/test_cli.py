"""Every client command against the running program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from septet_platform import Platform

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def septet(platform: Platform, tmp_path: Path) -> Run:
    """Runs a command line as a user would, in a folder of its own; the exit code must be the one expected."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SEPTET_")}
    env = {
        **clean,
        "SEPTET_URL": platform.url,
        "SEPTET_TOKEN": platform.token,
        "SEPTET_CONFIG": str(tmp_path / "c.json"),
    }

    def run(*args: str, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "septet", *args]
        done = subprocess.run(command, cwd=tmp_path, env={**env, **more}, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture
def greet(septet: Run, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A deployed function with a name of its own, in a folder of that name."""
    name = str(request.node.name).replace("_", "-")[:40].strip("-")
    septet("new", "--runtime", "python", name)
    septet("deploy", "-f", f"{name}/septet.yaml")
    return name


def test_new_deploy_invoke(septet: Run, greet: str) -> None:
    done = septet("invoke", greet, "-d", "Ada")
    assert done.stdout == "Hello, Ada!\n" and done.stderr.startswith("invocation ")


def test_deploy_applies_only_what_changed(septet: Run, greet: str, tmp_path: Path) -> None:
    file = tmp_path / greet / "septet.yaml"
    assert f"= unchanged {greet}" in septet("deploy", "-f", str(file)).stderr
    file.write_text(file.read_text() + "    limits: {memory: 96Mi}\n")
    assert "limits.memory: 128 -> 96" in septet("deploy", "-f", str(file), "--dry-run").stdout
    again = septet("deploy", "-f", str(file))
    assert "uploading" not in again.stderr and f"{greet}-00002 is ready" in again.stderr


def test_deploy_that_fails_says_why_and_the_old_one_serves(septet: Run, greet: str, tmp_path: Path) -> None:
    (tmp_path / greet / "main.py").write_text("import nothing_of_this_name\n")
    done = septet("deploy", "-f", f"{greet}/septet.yaml", code=1)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: {greet}: {greet}-00002 did not become ready: init-failed:")
    assert "nothing_of_this_name" in last
    assert septet("invoke", greet).stdout == "Hello, world!\n"


def test_list_and_describe(septet: Run, greet: str) -> None:
    assert greet in septet("list", "-o", "name").stdout.split()
    first = septet("describe", greet).stdout.splitlines()[0]
    assert first.startswith(f"{greet}: can it be called now? yes, ")
    assert json.loads(septet("describe", greet, "-o", "json").stdout)["callable"] is True
    assert "error" in septet("describe", "nobody-of-this-name", code=3).stderr


def test_a_failed_invoke_is_one_line(septet: Run, greet: str, tmp_path: Path) -> None:
    (tmp_path / greet / "main.py").write_text("import os\ndef handle(request, context):\n    os._exit(3)\n")
    septet("deploy", "-f", f"{greet}/septet.yaml")
    done = septet("invoke", greet, code=7)
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: failed in user code: ") and "(invocation " in line


def test_logs(septet: Run, greet: str, tmp_path: Path) -> None:
    (tmp_path / greet / "main.py").write_text(
        "def handle(request, context):\n    print('a line of it')\n    return 'x'\n"
    )
    septet("deploy", "-f", f"{greet}/septet.yaml")
    invocation = septet("invoke", greet).stderr.split()[-1]
    lines = septet("logs", greet, "--invocation", invocation, "-o", "json").stdout.splitlines()
    assert [json.loads(line)["text"] for line in lines if json.loads(line)["stream"] == "stdout"] == ["a line of it"]


def test_scale_revisions_traffic_rollback(septet: Run, greet: str) -> None:
    septet("scale", greet, "--max", "2")
    septet("deploy", "-f", f"{greet}/septet.yaml")
    names = septet("revisions", greet, "-o", "name").stdout.split()
    assert names[-1] == f"{greet}-00001" and len(names) >= 2
    shares = septet("traffic", greet, f"{greet}-00001=50", "latest=50", "--tag", f"old={greet}-00001").stdout
    assert shares.splitlines()[1].split() == [f"{greet}-00001", "50%"]
    assert septet("invoke", f"{greet}@old").stdout == "Hello, world!\n"
    assert septet("rollback", greet, "--to", f"{greet}-00001").stdout == f"{greet}-00001\n"


def test_secret_namespace_token(septet: Run, greet: str) -> None:
    septet("secret", "set", "sesame", "key=value")
    assert "sesame" in septet("secret", "list").stdout
    septet("secret", "delete", "sesame", "--yes")
    septet("namespace", "create", "cellar", "--memory", "256")
    assert "memory 256" in septet("namespace", "list").stdout
    token = septet("token", "create", "caller", "--allow-namespace", "default").stdout.strip()
    assert septet("invoke", greet, SEPTET_TOKEN=token).stdout == "Hello, world!\n"
    septet("delete", greet, "--yes", SEPTET_TOKEN=token, code=4)
    septet("token", "delete", "caller", "--yes")
    septet("invoke", greet, SEPTET_TOKEN=token, code=4)
    septet("namespace", "delete", "cellar", "--yes")


def test_delete(septet: Run, greet: str) -> None:
    septet("delete", greet, code=2)
    septet("delete", greet, "--yes")
    septet("delete", "nobody-of-this-name", "--yes", code=3)


def test_up_wrote_the_context(septet: Run, platform: Platform) -> None:
    config = platform.data.parent / "config" / "septet" / "contexts.json"
    assert config.stat().st_mode & 0o777 == 0o600
    assert septet("list", "-o", "json", SEPTET_URL="", SEPTET_TOKEN="", SEPTET_CONFIG=str(config)).stdout.startswith(
        "["
    )


def test_backup_and_restore(septet: Run, greet: str, tmp_path: Path) -> None:
    archive = septet("backup", "--to", "b.tar", "--with-key").stdout.strip()
    septet("restore", archive, "--data-dir", "restored")
    septet("restore", archive, "--data-dir", "restored", code=5)
    with Platform(tmp_path / "restored") as other:
        moved = {"SEPTET_URL": other.url, "SEPTET_TOKEN": other.token}
        assert greet in septet("list", "-o", "name", **moved).stdout.split()
        assert septet("invoke", greet, **moved).stdout == "Hello, world!\n"


def test_doctor_and_version(septet: Run) -> None:
    checks = json.loads(septet("doctor", "-o", "json").stdout)
    assert {"name", "state", "detail", "cost", "fix", "required"} <= set(checks[0])
    version = json.loads(septet("version", "-o", "json").stdout)
    assert version["client"] == version["server"]["version"]


def test_service_prints_its_unit(septet: Run) -> None:
    unit = septet("service", "install", "--print").stdout
    assert "Delegate=yes" in unit and "Type=notify" in unit and "ExecStart=" in unit


def test_completion_for_a_shell(septet: Run) -> None:
    assert "_septet_completion" in septet("completion", "bash").stdout


def test_contexts_are_kept_and_chosen(septet: Run, platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(platform.token)
    septet("context", "set", "here", "--url", platform.url, "--token-file", "token")
    listed = septet("context", "list").stdout
    assert "here" in listed and platform.token not in listed
    septet("context", "use", "here")
    assert json.loads(septet("list", "-o", "json", SEPTET_URL="", SEPTET_TOKEN="").stdout) is not None
    septet("context", "delete", "here")
    assert "here" not in septet("context", "list").stdout
