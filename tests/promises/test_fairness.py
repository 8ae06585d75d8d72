"""Ten thousand calls that wait for one function do not slow another."""

from __future__ import annotations

import errno
import resource
import socket
import sys
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

from septet_platform import Platform

WAITING = 10_000
CALLS = 200
NEIGHBOUR = "quiet"
"""Of two workers both functions belong to the same one, whose loop they then share."""
ECHO = {"main.py": "def handle(request, context):\n    return request.body\n"}
SLEEP = {"main.py": "import time\ndef handle(request, context):\n    time.sleep(0.2)\n    return 'ok'\n"}


@pytest.fixture
def files() -> Iterator[None]:
    """Enough descriptors for the clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard >= WAITING + 1000, f"this host lets a process have {hard} descriptors: {WAITING + 1000} are needed"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def crowd(platform: Platform, count: int) -> Iterator[None]:
    """So many clients that have sent their call and wait for its answer."""
    address = urllib.parse.urlsplit(platform.url)
    call = b"POST /fn/default/wanted/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nAuthorization: Bearer %b\r\n\r\n"
    links: list[socket.socket] = []
    try:
        while len(links) < count:
            try:
                link = socket.create_connection((str(address.hostname), address.port or 80), 10)
            except OSError as error:
                assert error.errno in (errno.EAGAIN, errno.ECONNREFUSED)
                time.sleep(0.01)
                continue
            link.sendall(call % platform.token.encode())
            links.append(link)
        yield
    finally:
        for link in links:
            link.close()


def p95(platform: Platform) -> float:
    """Of calls on one connection, after a few that warm up, in seconds."""
    link = platform.connection()
    times = []
    for _ in range(CALLS + 20):
        began = time.perf_counter()
        link.request("POST", f"/fn/default/{NEIGHBOUR}/", b"x", {"Authorization": f"Bearer {platform.token}"})
        assert link.getresponse().read() == b"x"
        times.append(time.perf_counter() - began)
    link.close()
    return sorted(times[20:])[int(CALLS * 0.95)]


@pytest.mark.parametrize("flags", [[], ["--workers", "2"]], ids=["one process", "two workers"])
def test_ten_thousand_waiting_calls_leave_others_alone(tmp_path: Path, files: None, flags: list[str]) -> None:
    with Platform(tmp_path / "data", *flags) as platform:
        platform.deploy(NEIGHBOUR, ECHO, scale={"min": 1, "max": 1})
        limits = {"queue": WAITING + 100, "queue_timeout": 120}
        platform.deploy("wanted", SLEEP, scale={"max": 1}, limits=limits)
        alone = p95(platform)
        with crowd(platform, WAITING):
            deadline = time.monotonic() + 20
            while waiting(platform) < WAITING - 500:
                assert time.monotonic() < deadline, waiting(platform)
                time.sleep(0.1)
            crowded = p95(platform)
            left = waiting(platform)
        assert left > WAITING - 1000, "the crowd did not wait"
        # A shared machine is noisy: the difference has to be more than what a busy scheduler makes.
        assert crowded <= 2 * alone + 0.003, (alone, crowded)


def waiting(platform: Platform) -> int:
    for line in platform.request("GET", "/metrics").text.splitlines():
        if line.startswith("septet_calls_open "):
            return int(float(line.split()[1]))
    raise AssertionError("no septet_calls_open in the metrics")
