"""Network modes of a whole platform inside a little internet of the test's own (egress_world.py): never the host's."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from septet_platform import Platform

pytestmark = pytest.mark.root
WORLD = Path(__file__).parents[1] / "unit" / "drivers" / "sandbox" / "process"
MARK = f"network-{os.getpid()}"
BUILD = (
    f"import os, sys; sys.path.insert(0, {str(WORLD)!r}); import egress_world; egress_world.build(); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)
LIBC = ctypes.CDLL(None, use_errno=True)
PUBLIC, OTHER, PRIVATE, METADATA, ALIBABA = (
    "198.51.100.7",
    "198.51.100.8",
    "192.168.7.7",
    "169.254.169.254",
    "100.100.100.200",
)
HOST, NEXT = "203.0.113.1", "203.0.113.2"
NEVER = [f"{a}:80" for a in (PRIVATE, METADATA, ALIBABA, HOST, "127.0.0.1", "10.1.2.3", "fd00:ec2::254")]
EVERYTHING = [*NEVER, f"{PUBLIC}:80", f"{PUBLIC}:443", f"{OTHER}:80"]
ASK = {
    "main.py": """
import socket, threading

def ask(target):
    address, _, port = target.rpartition(":")
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as s:
        s.settimeout(0.5)
        try:
            s.connect((address, int(port)))
            s.recv(50)
            return True
        except OSError:
            return False

def listen():
    server = socket.create_server(("0.0.0.0", 9000))
    def loop():
        while True:
            link = server.accept()[0]; link.sendall(b"neighbour"); link.close()
    threading.Thread(target=loop, daemon=True).start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect(("198.51.100.7", 9))
        return s.getsockname()[0]

def handle(request, context):
    targets = request.json()
    return listen() if targets == "listen" else {target: ask(target) for target in targets}
"""
}


def enter(pid: int) -> None:
    """This thread's further sockets are made in the network of `pid`."""
    with open(f"/proc/{pid}/ns/net") as file:
        if LIBC.setns(file.fileno(), 0x40000000):
            raise OSError(ctypes.get_errno(), "setns")


class Inside:
    """A platform in a network of its own, spoken to from a thread that has entered it."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.thread = ThreadPoolExecutor(1, initializer=lambda: enter(platform.pid))

    def deploy(self, name: str, **network: Any) -> None:
        self.thread.submit(
            self.platform.deploy, name, ASK, network=network, limits={"timeout": 20}, scale={"min": 1, "max": 1}
        ).result()

    def ask(self, name: str, targets: Any) -> Any:
        got = self.thread.submit(self.platform.call, name, body=json.dumps(targets)).result()
        assert got.status == 200, got.text
        return got.text if targets == "listen" else {target for target, open_ in got.json.items() if open_}


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    prefix = ("unshare", "--net", "--", sys.executable, "-c", BUILD)
    platform = Platform(tmp_path_factory.mktemp("network") / "data", env={"MARK": MARK}, prefix=prefix)
    try:
        with platform:
            assert os.readlink(f"/proc/{platform.pid}/ns/net") != os.readlink("/proc/self/ns/net")
            world = Inside(platform)
            yield world
            world.thread.shutdown()
    finally:
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"MARK={MARK}\0".encode() in (entry / "environ").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)


def test_the_control_everything_answers_the_platforms_own_network(inside: Inside) -> None:
    names: dict[str, Any] = {}
    exec(ASK["main.py"], names)
    found = inside.thread.submit(lambda: {target for target in EVERYTHING if names["ask"](target)}).result()
    assert found == set(EVERYTHING)


def test_mode_none_reaches_nothing(inside: Inside) -> None:
    inside.deploy("shut", mode="none")
    assert inside.ask("shut", EVERYTHING) == set()


def test_mode_egress_reaches_the_outside_and_never_what_is_near(inside: Inside) -> None:
    inside.deploy("out", mode="egress")
    assert inside.ask("out", EVERYTHING) == set(EVERYTHING) - set(NEVER)


def test_an_allow_list_is_honoured(inside: Inside) -> None:
    inside.deploy("listed", mode="egress", allow=[f"{PUBLIC}/32:80"])
    assert inside.ask("listed", EVERYTHING) == {f"{PUBLIC}:80"}


@pytest.mark.parametrize("entry", [METADATA, "127.0.0.1:80", "169.254.0.0/16", "192.168.7.7", "[::1]:80"])
def test_an_allow_list_never_opens_what_is_near(inside: Inside, entry: str) -> None:
    with pytest.raises(AssertionError, match="cannot be allowed"):
        inside.deploy("near", mode="egress", allow=[entry])


def test_instances_do_not_reach_each_other(inside: Inside) -> None:
    inside.deploy("one", mode="egress")
    inside.deploy("two", mode="egress")
    address = inside.ask("one", "listen")
    assert inside.ask("one", [f"{address}:9000"]) == {f"{address}:9000"}, "the control: it listens"
    assert inside.ask("two", [f"{address}:9000", f"{PUBLIC}:80"]) == {f"{PUBLIC}:80"}
