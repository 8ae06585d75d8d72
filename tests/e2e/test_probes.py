"""The forty probes as a function and as a build step of a real platform, run by root and by an ordinary user."""

from __future__ import annotations

import ctypes
import json
import os
import platform as machine
import socket
import time
import tomllib
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ordinary_user
import pytest
from septet_platform import Platform

PROBES = Path(__file__).parents[1] / "probes"
PROBE = (PROBES / "probe.py").read_text()
EXPECTED: dict[str, dict[str, str]] = tomllib.loads((PROBES / "expected.toml").read_text())
NUMBERS = range(1, 41)
SHM_KEY = 0x5E97E8
LIBC = ctypes.CDLL(None, use_errno=True)
BOUNDS = {"forks": 300, "memory_mib": 256, "tmp_mib": 128, "files": 90_000, "descriptors": 70_000}
LEVELS = [pytest.param("root", marks=pytest.mark.root), "rootless"]


@pytest.fixture(scope="module", params=LEVELS)
def level(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def walled(level: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The platform of a level."""
    if level == "root" or os.geteuid() != 0:
        with Platform(tmp_path_factory.mktemp("walled") / "data", "--shared-namespace", "default") as running:
            yield running
        return
    environment = {"PYTHONPATH": ordinary_user.SOURCE, "PYTHONDONTWRITEBYTECODE": "1"}
    with ordinary_user.home() as base:
        environment["HOME"] = str(base)
        flags = ("--shared-namespace", "default")
        with Platform(base / "data", *flags, env=environment, prefix=ordinary_user.prefix()) as running:
            yield running


@pytest.fixture(scope="module")
def host(walled: Platform) -> Iterator[dict[str, Any]]:
    """What a probe is told of the host: things that are there, so that a door that leads to them would be seen."""
    canary = walled.data.parent / "canary"
    canary.write_text("canary")
    canary.chmod(0o644)
    segment = LIBC.shmget(SHM_KEY, 4096, 0o1000 | 0o666)
    name = f"septet-probe-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen(8)
        yield {
            "canaries": [
                str(canary),
                str(walled.data),
                *map(str, walled.data.glob("*")),
            ],
            "abstract": [name],
            "host_port": urllib.parse.urlsplit(walled.url).port,
            "ipc_key": SHM_KEY,
            "host": {"name": machine.node()},
        }
    LIBC.shmctl(segment, 0, None)


def verdicts(answer: dict[str, Any]) -> dict[int, str]:
    return {int(number): found["verdict"] for number, found in answer.items()}


def surprises(answer: dict[str, Any], expected: dict[str, str]) -> dict[int, str]:
    """Each probe that came out otherwise than its table says, with what it saw."""
    found = {}
    for number in NUMBERS:
        want, got = expected.get(str(number), "closed"), answer[str(number)]
        if want not in ("any", got["verdict"]):
            found[number] = f"{got['name']}: {got['verdict']}, not {want}: {got['detail']}"
    return found


ISOLATION = {"exec": "strict", "pool": "default", "shared": "shared-namespace"}
SIBLING = """
import socket
taken = [socket.create_server(("127.0.0.1", 7707)), socket.socket(socket.AF_UNIX)]
taken[1].bind("\\0sibling")
taken[1].listen()

def handle(request, context):
    return "ok"
"""


@pytest.mark.parametrize("tier", ["exec", "pool", "shared"])
def test_the_probes_in_a_function(walled: Platform, host: dict[str, Any], level: str, tier: str) -> None:
    name = f"probe-{tier}"
    if tier == "shared" and level == "rootless":
        function = walled.apply(name, {"main.py": PROBE}, isolation=ISOLATION[tier])
        assert function["action"] == "created"
        with pytest.raises(AssertionError, match="isolation shared-namespace needs root"):
            walled.wait_ready(name)
        return
    if tier == "pool":
        walled.deploy("first", {"main.py": "def handle(request, context):\n    return 'ok'\n"})
        time.sleep(3)  # for the pool to be filled: what tells of it is checked below
    walled.deploy(
        name,
        {"main.py": PROBE},
        limits={"timeout": 120},
        isolation=ISOLATION[tier],
    )
    assert [instance["tier"] for instance in walled.instances(name)] == ["zygote" if tier == "shared" else tier]
    # Memory goes first and alone: as an ordinary user its supervisor ends the whole instance.
    quiet = [number for number in NUMBERS if number != 29]
    got = walled.call(name, body=json.dumps({**host, **BOUNDS, "only": quiet}), timeout=150)
    assert got.status == 200, got.text
    answer = got.json
    memory = walled.call(name, body=json.dumps({**BOUNDS, "only": [29]}), timeout=150)
    if level == "rootless" and memory.status != 200:
        assert memory.json["type"] == "urn:septet:error:function-out-of-memory", memory.text
        answer["29"] = {"name": "memory", "verdict": "closed", "detail": "the supervisor ended it"}
    else:
        assert memory.status == 200, memory.text
        answer |= memory.json
    assert not surprises(answer, EXPECTED[level])
    if tier == "shared":
        walled.deploy("sibling", {"main.py": SIBLING}, isolation=ISOLATION[tier], scale={"min": 1})
        near = {**host, **BOUNDS, "host_port": 7707, "abstract": ["sibling"], "only": [3, 15, 24, 25, 26]}
        answer = {**answer, **walled.call(name, body=json.dumps(near), timeout=150).json}
        assert not surprises(answer, EXPECTED["sibling"])
        doors = set(answer["26"]["detail"].split("; "))
        assert doors == {"shares the host's port 7707", "connects to the host's port 7707"}
    errors = {number: one["detail"] for number, one in answer.items() if "Error" in one["detail"]}
    assert not errors


BACKEND = """
import json, os, pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).parent))
import probe

def build_wheel(folder, config=None, metadata=None):
    import zipfile
    found = probe.run(json.loads(os.environ["PROBE_OPTIONS"]))
    name = "probed-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as wheel:
        wheel.writestr("probed.json", json.dumps(found))
        about = "probed-1.0.dist-info/"
        wheel.writestr(about + "METADATA", "Metadata-Version: 2.1\\nName: probed\\nVersion: 1.0\\n")
        wheel.writestr(about + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(about + "RECORD", "")
    return name
"""
BUILT = {
    "main.py": "def handle(request, context):\n    return open('/function/deps/probed.json').read()\n",
    "requirements.txt": "./inner\n",
    "inner/pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    '[project]\nname = "probed"\nversion = "1.0"\n',
    "inner/backend.py": BACKEND,
    "inner/probe.py": PROBE,
}
# A build writes its own tree, and nobody else's.
OWN_TREE = {"creates in /function", "creates in /function/code"}


def test_the_probes_in_a_build_step(walled: Platform, host: dict[str, Any], level: str) -> None:
    """After CVE-2026-50565: what was closed for functions had been left open for builders."""
    # Limits of builds are wider; memory is left to the function's run, where its limit is near.
    bounds = {"forks": 700, "tmp_mib": 1200, "files": 300_000, "descriptors": 70_000}
    only = [number for number in NUMBERS if number != 29]
    options = json.dumps({**host, **bounds, "only": only})
    walled.deploy("built", BUILT, build={"env": {"PROBE_OPTIONS": options}}, timeout=150)
    answer = walled.call("built").json
    writes = set(answer["2"]["detail"].split("; "))
    assert {door for door in writes if "/function" not in door} == set(), writes
    answer["2"]["verdict"] = "closed"
    answer["29"] = {"verdict": "n/a", "name": "memory", "detail": ""}
    assert not surprises(answer, {**EXPECTED[level], "29": "any"})
