"""Loads: the generator compiled where it can be, a single caller, and a burst of calls at one moment."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent


class Target(NamedTuple):
    """Where requests go: `paths` in turn."""

    port: int
    paths: Sequence[str]
    token: str = ""


class Load(NamedTuple):
    """What the generator saw; times in milliseconds, `late_*` its own lateness."""

    generator: str
    requests: int
    failed: int
    seconds: float
    rate: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float
    late_p50: float
    late_p99: float
    late_max: float


class Generator:
    """openloop.c, compiled once into the scratch folder, or openloop.py."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._paths = scratch / "paths"
        compiler = shutil.which("cc")
        program = scratch / "openloop"
        if compiler:
            subprocess.run([compiler, "-O2", "-o", program, HERE / "openloop.c"], check=True)
            self._command = [str(program)]
        else:
            self._command = [sys.executable, str(HERE / "openloop.py")]

    def start(self, target: Target, *, seconds: float, connections: int = 32, rate: float = 0) -> subprocess.Popen[str]:
        """Pinned to the last core; rate 0 is a closed loop."""
        paths = self._scratch / f"paths-{time.monotonic_ns()}"
        paths.write_text("\n".join(target.paths) + "\n")
        options = {
            "--port": target.port,
            "--paths": paths,
            "--connections": connections,
            "--seconds": seconds,
            "--rate": rate,
            "--core": max(os.sched_getaffinity(0)),
        }
        command = [*self._command, *(str(word) for pair in options.items() for word in pair)]
        if target.token:
            command += ["--token", target.token]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def run(self, target: Target, *, seconds: float, connections: int = 32, rate: float = 0) -> Load:
        """RuntimeError when a closed loop saw a failure: its numbers would be those of an error page."""
        load = result(self.start(target, seconds=seconds, connections=connections, rate=rate))
        if not load.requests or (load.failed and not rate):
            raise RuntimeError(f"{load.failed} requests failed beside {load.requests} answered, port {target.port}")
        return load


def result(process: subprocess.Popen[str]) -> Load:
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the load generator ended with {process.returncode}")
    return Load(**json.loads(out))


class Caller:
    """One keep-alive connection that makes one call after the other."""

    def __init__(self, url: str, token: str) -> None:
        self._address = address(url)
        self._token = token
        self._socket: socket.socket | None = None

    def call(self, path: str) -> tuple[int, bytes, float]:
        """Status, body, and milliseconds from the first byte sent to the last one received."""
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=120)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begin = time.perf_counter()
        self._socket.sendall(head(path, self._token))
        data = b""
        while (status := answer(data)) is None:
            more = self._socket.recv(65536)
            if not more:
                self._socket = None
                raise ConnectionResetError(f"{path}: the connection ended after {data[:200]!r}")
            data += more
        return status[0], status[1], (time.perf_counter() - begin) * 1000

    def ok(self, path: str) -> float:
        """Milliseconds of a call that must be answered 200."""
        status, body, took = self.call(path)
        if status != 200:
            raise RuntimeError(f"{path}: {status} {body[:500].decode(errors='replace')}")
        return took


class Burst(NamedTuple):
    """Calls that began at one moment: per call, status and milliseconds from that moment, in the order of answers."""

    statuses: list[int]
    took_ms: list[float]
    bodies: list[bytes]


def burst(url: str, token: str, paths: Sequence[str], timeout: float = 60, settle: float = 0.3) -> Burst:
    """Opens a connection for each path, then sends all requests at once."""
    sockets = {}
    poller = select.epoll()
    for path in paths:
        link = socket.create_connection(address(url), timeout=timeout)
        sockets[link.fileno()] = (link, path)
        poller.register(link, select.EPOLLIN)
    time.sleep(settle)  # so that opening connections is not part of it
    data = dict.fromkeys(sockets, b"")
    found = Burst([], [], [])
    begin = time.perf_counter()
    for link, path in sockets.values():
        link.sendall(head(path, token))
    while sockets and (rest := begin + timeout - time.perf_counter()) > 0:
        for descriptor, _ in poller.poll(rest):
            link, _ = sockets[descriptor]
            more = link.recv(65536)
            data[descriptor] += more
            status = answer(data[descriptor])
            if status or not more:
                found.statuses.append(status[0] if status else 0)
                found.bodies.append(status[1] if status else b"")
                found.took_ms.append((time.perf_counter() - begin) * 1000)
                poller.unregister(descriptor)
                link.close()
                del sockets[descriptor]
    for link, _ in sockets.values():
        found.statuses.append(0)
        found.took_ms.append(timeout * 1000)
        link.close()
    return found


def address(url: str) -> tuple[str, int]:
    parts = urllib.parse.urlsplit(url)
    return str(parts.hostname), int(parts.port or 80)


def head(path: str, token: str) -> bytes:
    line = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{line}\r\n".encode()


def answer(data: bytes) -> tuple[int, bytes] | None:
    """Status and body once the answer is whole."""
    top, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return None
    status = int(top[9:12])
    for line in top.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return (status, body) if len(body) >= int(value) else None
        if name.lower() == b"transfer-encoding":
            return (status, body) if body.endswith(b"0\r\n\r\n") else None
    return (status, body) if status in (204, 304) else None
