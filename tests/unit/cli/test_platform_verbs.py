"""up, doctor, restore, service, new: what is parsed, told and written. The platform itself is a stand-in here."""

from __future__ import annotations

import configparser
import json
import os
import shutil
import socket
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from septet.cli.contexts import load_contexts
from septet.cli.new import templates
from septet.cli.service import unit_text
from septet.model.errors import Unavailable
from septet.ports.sandbox import Check
from septet.settings import Settings

READY = {
    "url": "http://127.0.0.1:1",
    "token": "sept_t",
    "data_dir": "/d",
    "pid": 1,
    "listeners": {"native": "http://127.0.0.1:1"},
}


class App(types.ModuleType):
    """Stands in for the composition root and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__("septet.app")
        self.settings: Settings | None = None
        self.restored: tuple[Path, Path] | None = None
        self.checks: list[Check] = []
        self.error: Exception | None = None

    def run(self, settings: Settings, *, on_ready: Callable[[dict[str, Any]], None]) -> int:
        self.settings = settings
        if self.error:
            raise self.error
        on_ready(READY)
        return 0

    def doctor(self) -> list[Check]:
        return self.checks

    def restore(self, archive: Path, data_dir: Path) -> None:
        self.restored = (archive, data_dir)


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> App:
    fake = App()
    monkeypatch.setitem(sys.modules, "septet.app", fake)
    monkeypatch.setattr("septet.app", fake, raising=False)
    for name in [name for name in os.environ if name.startswith("SEPTET_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("SEPTET_CONFIG", str(tmp_path / "contexts.json"))
    monkeypatch.chdir(tmp_path)
    return fake


def test_up_tells_programs_in_one_line_and_writes_the_context(app: App, septet: Any, tmp_path: Path) -> None:
    result = septet("up", "--listen", "127.0.0.1:0", "--data-dir", "d", "--ready-json", "--drain-timeout", "1m")
    assert (result.code, json.loads(result.out), result.out.count("\n")) == (0, READY, 1)
    assert app.settings is not None
    settings = app.settings
    assert (settings.listen, settings.data_dir, settings.drain_timeout) == (
        "127.0.0.1:0",
        tmp_path / "d",
        60.0,
    )
    local = load_contexts().contexts["local"]
    assert (local.url, local.token) == ("http://127.0.0.1:1", "sept_t")


def test_up_tells_people_without_the_token(app: App, septet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPTET_SANDBOX", "none")
    result = septet("up", "--no-context", "--public-metrics")
    assert result.out == "" and "serves at http://127.0.0.1:1" in result.err and "sept_t" not in result.err
    assert load_contexts().contexts == {}
    assert app.settings is not None and app.settings.sandbox == "none" and app.settings.public_metrics


def test_up_tells_systemd(app: App, septet: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        septet("up")
        notify.settimeout(5)
        assert notify.recv(100) == b"READY=1"


def test_up_refuses_in_one_line(app: App, septet: Any, tmp_path: Path) -> None:
    assert septet("up", "--listen", "nowhere").code == 2
    (tmp_path / "c").write_text("")
    assert septet("up", "--tls-cert", "c").code == 2
    app.error = Unavailable("user namespaces are off", hint="turn them on")
    result = septet("up")
    assert (result.code, result.err) == (1, "error: user namespaces are off: turn them on\n")


def test_doctor(app: App, septet: Any) -> None:
    app.checks = [
        Check(name="seccomp", state="ok", detail="filters"),
        Check(name="cgroup", state="degraded", cost="best effort", fix="delegate"),
    ]
    result = septet("doctor")
    assert result.code == 0
    assert result.out.splitlines() == [
        "ok        seccomp: filters",
        "degraded  cgroup",
        "            cost: best effort",
        "            fix: delegate",
        "",
        "driver: process",
    ]
    app.checks.append(Check(name="user namespaces", state="missing", required=True))
    fatal = septet("doctor")
    assert fatal.code == 1 and "driver: none can be used" in fatal.out
    assert [check["name"] for check in json.loads(septet("doctor", "-o", "json").out)] == [
        "seccomp",
        "cgroup",
        "user namespaces",
    ]


def test_restore_wants_an_empty_folder(app: App, septet: Any, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_bytes(b"x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert septet("restore", "b.tar", "--data-dir", "full").code == 5
    assert app.restored is None
    assert septet("restore", "b.tar", "--data-dir", "new").code == 0
    assert app.restored == (Path("b.tar"), Path("new"))


def parse_unit(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def test_the_unit_is_hardened_and_leaves_namespaces_and_cgroups(septet: Any) -> None:
    unit = parse_unit(septet("service", "install", "--print").out)["Service"]
    assert (unit["Type"], unit["Delegate"], unit["ProtectSystem"], unit["ProtectHome"]) == (
        "notify",
        "yes",
        "strict",
        "yes",
    )
    assert (unit["StateDirectory"], unit["UMask"], unit["PrivateTmp"]) == ("septet", "0077", "yes")
    assert " up --listen 127.0.0.1:8080 --data-dir %S/septet" in unit["ExecStart"]
    assert (
        "CAP_SYS_ADMIN" in unit["CapabilityBoundingSet"].split()
        and "CAP_SYS_MODULE" not in unit["CapabilityBoundingSet"]
    )
    forbidden = {
        "RestrictNamespaces",
        "PrivateUsers",
        "ProtectControlGroups",
        "ProtectProc",
        "ProtectHostname",
        "NoNewPrivileges",
    }
    assert forbidden & set(unit) == set()


def test_the_unit_satisfies_systemd(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        assert os.environ.get("CI") != "true", "systemd-analyze is missing: apt install systemd"
        pytest.skip("systemd-analyze is not on this host: apt install systemd")
    program = tmp_path / "septet-program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "septet.service"
    unit.write_text(unit_text(str(program), "127.0.0.1:8080"))
    done = subprocess.run([verify, "verify", "--man=no", unit], capture_output=True, text=True)
    assert "septet.service" not in done.stderr, done.stderr
    unit.write_text(unit_text(str(program), "127.0.0.1:8080").replace("Type=notify", "Type=nonsense"))
    broken = subprocess.run([verify, "verify", "--man=no", unit], capture_output=True, text=True)
    assert "nonsense" in broken.stderr


def test_a_listen_address_cannot_smuggle_lines_into_the_unit(septet: Any) -> None:
    assert septet("service", "install", "--print", "--listen", "x\nExecStartPre=/bin/evil").code == 2


def test_service_status_without_a_unit(septet: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("septet.cli.service.UNIT_DIR", tmp_path)
    assert septet("service", "status").code == 3
    assert septet("service", "uninstall", "--yes").code == 3


RUN_TEST = {
    "python": [sys.executable, "-m", "unittest"],
    "http": [sys.executable, "-m", "unittest"],
    "exec": ["sh", "./test.sh"],
    "node": ["node", "--test"],
    "ruby": ["ruby", "test_main.rb"],
    "go": ["go", "test"],
}


def test_every_template_has_a_test_that_is_run_here() -> None:
    assert set(templates()) == set(RUN_TEST)


@pytest.mark.parametrize("runtime", RUN_TEST)
def test_what_new_writes_passes_its_own_test_and_can_be_deployed(
    runtime: str, platform: Any, septet: Any, tmp_path: Path
) -> None:
    result = septet("new", "--runtime", runtime, "my-hello")
    assert result.code == 0 and f"cd {Path('my-hello')}" in result.err
    assert sorted(result.out.split()) == sorted(str(p.relative_to(tmp_path)) for p in (tmp_path / "my-hello").iterdir())
    assert not any("__NAME__" in p.read_text() for p in (tmp_path / "my-hello").iterdir())
    assert shutil.which(RUN_TEST[runtime][0]), f"{RUN_TEST[runtime][0]} is missing: install it to test this template"
    done = subprocess.run(RUN_TEST[runtime], cwd=tmp_path / "my-hello", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert septet("deploy", "-f", "my-hello/septet.yaml").code == 0


def test_new_overwrites_nothing(septet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert septet("new", "--runtime", "cobol", "x").code == 2
    assert septet("new", "--runtime", "python", "../x").code == 2
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine").touch()
    assert septet("new", "--runtime", "python", "x").code == 5
    assert os.listdir(tmp_path / "x") == ["mine"]
