"""Interpreters, and the paths of plain processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from septet.drivers.sandbox.process.plain import _translate
from septet.drivers.sandbox.process.resolve import find_interpreter, resolve_command
from septet.drivers.sandbox.process.spec import Mount, Spec, decode, decode_function, encode_function, is_function
from septet.model.runtime import Runtime


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    path.write_text("")
    path.chmod(0o755)
    return path


def test_the_first_candidate_that_exists(tmp_path: Path) -> None:
    there = program(tmp_path / "lang" / "bin" / "lang")
    found = find_interpreter(Runtime(name="r", interpreter=("/nowhere/lang", str(there))))
    assert found is not None
    assert (found.path, found.bind) == (str(there), str(tmp_path / "lang"))


def test_below_usr_nothing_is_bound() -> None:
    found = find_interpreter(Runtime(name="r", interpreter=("sh",)))
    assert found is not None
    assert found.bind == ""
    assert found.path.startswith("/usr/")


def test_a_home_is_never_bound_as_a_whole(tmp_path: Path) -> None:
    there = program(tmp_path / "bin" / "lang")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path))
        found = find_interpreter(Runtime(name="r", interpreter=(str(there),)))
    assert found is not None
    assert found.bind == str(there)


def test_none_of_them_there() -> None:
    assert find_interpreter(Runtime(name="r", interpreter=("/nowhere/lang", "no-such-lang"))) is None


def test_words_of_a_command() -> None:
    assert resolve_command(("{interpreter}", "{runtime}/shim.py", "x"), "/i", "/r") == ["/i", "/r/shim.py", "x"]


def test_paths_of_plain_processes_change_once() -> None:
    places = {"/function": "/tmp/trees/t", "/tmp": "/data/tmp", "/run": "/data/run"}
    assert _translate("/function/code", places) == "/tmp/trees/t/code"
    assert _translate("--path=/function/deps:/tmp", places) == "--path=/tmp/trees/t/deps:/data/tmp"
    assert _translate("/functional", places) == "/functional"
    assert _translate("http://example/run", places) == "http://example/run"


def test_a_spec_survives_the_way() -> None:
    spec = Spec(
        id="i",
        walls=True,
        rootless=False,
        uid=1,
        gid=2,
        command=["a"],
        env={"b": "c"},
        working_directory="/",
        files={"/run/x": bytes(range(256))},
        mounts=[Mount("/a", "/b", hidden=True)],
    )
    assert decode(spec.encode()) == spec
    assert "files" not in repr(spec), "secrets stay out of tracebacks"


def test_what_a_parked_instance_becomes() -> None:
    common: dict[str, Any] = {"id": "i", "walls": True, "rootless": False, "uid": 5, "gid": 5, "command": ["python3"]}
    parked = Spec(**common, env={"A": "1"}, working_directory="", files={}, parked=True, masks=["/x"], trees="/trees")
    tree = Mount("digest", "/function", hidden=True)
    spec = Spec(
        **{**common, "id": "other", "uid": 6},
        env={"B": "\udcff"},
        working_directory="/function/code",
        files={"/run/secrets/s/k": b"\0\xff"},
        mounts=[tree],
        tmp_bytes=4096,
        rlimits={"RLIMIT_NPROC": 3},
        gateway=8081,
    )
    got = decode_function(encode_function(spec), parked)
    assert is_function(encode_function(spec)) and not is_function(b'{"op":"stop"}')
    assert (got.env, got.working_directory, got.files) == (spec.env, spec.working_directory, spec.files)
    assert (got.mounts, got.tmp_bytes, got.rlimits, got.gateway) == ([tree], 4096, {"RLIMIT_NPROC": 3}, 8081)
    assert (got.uid, got.trees, got.masks) == (5, "/trees", []), "it stays who it was"
