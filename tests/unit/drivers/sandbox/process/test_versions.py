"""What decides a build's result on this host: found once, and anew when it changed."""

from __future__ import annotations

import os
from pathlib import Path

from septet.drivers.sandbox.process.versions import Versions
from septet.model.runtime import Runtime


def program(path: Path, says: str, count: Path) -> Path:
    path.write_text(f"#!/bin/sh\necho x >>{count}\necho {says}\n")
    path.chmod(0o755)
    return path


def test_an_interpreter_is_asked_once_until_it_changes(tmp_path: Path) -> None:
    count, shim = tmp_path / "count", tmp_path / "shim"
    shim.mkdir()
    own = program(tmp_path / "lang", "lang 1.0", count)
    versions = Versions(lambda name: shim)
    runtime = Runtime(name="lang", interpreter=(str(own),))
    assert versions(runtime)["interpreter"] == f"{own} lang 1.0"
    assert versions(runtime) == versions(runtime)
    assert count.read_text() == "x\n"
    program(own, "lang 1.1", count)
    os.utime(own, (1, 1))
    assert versions(runtime)["interpreter"] == f"{own} lang 1.1"


def test_tool_chains_and_our_own_files_count(tmp_path: Path) -> None:
    for name in ("one", "two", "chain"):
        (tmp_path / name).mkdir()
    (tmp_path / "one" / "build.sh").write_text("a")
    (tmp_path / "two" / "build.sh").write_text("b")
    (tmp_path / "chain" / "VERSION").write_text("go1.22")
    versions = Versions(lambda name: tmp_path / name)
    paths = (str(tmp_path / "chain"), "/nonexistent")
    one, two = versions(Runtime(name="one", paths=paths)), versions(Runtime(name="two"))
    assert one[str(tmp_path / "chain")] == "go1.22" and "/nonexistent" not in one
    assert one["runtime"] != two["runtime"]


def test_a_program_that_says_nothing_is_known_by_its_file(tmp_path: Path) -> None:
    own = tmp_path / "mute"
    own.write_text("#!/bin/sh\nexit 3\n")
    own.chmod(0o755)
    found = Versions(lambda name: tmp_path)(Runtime(name="mute", interpreter=(str(own),)))
    assert found["interpreter"] == f"{own} {own.stat().st_mtime_ns} {own.stat().st_size}"
