"""One bed for each kind of process that the suite runs; all answer the same paths (see functions/)."""

from __future__ import annotations

import atexit
import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from contract_processes import (
    Instance,
    command_of,
    environment,
    find,
    launch,
    start_frames,
    tcp_connect,
    write_files,
)

from septet.drivers.contract.http1 import Http1Contract
from septet.model.function import FunctionTemplate, Limits, Readiness
from septet.ports.contract import Connect, Link
from septet.registry import runtime_folder, runtimes

FUNCTIONS = Path(__file__).parent / "functions"


class Bed:
    """How to start one kind of function. `stops`: a running call ends when it is cancelled."""

    def __init__(
        self,
        name: str,
        runtime: str,
        folder: str,
        *,
        broken: dict[str, str],
        stops: bool = True,
        concurrency: int = 1,
        command: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.runtime = runtime
        self.folder = folder
        self.broken = broken
        self.stops = stops
        self.concurrency = concurrency
        self.command = command

    @property
    def http(self) -> bool:
        return runtimes()[self.runtime].protocol == "http1"

    def need(self) -> None:
        """Skips, by name, where this host lacks the language."""
        candidates = runtimes()[self.runtime].interpreter
        if candidates and not find(candidates):
            pytest.skip(f"this host has no interpreter for {self.runtime}: {', '.join(candidates)}")
        if self.runtime == "go" and not shutil.which("go"):
            pytest.skip("this host has no Go compiler")

    def files(self) -> dict[str, str]:
        folder = FUNCTIONS / self.folder
        return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}

    async def start(
        self,
        folder: Path,
        files: dict[str, str] | None = None,
        concurrency: int = 0,
        env: dict[str, str] | None = None,
        readiness: Readiness | None = None,
    ) -> tuple[Instance, Connect]:
        """A started process and its `connect`."""
        files = self.files() if files is None else files
        concurrency = concurrency or self.concurrency
        folder.mkdir(parents=True, exist_ok=True)
        if self.http:
            return self._start_http(folder, files, concurrency, env or {}, readiness or Readiness())
        if self.runtime == "go":
            build_go(folder, files)
        variables = {"SEPTET_EXEC_HEADERS": "1", **(env or {})} if self.runtime == "exec" else env
        return await start_frames(
            folder, self.runtime, files, concurrency=concurrency, command=self.command, env=variables
        )

    def _start_http(
        self, folder: Path, files: dict[str, str], concurrency: int, env: dict[str, str], readiness: Readiness
    ) -> tuple[Instance, Connect]:
        code = write_files(folder, files)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        variables = environment(self.runtime, code, concurrency, "", {"PORT": str(port), **env})
        process = launch(command_of(self.runtime, code, self.command), code, variables, None)
        template = FunctionTemplate(runtime=self.runtime, limits=Limits(concurrency=concurrency), readiness=readiness)
        return Instance(process, Http1Contract(), template), tcp_connect(port, process)

    @contextlib.asynccontextmanager
    async def running(
        self, folder: Path, concurrency: int = 0, readiness: Readiness | None = None
    ) -> AsyncIterator[tuple[Instance, Link]]:
        """An instance with its link open."""
        started, connect = await self.start(folder, concurrency=concurrency, readiness=readiness)
        try:
            yield started, await started.open(connect, 30)
        finally:
            await started.close()


_BUILT: dict[str, Path] = {}


def build_go(folder: Path, files: dict[str, str]) -> None:
    """Runs the runtime's build, as a build sandbox does; the same source is built once for all tests."""
    code = write_files(folder, files)
    deps = folder / "deps"
    deps.mkdir(exist_ok=True)
    content = json.dumps(files, sort_keys=True)
    if content in _BUILT:
        shutil.copy(_BUILT[content], deps / "function")
        return
    build = runtimes()["go"].builds[0]
    words = {"{code}": str(code), "{deps}": str(deps), "{runtime}": str(runtime_folder("go"))}
    done = subprocess.run(
        [words.get(word, word.replace("{runtime}", words["{runtime}"])) for word in build.command],
        cwd=code,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise AssertionError(done.stdout + done.stderr)
    kept = Path(tempfile.mkdtemp(prefix="septet-go-")) / "function"
    atexit.register(shutil.rmtree, kept.parent, ignore_errors=True)
    shutil.copy(deps / "function", kept)
    _BUILT[content] = kept


SYNC = Bed("python-sync", "python", "sync", broken={"main.py": "import nothing_of_this_name\n"}, stops=False)
BEDS = [
    SYNC,
    Bed("python-threads", "python", "sync", broken={"main.py": "x = 1\n"}, stops=False, concurrency=4),
    Bed("python-async", "python", "async", broken={"main.py": "async def handle(:\n"}, concurrency=4),
    Bed("node", "node", "node", broken={"main.js": "require('nothing-of-this-name');\n"}, concurrency=4),
    Bed("ruby", "ruby", "ruby", broken={"main.rb": "require 'nothing_of_this_name'\n"}, stops=False),
    Bed("ruby-threads", "ruby", "ruby", broken={"main.rb": "x = 1\n"}, stops=False, concurrency=4),
    Bed("go", "go", "go", broken={}, concurrency=4),
    Bed("exec", "exec", "exec", broken={"README": "nothing to run\n"}, command=("./handler.sh",)),
    Bed("http1", "http", "http", broken={}, concurrency=4, command=("/usr/bin/python3", "server.py")),
]
