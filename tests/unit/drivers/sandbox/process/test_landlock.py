"""Landlock on real children: what is named can be reached, nothing else, and the wall cannot be taken down."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from septet.drivers.sandbox.process import landlock

SRC = Path(__file__).resolve().parents[5] / "src"
SYSTEM = ["/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", sys.prefix, sys.base_prefix, "/no/such/path"]
needed = pytest.mark.skipif(landlock.available() == 0, reason="this kernel has no Landlock")

PROLOGUE = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from septet.drivers.sandbox.process import landlock
arguments = json.loads(sys.argv[2])
assert landlock.restrict(arguments["ro"], arguments["rw"]) is True
def error(function, *parameters):
    try:
        function(*parameters)
    except OSError as failure:
        return failure.errno
    return 0
"""


def child(script: str, read_only: list[str], read_write: list[str]) -> object:
    arguments = json.dumps({"ro": [*SYSTEM, *read_only], "rw": read_write})
    command = [sys.executable, "-I", "-c", PROLOGUE + script, str(SRC), arguments]
    done = subprocess.run(command, capture_output=True, timeout=20)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@needed
def test_only_named_paths_are_reached(tmp_path: Path) -> None:
    for name in ("ro", "rw", "outside"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    script = f"""
root = {str(tmp_path)!r}
print(json.dumps([
    open(root + "/ro/file").read(), open(root + "/rw/file").read(),
    error(open, root + "/outside/file"), error(os.listdir, root + "/outside"),
    error(open, root + "/ro/file", "w"), error(open, root + "/ro/new", "w"), error(os.remove, root + "/ro/file"),
    error(open, root + "/rw/new", "w"), error(os.rename, root + "/rw/new", root + "/rw/newer"),
    error(os.rename, root + "/rw/newer", root + "/outside/newer"),
    error(os.link, root + "/outside/file", root + "/rw/link"), error(os.truncate, root + "/ro/file", 0),
]))
"""
    got = child(script, [str(tmp_path / "ro")], [str(tmp_path / "rw")])
    assert isinstance(got, list)
    assert got[:2] == ["ro", "rw"]
    refused = [value in (1, 13, 18) for value in got[2:]]
    assert refused == [True, True, True, True, True, False, False, True, True, landlock.available() >= 3]
    assert (tmp_path / "outside/file").read_text() == "outside"


@needed
def test_a_single_file_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    script = f"""
print(json.dumps([open({str(tmp_path / "a")!r}).read(), error(open, {str(tmp_path / "b")!r})]))
"""
    assert child(script, [str(tmp_path / "a")], ["/dev/null"]) == ["a", 13]


@needed
def test_children_and_exec_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    script = f"""
import subprocess
done = subprocess.run(["/bin/cat", {str(tmp_path / "secret")!r}], capture_output=True)
print(json.dumps([done.returncode, "Permission denied" in done.stderr.decode()]))
"""
    assert child(script, [], ["/dev/null"]) == [1, True]


@needed
def test_signals_and_abstract_sockets_do_not_cross() -> None:
    if landlock.available() < 6:
        pytest.skip("this kernel's Landlock has no scopes")
    script = """
import socket
s = socket.socket(socket.AF_UNIX)
print(json.dumps([error(os.kill, os.getppid(), 0), error(os.kill, os.getpid(), 0)]))
"""
    assert child(script, [], ["/dev/null"]) == [1, 0]


def test_the_version_is_a_number() -> None:
    assert landlock.available() >= 0
