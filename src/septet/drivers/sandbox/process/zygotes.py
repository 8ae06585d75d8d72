"""Zygotes: for each interpreter that can be forked ahead, a second launcher whose instances need no exec.

A zygote that dies takes its instances with it, as the launcher does, and is started again after a pause; until it is
ready, and wherever a function asks for what a fork cannot give, the launcher execs.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from septet.drivers.sandbox.process import bundle
from septet.drivers.sandbox.process.bootstrap import SCRIPT
from septet.drivers.sandbox.process.launch import LauncherProcess
from septet.drivers.sandbox.process.launcher import CONTROL
from septet.drivers.sandbox.process.resolve import Stage, find_interpreter
from septet.drivers.sandbox.process.spec import Spec
from septet.model.runtime import Runtime
from septet.ports.sandbox import LaunchRequest

_PAUSE = 0.5
_LONGEST_PAUSE = 60.0
# An interpreter, or a library below it, reads these only while it starts.
_AT_START = ("LC_", "LD_", "MALLOC_", "GLIBC_", "OPENSSL_", "LANGUAGE", "ASAN_", "PYTHON")
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108
    "LANG": "C.UTF-8",
    # The C library would register restartable sequences for each new thread as it could for the first one, and ends
    # the process when the function's filter then refuses that.
    "GLIBC_TUNABLES": "glibc.pthread.rseq=0",
    # Room for the environment of a function, which is written over all this.
    "ROOM": " " * 8192,
}

Heard = Callable[[dict[str, Any]], None]
Lost = Callable[[LauncherProcess], None]


class Zygote(LauncherProcess):
    """The zygote of one interpreter. `ready` once it can fork."""

    def __init__(self, interpreter: str, program: bytes, runtime: Runtime, heard: Heard, lost: Lost) -> None:
        super().__init__(interpreter, self._take, self._end)
        self.ready = False
        self.runtime = runtime.name
        self.family = runtime.syscalls
        self._program = program
        self._heard = heard
        self._on_end = lost
        self._pause = _PAUSE
        self._again: asyncio.TimerHandle | None = None

    def _spawn(self, theirs: socket.socket) -> Spawned:
        script = os.memfd_create("zygote", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(script), "wb") as file:
                file.write(self._program)
            os.lseek(script, 0, os.SEEK_SET)
            command = [self.python, *bundle.FLAGS, bundle.argument()]
            return Spawned(command, {CONTROL: theirs.fileno(), SCRIPT: script})
        finally:
            os.close(script)

    def _take(self, message: dict[str, Any]) -> None:
        if message["op"] == "ready":
            self.ready = True
            self._pause = _PAUSE
            self._heard({**message, "zygote": self})
        else:
            self._heard(message)

    def _end(self) -> None:
        self.ready = False
        self._on_end(self)
        self._again = asyncio.get_running_loop().call_later(self._pause, self._restart)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _restart(self) -> None:
        self._again = None
        self.reap()
        with contextlib.suppress(OSError):
            self.open()
            return
        self._end()

    async def close(self) -> None:
        self.ready = False
        if self._again is not None:
            self._again.cancel()
        await super().close()


class Zygotes:
    """All zygotes of a driver, by runtime."""

    def __init__(
        self,
        runtimes: Mapping[str, Runtime],
        folder: Callable[[str], Path],
        stage: Callable[[str], Stage | None],
        heard: Heard,
        lost: Lost,
    ) -> None:
        self._runtimes = runtimes
        self._folder = folder
        self._stage = stage
        self._heard = heard
        self._lost = lost
        self._zygotes: dict[str, Zygote] = {}

    def open(self) -> None:
        """Starts one for each runtime that brings its part of it and has an interpreter here. OSError."""
        for name, runtime in self._runtimes.items():
            interpreter = find_interpreter(runtime) if runtime.interpreter else None
            if interpreter is None or not (self._folder(name) / "zygote.py").is_file():
                continue
            program = bundle.script(self._folder(name), runtime.syscalls, self._stage(name))
            zygote = self._zygotes[name] = Zygote(interpreter.path, program, runtime, self._heard, self._lost)
            zygote.open()

    def of(self, runtime: str) -> Zygote | None:
        """The runtime's, when it can fork now."""
        zygote = self._zygotes.get(runtime)
        return zygote if zygote is not None and zygote.ready else None

    def choose(self, request: LaunchRequest, spec: Spec) -> Zygote | None:
        """The zygote that can start this, None when it has to be exec'ed."""
        zygote = self._zygotes.get(request.containers[0].runtime)
        if zygote is None or not zygote.ready or request.kind != "serve" or request.isolation == "strict":
            return None
        flags = len(bundle.FLAGS) + 1
        if spec.command[:flags] != [zygote.python, *bundle.FLAGS] or not spec.command[flags:][:1]:
            return None
        if not spec.command[flags].startswith("/") or spec.env.get("LANG") != _ENVIRONMENT["LANG"]:
            return None
        return None if any(name.startswith(_AT_START) for name in spec.env) else zygote

    def pids(self) -> list[int]:
        return [zygote.pid for zygote in self._zygotes.values()]

    @property
    def ready(self) -> bool:
        """Whether every zygote can fork."""
        return all(zygote.ready for zygote in self._zygotes.values())

    async def close(self) -> None:
        await asyncio.gather(*(zygote.close() for zygote in self._zygotes.values()))
        self._zygotes.clear()


class Spawned:
    """A process that was started with chosen descriptors, as `subprocess` cannot do without a fork of its own."""

    def __init__(self, command: list[str], descriptors: dict[int, int]) -> None:
        high = {target: fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 64) for target, number in descriptors.items()}
        actions: list[Any] = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1)]
        actions += [(os.POSIX_SPAWN_DUP2, number, target) for target, number in high.items()]
        try:
            self.pid = os.posix_spawn(command[0], command, _ENVIRONMENT, file_actions=actions)
        finally:
            for number in high.values():
                os.close(number)

    def wait(self) -> int:
        """Until it ended, whoever heard of that first."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        return 0

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
