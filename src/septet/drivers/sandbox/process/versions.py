"""Which interpreter and which tools a runtime has on this host: what decides what a build makes, beside its source."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from septet.drivers.sandbox.process.resolve import find_interpreter
from septet.model.runtime import Runtime

_PATIENCE = 10.0


class Versions:
    """Call it with a runtime. It runs the interpreter at its first look, and again only when the file changed."""

    def __init__(self, runtime_folder: Callable[[str], Path]) -> None:
        self._folder = runtime_folder
        self._asked: dict[tuple[str, int, int], str] = {}
        self._digests: dict[str, str] = {}

    def __call__(self, runtime: Runtime) -> Mapping[str, str]:
        """Names to versions: the interpreter, our own files of the runtime, and the tool chains that it names."""
        found = {"runtime": self._files(runtime.name)}
        if interpreter := find_interpreter(runtime):
            found["interpreter"] = f"{interpreter.path} {self._ask(interpreter.path)}"
        for path in runtime.paths:
            version = Path(path) / "VERSION"
            if version.is_file():
                found[path] = version.read_text(errors="replace")
        return found

    def _ask(self, program: str) -> str:
        facts = os.stat(program)  # noqa: PTH116 - a key of the cache
        key = (program, facts.st_mtime_ns, facts.st_size)
        if key not in self._asked:
            self._asked[key] = _version(program) or f"{facts.st_mtime_ns} {facts.st_size}"
        return self._asked[key]

    def _files(self, name: str) -> str:
        """They do not change while the platform runs."""
        if name not in self._digests:
            seen = hashlib.sha256()
            folder = self._folder(name)
            for path in sorted(folder.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    seen.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
            self._digests[name] = seen.hexdigest()
        return self._digests[name]


def _version(program: str) -> str:
    """What it prints for --version; empty when it does not."""
    try:
        done = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            cwd="/",
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).strip() if done.returncode == 0 else ""
