"""Real processes for the contract suite, and a Reply that records what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from septet.drivers.contract.frames import FramesContract
from septet.model.errors import InstanceLost, NotFound, SeptetError
from septet.model.function import FunctionTemplate
from septet.model.instance import InstanceInfo
from septet.ports.contract import Connect, Contract, Link, ReplyHead, RequestHead, ShortLink, Upload
from septet.ports.sandbox import ProtocolFactory
from septet.registry import runtime_folder, runtimes

PATIENCE = 10.0
"""Seconds that anything in this suite may take."""


def instance(protocol: str = "frames") -> InstanceInfo:
    return InstanceInfo(
        id="i-1",
        namespace="default",
        function="f",
        revision="f-00001",
        driver="test",
        state="running",
        protocol="http1" if protocol == "http1" else "frames",
        started_at=0.0,
    )


def head(
    method: str = "GET",
    target: str = "/",
    lines: str = "",
    length: int | None = 0,
    upgrade: str = "",
    timeout: float = 60,
) -> RequestHead:
    invocation = os.urandom(16).hex()
    deadline = time.time() + timeout
    own = f"septet-invocation-id: {invocation}\r\nseptet-deadline: {int(deadline * 1000)}\r\n"
    block = "Host: f.example\r\n" + own + lines
    return RequestHead(method.encode(), target.encode(), block.encode(), length, invocation, deadline, upgrade.encode())


class Recorder:
    """A Reply that keeps everything, and asserts the order that the port promises."""

    def __init__(self, keep: bool = True) -> None:
        self.events: list[str] = []
        self.head_: ReplyHead | None = None
        self.body = bytearray()
        self.size = 0
        self.error: SeptetError | None = None
        self.informationals: list[int] = []
        self.may_write = True
        self.upload: Upload | None = None
        self._keep = keep
        self._changed = asyncio.Event()
        self.done = False
        self.when_over: Callable[[], None] | None = None

    def _note(self, event: str) -> None:
        assert not self.done, f"{event} after the end: {self.events[-5:]}"
        if event != "data" or self.events[-1:] != ["data"]:
            self.events.append(event)
        self._changed.set()

    def started(self) -> None:
        assert "started" not in self.events
        self._note("started")

    def informational(self, status: int, lines: bytes) -> None:
        assert self.head_ is None
        self._note("informational")
        self.informationals.append(status)

    def head(self, head: ReplyHead) -> None:
        assert self.head_ is None
        self._note("head")
        self.head_ = head

    def data(self, chunk: bytes) -> None:
        assert self.head_ is not None
        self._note("data")
        self.size += len(chunk)
        if self._keep:
            self.body += chunk

    def end(self) -> None:
        assert self.head_ is not None
        self._note("end")
        self._over()

    def failed(self, error: SeptetError) -> None:
        self._note("failed")
        self.error = error
        self._over()

    def pause_upload(self) -> None:
        self.may_write = False
        self._note("pause_upload")

    def resume_upload(self) -> None:
        self.may_write = True
        self._note("resume_upload")

    def _over(self) -> None:
        self.done = True
        if self.when_over is not None:
            self.when_over()

    # -- for tests

    @property
    def status(self) -> int:
        if self.error is not None:
            raise self.error
        assert self.head_ is not None
        return self.head_.status

    def header(self, name: str) -> str | None:
        assert self.head_ is not None
        for line in self.head_.lines.decode("latin-1").split("\r\n"):
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None

    async def until(self, condition: Callable[[], bool], timeout: float = PATIENCE) -> None:
        async with asyncio.timeout(timeout):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def over(self, timeout: float = PATIENCE) -> Recorder:
        await self.until(lambda: self.done, timeout)
        return self


class Short:
    """A short call that records what it is told; `reply` gets what comes after it unfolds."""

    def __init__(self, link: ShortLink, declines: bool = False) -> None:
        self.link = link
        self.declines = declines
        self.running = False
        self.heard: list[str] = []
        self.head_ = b""
        self.body = b""
        self.reply = Recorder()
        self._number = 0
        self._request = head()

    @property
    def invocation(self) -> str:
        return self._request.invocation

    @property
    def status(self) -> int:
        return int(self.head_[9:12]) if self.head_ else self.reply.status

    @property
    def whole(self) -> bytes:
        return self.body if self.head_ else bytes(self.reply.body)

    def ask(self, method: str, target: str, body: bytes = b"") -> None:
        request = self._request = head(method, target, length=len(body))
        lines = request.lines + b"content-length: %d\r\n" % len(body)
        self._number = self.link.ask(b"%b %b HTTP/1.1\r\n%b" % (request.method, request.target, lines), body, self)

    def answered(self, head: bytes, body: bytes) -> bool:
        assert "answered" not in self.heard
        self.heard.append("answered")
        if not self.declines:
            self.head_, self.body = head, body
        return not self.declines

    def unfold(self) -> None:
        assert "unfold" not in self.heard
        self.heard.append("unfold")
        self.link.unfold(self._number, self._request, self.reply)

    def returned(self) -> None:
        assert not self.heard
        self.heard.append("returned")


async def call(
    link: Link,
    method: str = "GET",
    target: str = "/",
    body: bytes = b"",
    lines: str = "",
    chunked: bool = False,
    timeout: float = PATIENCE,
) -> Recorder:
    """One whole call."""
    reply = Recorder()
    upload = link.begin(head(method, target, lines, None if chunked else len(body)), reply)
    reply.upload = upload
    if body or chunked:
        if body:
            upload.write(body)
        upload.end()
    return await reply.over(timeout)


class Instance:
    """A process of one function. Its link, its output and its logs."""

    def __init__(self, process: subprocess.Popen[bytes], contract: Contract, template: FunctionTemplate) -> None:
        self.process = process
        self.contract = contract
        self.template = template
        self.logs: list[tuple[str, str, bytes]] = []
        self.lost = 0
        self.when_lost: Callable[[], None] | None = None
        self.link: Link | None = None

    def on_lost(self) -> None:
        self.lost += 1
        if self.when_lost is not None:
            self.when_lost()

    def on_log(self, invocation: str, stream: str, line: bytes) -> None:
        self.logs.append((invocation, stream, line))

    async def open(self, connect: Connect, timeout: float = PATIENCE) -> Link:
        loop = asyncio.get_running_loop()
        self.link = await self.contract.open(
            connect,
            instance(self.contract.name),
            self.template,
            deadline=loop.time() + timeout,
            on_lost=self.on_lost,
            on_log=self.on_log,
        )
        return self.link

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)

    async def close(self) -> None:
        if self.link is not None:
            await self.link.close(0)
        self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def resident(self) -> int:
        """The process's peak resident memory in bytes."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmHWM")


def write_files(folder: Path, files: dict[str, str]) -> Path:
    code = folder / "code"
    for name, text in files.items():
        path = code / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if text.startswith("#!"):
            path.chmod(0o755)
    return code


def find(candidates: tuple[str, ...]) -> str:
    """The interpreter as a driver finds it: the first candidate that exists."""
    import shutil

    for name in candidates:
        found = shutil.which(name)
        if found:
            return found
    return ""


def command_of(runtime: str, code: Path, command: tuple[str, ...] = ()) -> list[str]:
    described = runtimes()[runtime]
    words = command if described.start_from_spec else described.command
    replaced = {
        "{interpreter}": find(described.interpreter),
        "{runtime}": str(runtime_folder(runtime)),
        "{code}": str(code),
        "{deps}": str(code.parent / "deps"),
    }
    result = []
    if "{command}" in words:
        at = words.index("{command}")
        words = (*words[:at], *command, *words[at + 1 :])
    for word in words:
        for name, value in replaced.items():
            word = word.replace(name, value)
        result.append(word)
    return result


def environment(runtime: str, code: Path, concurrency: int, handler: str, env: dict[str, str]) -> dict[str, str]:
    described = runtimes()[runtime]
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(code.parent),
        "LANG": "C.UTF-8",
        **described.env,
        "SEPTET_CODE": str(code),
        "SEPTET_DEPS": str(code.parent / "deps"),
        "SEPTET_FUNCTION": "f",
        "SEPTET_NAMESPACE": "default",
        "SEPTET_REVISION": "f-00001",
        "SEPTET_INSTANCE": "i-1",
        "SEPTET_HANDLER": handler or described.handler,
        "SEPTET_CONCURRENCY": str(concurrency or described.concurrency),
        **env,
    }


def launch(command: list[str], code: Path, env: dict[str, str], link: socket.socket | None) -> subprocess.Popen[bytes]:
    """Starts the process with the link as descriptor 3."""
    if link is None:
        return subprocess.Popen(
            command, cwd=code, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    words = [
        "/bin/bash",
        "-c",
        f'exec 3<&{link.fileno()}; [ {link.fileno()} = 3 ] || exec {link.fileno()}<&-; exec "$@"',
    ]
    return subprocess.Popen(
        [*words, "sh", *command], cwd=code, env={**env, "SEPTET_LINK_FD": "3"}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=[link.fileno()], start_new_session=True,
    )  # fmt: skip


async def start_frames(
    folder: Path,
    runtime: str,
    files: dict[str, str],
    *,
    handler: str = "",
    command: tuple[str, ...] = (),
    concurrency: int = 0,
    env: dict[str, str] | None = None,
) -> tuple[Instance, Connect]:
    """Starts a function of a frames runtime; the second is its `connect`."""
    code = write_files(folder, files)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    process = launch(
        command_of(runtime, code, command), code, environment(runtime, code, concurrency, handler, env or {}), theirs
    )
    theirs.close()
    template = FunctionTemplate(runtime=runtime)

    async def connect(factory: ProtocolFactory) -> asyncio.Transport:
        transport, _ = await asyncio.get_running_loop().create_connection(factory, sock=ours)
        return transport

    return Instance(process, FramesContract(), template), connect


def tcp_connect(port: int, process: subprocess.Popen[bytes]) -> Connect:
    """`Sandbox.connect` for a process that listens on a port of the loopback."""

    async def connect(factory: ProtocolFactory) -> asyncio.Transport:
        if process.poll() is not None:
            raise NotFound("the instance stopped")
        try:
            transport, _ = await asyncio.get_running_loop().create_connection(factory, "127.0.0.1", port)
        except OSError as error:
            raise InstanceLost("it does not listen yet") from error
        return transport

    return connect
