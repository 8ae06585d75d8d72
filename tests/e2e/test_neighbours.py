"""Bad neighbours: each is stopped, told why, and harms nobody else; nothing of it stays."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from septet_platform import Answer, Platform

pytestmark = pytest.mark.root
ECHO = {"main.py": "def handle(request, context):\n    return request.body\n"}
SLOWEST = 10.0
"""Seconds: no promise, but what says that the victim was never shut out."""

BAD = {
    "forks": """
import os, signal
def handle(request, context):
    for _ in range(400):
        if os.fork() == 0:
            signal.pause()
    return "made them all"
""",
    "heap": "def handle(request, context):\n    return str(len(bytearray(256 << 20)))\n",
    "tmpfs": """
def handle(request, context):
    with open("/tmp/big", "wb", buffering=0) as file:
        for _ in range(256):
            file.write(b"x" * (1 << 20))
    return "wrote it all"
""",
    "shared": """
import mmap
def handle(request, context):
    area = mmap.mmap(-1, 256 << 20)
    for offset in range(0, 256 << 20, 4096):
        area[offset] = 1
    return "touched it all"
""",
    "memfd": "import os\ndef handle(request, context):\n    return str(os.memfd_create('big'))\n",
    "descriptors": """
import os
def handle(request, context):
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(100_000)]
    return "opened them all"
""",
    "full": """
def handle(request, context):
    with open("/tmp/big", "wb", buffering=0) as file:
        for _ in range(64):
            file.write(b"x" * (1 << 20))
    return "wrote it all"
""",
    "swallows": """
import os, time
def handle(request, context):
    what = request.body.decode()
    try:
        for _ in range(400 if "forks" in what else 0):
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
        with open("/tmp/big", "ab", buffering=0) as file:
            for _ in range(64 if "fills" in what else 0):
                file.write(b"x" * (1 << 20))
    except OSError:
        pass
    held = []
    try:
        while "opens" in what:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    if "hangs" in what:
        time.sleep(60)
    if "raises" in what:
        raise ValueError("it did not work")
    return "sorry", 500
""",
    "flood": """
import os
def handle(request, context):
    for _ in range(int(request.body)):
        os.write(1, (b"y" * 1023 + b"\\n") * 64)
    return "told it all"
""",
    "stubborn": """
import os, signal, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
def handle(request, context):
    return "no"
""",
    "daemon": """
import os, signal, time
def handle(request, context):
    if request.body == b"1" and os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(300)
        os._exit(0)
    return "left one behind"
""",
    "endless": "def handle(request, context):\n    while True:\n        yield b'z' * 65536\n",
}


@pytest.fixture(scope="module", autouse=True)
def victim(platform: Platform) -> Iterator[list[tuple[int, float]]]:
    """Called all the time; at the end no call of it has failed or waited long."""
    platform.deploy("victim", ECHO, scale={"min": 1, "max": 1})
    seen: list[tuple[int, float]] = []
    stop = threading.Event()

    def call() -> None:
        while not stop.wait(0.05):
            began = time.monotonic()
            seen.append((platform.call("victim", body=b"v").status, time.monotonic() - began))

    caller = threading.Thread(target=call)
    caller.start()
    yield seen
    stop.set()
    caller.join()
    assert len(seen) > 50
    assert {status for status, _ in seen} == {200}
    assert max(took for _, took in seen) < SLOWEST


def bad(platform: Platform, name: str, body: bytes = b"1", **spec: Any) -> Answer:
    platform.deploy(name, {"main.py": BAD[name]}, **{"limits": {"memory": 64, "timeout": 30}, **spec})
    return platform.call(name, body=body)


def logged(platform: Platform, name: str) -> str:
    return platform.request("GET", f"/septet/v1/namespaces/default/functions/{name}/logs").text


def soon(condition: Callable[[], object], timeout: float = 15) -> bool:
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("name", ["heap", "tmpfs", "shared"])
def test_memory_is_named_wherever_it_was_taken(platform: Platform, name: str) -> None:
    got = bad(platform, name, limits={"memory": 64, "tmp": 512, "timeout": 30})
    assert got.status == 502, got.text
    assert got.json["type"] == "urn:septet:error:function-out-of-memory"
    assert "64" in got.json["limit"] + got.json["detail"]
    assert soon(lambda: "it used more than its 64 MiB of memory" in logged(platform, name), 5)


def test_memory_without_a_name_is_not_had(platform: Platform) -> None:
    got = bad(platform, "memfd")
    assert got.json["details"]["type"] == "PermissionError", got.text


def test_a_fork_bomb_stops_at_its_limit(platform: Platform) -> None:
    got = bad(platform, "forks", limits={"pids": 32, "timeout": 20})
    assert got.status >= 500, got.text
    assert "BlockingIOError" in logged(platform, "forks") + got.text
    assert got.json["limit"] == "pids"
    platform.api("DELETE", "/namespaces/default/functions/forks")


def test_a_full_tmp_is_an_error_of_the_function(platform: Platform) -> None:
    got = bad(platform, "full", limits={"tmp": 8, "memory": 128, "timeout": 20})
    assert got.status >= 500, got.text
    assert "No space left" in logged(platform, "full") + got.text
    assert got.json["limit"] == "tmp"


def test_descriptors_end_at_their_limit(platform: Platform) -> None:
    got = bad(platform, "descriptors")
    assert got.status >= 500, got.text
    assert "Too many open files" in logged(platform, "descriptors") + got.text
    assert got.json["limit"] == "open files"


@pytest.mark.parametrize(
    ("name", "met", "line"),
    [
        ("forks", "pids 24", "pids limit 24 reached ("),
        ("fills", "tmp 8 MiB", "tmp limit 8 MiB reached"),
        ("opens", "open files ", "open files limit "),
    ],
)
def test_a_limit_is_named_although_the_handler_kept_it_to_itself(
    platform: Platform, name: str, met: str, line: str
) -> None:
    limits = {"pids": 24, "tmp": 8, "memory": 128, "timeout": 2}
    platform.deploy(f"swallows-{name}", {"main.py": BAD["swallows"]}, limits=limits)
    fine = platform.call(f"swallows-{name}", body="nothing")
    assert (fine.status, fine.text, fine.headers.get("septet-limit")) == (500, "sorry", None), "no limit was met"
    got = platform.call(f"swallows-{name}", body=name)
    assert (got.status, got.text, got.headers.get("septet-limit", "")[: len(met)]) == (
        500,
        "sorry",
        met,
    ), got.text
    got = platform.call(f"swallows-{name}", body=f"{name} raises")
    assert (got.json["limit"][: len(met)], got.json["details"]["type"]) == (met, "ValueError")
    got = platform.call(f"swallows-{name}", body=f"{name} hangs")
    assert (got.status, got.json["limit"][: 13 + len(met)]) == (504, f"timeout 2 s, {met}")
    assert soon(lambda: line in logged(platform, f"swallows-{name}"), 5)
    platform.api("DELETE", f"/namespaces/default/functions/swallows-{name}")


def test_a_log_flood_is_slowed_and_bounded(platform: Platform) -> None:
    before = int(Path(f"/proc/{platform.pid}/statm").read_text().split()[1]) * 4096
    got = bad(platform, "flood", b"200")  # 12.5 MiB: more than the burst
    assert got.status == 200, got.text
    after = int(Path(f"/proc/{platform.pid}/statm").read_text().split()[1]) * 4096
    assert after - before < 48 << 20
    size = sum(path.stat().st_size for path in platform.data.rglob("*") if path.is_file() and "log" in str(path))
    assert size < 40 << 20, size
    every = platform.request("GET", "/septet/v1/namespaces/default/functions/flood/logs?tail=100000").text
    assert "slowed down" in every


def test_a_refused_sigterm_ends_by_force(platform: Platform) -> None:
    assert bad(platform, "stubborn", env={"MARK": "stubborn-mark-55"}).status == 200
    platform.api("DELETE", "/namespaces/default/functions/stubborn")
    assert soon(lambda: not _marked("stubborn-mark-55"), 45)


def test_a_daemon_ends_with_its_instance(platform: Platform) -> None:
    mark = "daemon-mark-77"
    assert bad(platform, "daemon", b"0", env={"MARK": mark}).status == 200
    without = len(_marked(mark))
    assert platform.call("daemon", body=b"1").status == 200
    assert soon(lambda: len(_marked(mark)) > without, 5), "the control: it does outlive its call"
    platform.api("DELETE", "/namespaces/default/functions/daemon")
    assert soon(lambda: not _marked(mark), 45)


def test_an_endless_reply_ends_with_its_reader(platform: Platform) -> None:
    platform.deploy("endless", {"main.py": BAD["endless"]}, limits={"timeout": 30})
    before = int(Path(f"/proc/{platform.pid}/statm").read_text().split()[1]) * 4096
    link = platform.connection()
    link.request("GET", "/fn/default/endless/", headers={"Authorization": f"Bearer {platform.token}"})
    reply = link.getresponse()
    assert len(reply.read(32 << 20)) == 32 << 20
    link.close()
    assert int(Path(f"/proc/{platform.pid}/statm").read_text().split()[1]) * 4096 - before < 32 << 20


RAW = """
import os, socket, threading, time
REPLIES = {
    b"/splits": b"HTTP/1.1 200 OK\\r\\nx-a: b\\x00c\\r\\n\\r\\n",
    b"/bare": b"HTTP/1.1 200 OK\\r\\nx-a: b\\n\\nset-cookie: stolen=1\\r\\n\\r\\n",
    b"/both": b"HTTP/1.1 200 OK\\r\\ncontent-length: 3\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n",
    b"/chunks": b"HTTP/1.1 200 OK\\r\\ntransfer-encoding: chunked\\r\\n\\r\\nzz\\r\\n",
    b"/twice": b"HTTP/1.1 200 OK\\r\\ncontent-length: 3\\r\\ncontent-length: 4\\r\\n\\r\\nabcd",
    b"/nonsense": b"SSH-2.0-x\\r\\n",
    b"/headers": b"HTTP/1.1 200 OK\\r\\n" + b"x-a: " + b"y" * 90 + b"\\r\\n",
    b"/informational": b"HTTP/1.1 103 Early Hints\\r\\n\\r\\n",
    b"/good": b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nok",
}
REPEATED = {b"/headers": b"x-a: " + b"y" * 90 + b"\\r\\n", b"/informational": b"HTTP/1.1 103 Early Hints\\r\\n\\r\\n"}
def serve(link):
    with link:
        head = b""
        while b"\\r\\n\\r\\n" not in head:
            more = link.recv(65536)
            if not more:
                return
            head += more
        path = head.split()[1]
        try:
            link.sendall(REPLIES.get(path, REPLIES[b"/good"]))
            for _ in range(100_000 if path in REPEATED else 0):
                link.sendall(REPEATED[path] * 100)
            time.sleep(0.2)
        except OSError:
            pass
server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
while True:
    threading.Thread(target=serve, args=(server.accept()[0],)).start()
"""


def test_adv_cve_2020_7695_a_bad_reply_head_is_refused(platform: Platform) -> None:
    files = {"server.py": RAW}
    platform.deploy("raw", files, runtime="http", command=["/usr/bin/python3", "server.py"], limits={"timeout": 10})
    assert platform.call("raw", "/good").text == "ok", "the control: a good reply comes through"
    before = int(Path(f"/proc/{platform.pid}/statm").read_text().split()[1]) * 4096
    wrong = {}
    for path in ("splits", "bare", "both", "twice", "nonsense", "headers"):
        got = platform.call("raw", f"/{path}")
        if got.status != 502 or got.json["type"] != "urn:septet:error:bad-reply" or "set-cookie" in got.headers:
            wrong[path] = (got.status, got.headers, got.body[:300])
    assert not wrong
    with pytest.raises(http.client.HTTPException):
        platform.call("raw", "/chunks")
    assert endless_interim(platform) < 4 << 20
    assert int(Path(f"/proc/{platform.pid}/statm").read_text().split()[1]) * 4096 - before < 32 << 20


def endless_interim(platform: Platform) -> int:
    """Bytes of 1xx answers that come through before the platform has enough."""
    link = platform.connection(20)
    link.connect()
    assert link.sock is not None
    line = f"GET /fn/default/raw/informational HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {platform.token}\r\n\r\n"
    link.sock.sendall(line.encode())
    got = 0
    while got < 8 << 20 and (piece := link.sock.recv(65536)):
        got += len(piece)
        if b"HTTP/1.1 502" in piece:
            break
    link.close()
    return got


def _marked(text: str) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if text.encode() in (entry / "environ").read_bytes() and int(entry.name) != os.getpid():
                found.append(entry.name)
    return found


def footprint(platform: Platform) -> dict[str, Any]:
    """What the platform holds of the host."""
    data = platform.data
    (bases,) = data.rglob("cgroups.json")
    groups = [path for base in json.loads(bases.read_text()) for path in Path(base).glob("*/")]
    parents: dict[int, str] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = path.read_text()
    mine = {platform.pid}
    for _ in range(4):
        mine |= {pid for pid, text in parents.items() if int(text.rpartition(")")[2].split()[1]) in mine}
    return {
        "descriptors": len(os.listdir(f"/proc/{platform.pid}/fd")),
        "mounts": len(Path(f"/proc/{platform.pid}/mountinfo").read_text().splitlines()),
        "processes": len(mine),
        "groups": len(groups),
        "folders": sum(1 for path in data.rglob("*") if path.is_dir() and "log" not in str(path)),
        "interfaces": len([n for n in os.listdir("/sys/class/net") if n.startswith("sv")]),
    }


@pytest.mark.parametrize("waiting", [0, 2])
def test_fifty_starts_and_stops_leave_nothing(tmp_path: Path, waiting: int) -> None:
    source = {"main.py": "import os\ndef handle(request, context):\n    os._exit(0)\n"}
    with Platform(tmp_path / "data", "--warm-pool", str(waiting)) as platform:

        def full() -> bool:
            """Both kinds of those that wait are all there again."""
            return f"septet_warm_pool {2.0 * waiting}\n" in platform.request("GET", "/metrics").text

        platform.deploy("dies", source, scale={"window": 6.0, "grace": 0.5})
        for _ in range(2):
            platform.call("dies", body=b"x")
        assert soon(lambda: not platform.instances("dies"), 20)
        assert soon(full, 20)
        before = footprint(platform)
        ids = set()
        for _ in range(50):
            got = platform.call("dies", body=b"x")
            assert got.status == 502, got.text
            ids.add(json.dumps(got.json["invocation"]))
        assert len(ids) == 50
        assert soon(lambda: not platform.instances("dies"), 20)
        last: dict[str, Any] = {}

        def same() -> bool:
            last.update(footprint(platform))
            return all(last[name] <= before[name] for name in before)

        assert soon(same, 20), (before, last)
