"""The platform's end of the launcher: starts the process, sends it launches, hears of ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import septet
from septet.drivers.sandbox.process.spec import Header

_SOURCE = str(Path(septet.__file__).parent.parent)
_PROGRAM = (
    f"import sys; sys.path.insert(0, {_SOURCE!r}); from septet.drivers.sandbox.process.launcher import main; main()"
)
_PACKET = 65536


class Process(Protocol):
    """What was started."""

    @property
    def pid(self) -> int: ...

    def wait(self) -> int: ...

    def kill(self) -> None: ...


class LauncherProcess:
    """`on_message` gets each message of the launcher, `on_lost` is called once when it ended unasked."""

    def __init__(self, python: str, on_message: Callable[[dict[str, Any]], None], on_lost: Callable[[], None]) -> None:
        self.python = python
        self._on_message = on_message
        self._on_lost = on_lost
        self._socket: socket.socket | None = None
        self._process: Process | None = None
        self._waiting: deque[tuple[bytes, list[int]]] = deque()

    def open(self) -> None:
        """OSError when the interpreter cannot be started."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            try:
                self._process = self._spawn(theirs)
            except OSError:
                ours.close()
                raise
        self._socket = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._readable)

    def _spawn(self, theirs: socket.socket) -> Process:
        # The socket has to be descriptor 3 over there, whatever number it has here.
        child = (f"import os; os.dup2({theirs.fileno()}, 3)\n" if theirs.fileno() != 3 else "") + _PROGRAM
        process: Process = subprocess.Popen(
            [self.python, "-I", "-S", "-c", child],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            cwd="/",
        )
        return process

    def launch(self, header: Header, descriptors: list[int]) -> None:
        """Takes over the descriptors and closes them when they are sent."""
        self._send({"op": "launch", **asdict(header)}, descriptors)

    def kill(self, instance: str) -> None:
        self._send({"op": "kill", "id": instance}, [])

    def _send(self, message: dict[str, object], descriptors: list[int]) -> None:
        if self._socket is None:
            # It died, and its instances with it: what is kept for later would stand in the way of the next life.
            for descriptor in descriptors:
                os.close(descriptor)
            if message["op"] == "launch":
                refused = {"op": "refused", "id": message["id"], "message": "the launcher has just ended"}
                asyncio.get_running_loop().call_soon(self._on_message, refused)
            return
        self._waiting.append((json.dumps(message).encode(), descriptors))
        if len(self._waiting) == 1:
            self._flush()

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and self._socket is not None:
            data, descriptors = self._waiting[0]
            try:
                socket.send_fds(self._socket, [data], descriptors)
            except BlockingIOError:
                loop.add_writer(self._socket.fileno(), self._flush)
                return
            except OSError:
                self._lost()
                return
            self._waiting.popleft()
            for descriptor in descriptors:
                os.close(descriptor)
        if self._socket is not None:
            loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        while self._socket is not None:
            try:
                data = self._socket.recv(_PACKET)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._lost()
                return
            self._on_message(json.loads(data))

    def _lost(self) -> None:
        if self._socket is not None:
            self._forget()
            self._on_lost()

    def _forget(self) -> None:
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket.fileno())
        loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._socket = None
        for _, descriptors in self._waiting:
            for descriptor in descriptors:
                os.close(descriptor)
        self._waiting.clear()

    @property
    def alive(self) -> bool:
        return self._socket is not None

    @property
    def pid(self) -> int:
        """For tests that kill it; 0 when it does not run."""
        return self._process.pid if self._process is not None else 0

    def reap(self) -> None:
        """Forgets a process that has ended."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    async def close(self) -> None:
        """It ends by itself when our end closes, and every instance with it."""
        if self._socket is not None:
            self._forget()
        process, self._process = self._process, None
        if process is not None:
            try:
                await asyncio.wait_for(asyncio.to_thread(process.wait), 5)
            except TimeoutError:
                process.kill()
                with contextlib.suppress(ChildProcessError):
                    await asyncio.to_thread(process.wait)
