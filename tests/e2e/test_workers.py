"""`septet up --workers 2`: what one process promises, several promise together."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from septet_platform import Platform

from septet.app.workers.owners import Owners

COUNT = 2
FLAGS = ("--workers", str(COUNT), "--listener", "open,address=127.0.0.1:0,anonymous=default")
NAMES = [f"f{number}" for number in range(6)]
ECHO = {"main.py": "def handle(request, context):\n    return request.body\n"}
# A server that takes whatever it is sent, at once, and tells how many calls it had in it.
COUNTING = {
    "server.py": """
import os, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

lock, inside = threading.Lock(), 0

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        global inside
        with lock:
            inside += 1
            seen = inside
        time.sleep(0.004)
        with lock:
            seen = max(seen, inside)
            inside -= 1
        data = b"%d" % seen
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass

class Server(ThreadingHTTPServer):
    request_queue_size = 128

Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform of two workers; tests use names of their own in it."""
    with Platform(tmp_path_factory.mktemp("workers") / "data", *FLAGS) as running:
        for name in NAMES:
            running.deploy(name, {"main.py": f"def handle(request, context):\n    return '{name}'\n"})
        yield running
    assert running.process is not None
    assert running.process.returncode == 0, running.log.read_text()[-4000:]


def wait_for(what: str, condition: Callable[[], bool], timeout: float = 60) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"{what} did not come true in {timeout} s"
        time.sleep(0.05)


def owner_of(name: str) -> int:
    """The worker that the first revision of a function belongs to, as long as both have lived."""
    owners = Owners()
    owners.set(range(COUNT))
    return owners.of(("default", f"{name}-00001"))


def pid_of(platform: Platform, slot: int) -> int:
    """The process of a worker, by what it is called; 0 while there is none."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if parent == platform.pid and b"worker-%d" % slot in words:
                    return int(entry.name)
    return 0


def serving(platform: Platform) -> int:
    return int(value(platform, r"septet_workers"))


def value(platform: Platform, pattern: str) -> float:
    """The sum of all series whose name and labels match."""
    text = platform.request("GET", "/metrics").text
    return sum(float(number) for number in re.findall(rf"^{pattern}(?:{{[^}}]*}})? ([0-9.e+]+)$", text, re.M))


class Client:
    """One connection that is kept."""

    def __init__(self, platform: Platform, token: str = "") -> None:
        self._link = platform.connection()
        self._headers = {"Authorization": f"Bearer {token or platform.token}"}

    def call(self, name: str, body: bytes | None = None) -> tuple[int, bytes]:
        method = "GET" if body is None else "POST"
        self._link.request(method, f"/fn/default/{name}/", body=body, headers=self._headers)
        got = self._link.getresponse()
        return got.status, got.read()

    def close(self) -> None:
        self._link.close()


def test_functions_belong_to_both_workers() -> None:
    """What the other tests count on."""
    assert {owner_of(name) for name in NAMES} == {0, 1}


def test_each_connection_reaches_each_function(platform: Platform) -> None:
    def visit(number: int) -> list[tuple[int, bytes]]:
        client = Client(platform)
        try:
            return [client.call(NAMES[(number + step) % len(NAMES)]) for step in range(24)]
        finally:
            client.close()

    with ThreadPoolExecutor(16) as clients:
        found = list(clients.map(visit, range(16)))
    for number, answers in enumerate(found):
        assert answers == [(200, NAMES[(number + step) % len(NAMES)].encode()) for step in range(24)]


def test_bodies_pass_between_workers_whole(platform: Platform) -> None:
    """Calls that follow each other at once to functions of two owners are lent, in both directions."""
    platform.deploy("echo", ECHO)
    other = next(name for name in NAMES if owner_of(name) != owner_of("echo"))
    body = os.urandom(3_000_000)
    client = Client(platform)
    for _ in range(4):
        assert client.call(other) == (200, other.encode())
        assert client.call("echo", body) == (200, body)
    client.close()


def test_an_instance_never_runs_more_than_its_concurrency(platform: Platform) -> None:
    platform.deploy(
        "single",
        COUNTING,
        runtime="http",
        command=["/usr/bin/python3", "server.py"],
        limits={"concurrency": 1},
        scale={"max": 2},
    )

    def visit(_: int) -> list[tuple[int, bytes]]:
        client = Client(platform)
        try:
            return [client.call("single") for _ in range(20)]
        finally:
            client.close()

    with ThreadPoolExecutor(32) as clients:
        answers = [answer for answers in clients.map(visit, range(32)) for answer in answers]
    assert len(answers) == 640
    assert set(answers) == {(200, b"1")}
    assert len(platform.instances("single")) <= 2


def test_counts_and_records_of_all_workers_add_up(platform: Platform) -> None:
    made = dict.fromkeys(NAMES, 0)

    def series(name: str) -> str:
        return rf'faas_invocations_total{{function="{name}",[^}}]*status_class="2xx"[^}}]*}}'

    before = {name: value(platform, series(name)) for name in NAMES}
    ids: dict[str, set[str]] = {name: set() for name in NAMES}
    for step in range(40):
        name = NAMES[step % len(NAMES)]
        got = platform.call(name)
        assert got.status == 200
        made[name] += 1
        ids[name].add(got.headers["septet-invocation-id"])
    for name in NAMES:
        # Whoever asks gets what is known at that moment, not what was told some time ago.
        assert value(platform, series(name)) == before[name] + made[name]
        listed = platform.api("GET", f"/namespaces/default/functions/{name}/invocations?limit=100")["items"]
        assert ids[name] <= {item["id"] for item in listed}
    assert value(platform, "septet_calls_open") == 0


def test_a_rate_holds_over_all_workers(platform: Platform) -> None:
    body = {
        "name": "slow",
        "namespaces": ["default"],
        "verbs": ["functions:invoke"],
        "quota": {"requests": 2.0, "burst": 6},
    }
    token = platform.api("POST", "/tokens", body)["token"]
    began = time.monotonic()
    with ThreadPoolExecutor(8) as clients:
        calls = clients.map(lambda at: platform.call(NAMES[at % len(NAMES)], token=token).status, range(60))
        statuses = list(calls)
    took = time.monotonic() - began
    assert set(statuses) <= {200, 429}
    assert 7 <= statuses.count(200) <= 7 + 2.0 * took + 1


def test_further_listeners_and_routes_lead_to_every_worker(platform: Platform) -> None:
    for name in NAMES:
        spec = {"match": {"path": f"/to/{name}"}, "targets": [{"function": name}]}
        platform.api("PUT", f"/namespaces/default/routes/{name}", {"spec": spec})
    for name in NAMES:
        # The answer to a change of a route does not wait for it to be in force.
        wait_for("the route", lambda name=name: platform.request("GET", f"/to/{name}").status == 200)  # type: ignore[misc]
    address = urllib.parse.urlsplit(platform.listeners["open"])
    for name in NAMES:
        link = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
        for target in (f"/fn/default/{name}/", f"/to/{name}", f"/to/{name}", f"/fn/default/{name}/"):
            link.request("GET", target)
            got = link.getresponse()
            assert (got.status, got.read()) == (200, name.encode()), target
        link.close()
        assert platform.call(name, token=None).status == 401


def test_a_revoked_token_is_refused_by_every_worker_at_once(platform: Platform) -> None:
    body = {"name": "brief", "namespaces": ["default"], "verbs": ["functions:invoke"]}
    token = platform.api("POST", "/tokens", body)["token"]
    clients = [Client(platform, token) for _ in range(12)]
    for step in range(2 * len(NAMES)):
        # Twice on each, so that each has its connection where the function is, and its head is known.
        for client in clients:
            assert client.call(NAMES[step % len(NAMES)])[0] == 200
    platform.api("DELETE", "/tokens/brief")
    assert [client.call(NAMES[at % len(NAMES)])[0] for at, client in enumerate(clients)] == [401] * len(clients)
    for client in clients:
        client.close()


def test_a_new_token_is_known_to_every_worker_at_once(platform: Platform) -> None:
    for number in range(5):
        body = {"name": f"fresh-{number}", "namespaces": ["default"], "verbs": ["functions:invoke"]}
        token = platform.api("POST", "/tokens", body)["token"]
        assert {platform.call(name, token=token).status for name in NAMES} == {200}


def test_deploys_under_load_fail_no_call(platform: Platform) -> None:
    def source(number: int) -> dict[str, str]:
        return {"main.py": f"def handle(request, context):\n    return '{number}'\n"}

    platform.deploy("moving", source(0))
    stop = threading.Event()
    bad: list[object] = []
    seen: list[list[int]] = []

    def load() -> None:
        mine: list[int] = []
        seen.append(mine)
        client = Client(platform)
        while not stop.is_set():
            status, body = client.call("moving")
            if status != 200:
                bad.append((status, body))
            else:
                mine.append(int(body))
        client.close()

    threads = [threading.Thread(target=load) for _ in range(6)]
    for thread in threads:
        thread.start()
    for number in range(1, 5):
        platform.deploy("moving", source(number))
    # Each has to have met the last one before the load may end.
    wait_for("the last revision", lambda: all(mine and mine[-1] == 4 for mine in seen))
    stop.set()
    for thread in threads:
        thread.join()
    assert bad == []
    assert all(mine == sorted(mine) for mine in seen)


def test_scale_to_zero_and_back(platform: Platform) -> None:
    platform.deploy("sleepy", ECHO, scale={"window": 6.0, "grace": 0.5})
    assert platform.call("sleepy", body=b"a").body == b"a"
    wait_for("no instance", lambda: not platform.instances("sleepy"))
    got = platform.call("sleepy", body=b"b")
    assert (got.status, got.body) == (200, b"b")
    found = f"/namespaces/default/invocations/{got.headers['septet-invocation-id']}"
    wait_for("the record", lambda: platform.request("GET", f"/septet/v1{found}").status == 200)
    assert platform.api("GET", found)["cold"] == "scaled-to-zero"


def test_a_worker_that_dies_takes_only_its_own_with_it(platform: Platform) -> None:
    wait_for("both serve", lambda: serving(platform) == COUNT)
    lives = next(name for name in NAMES if owner_of(name) == 0)
    dies = next(name for name in NAMES if owner_of(name) == 1)
    clients = [Client(platform) for _ in range(8)]
    for client in clients:
        # After this the connection is where its function is, whoever accepted it.
        assert client.call(lives)[0] == 200
    killed = pid_of(platform, 1)
    assert killed
    os.kill(killed, signal.SIGKILL)
    for _ in range(20):
        assert [client.call(lives) for client in clients] == [(200, lives.encode())] * len(clients)

    def again() -> bool:
        return pid_of(platform, 1) not in (0, killed) and serving(platform) == COUNT

    wait_for("another worker in its place", again)
    for name in NAMES:
        wait_for(name, lambda name=name: _answers(platform, name))  # type: ignore[misc]
        assert platform.call(name).text == name
    assert _answers(platform, dies)
    assert [client.call(dies) for client in clients] == [(200, dies.encode())] * len(clients)
    for client in clients:
        client.close()


def _answers(platform: Platform, name: str) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return platform.call(name).status == 200
    return False


def test_new_connections_are_accepted_while_a_worker_is_away(platform: Platform) -> None:
    wait_for("both serve", lambda: serving(platform) == COUNT)
    # A new one: the others may have stayed where the death of a worker brought them.
    calm = next(name for name in (f"calm{number}" for number in range(99)) if owner_of(name) == 1)
    platform.deploy(calm, ECHO)
    killed = pid_of(platform, 0)
    os.kill(killed, signal.SIGKILL)
    # The kernel deals out half of these to a socket whose worker is being replaced.
    for _ in range(2):
        with ThreadPoolExecutor(12) as clients:
            answers = list(clients.map(lambda at: platform.call(calm, body=b"%d" % at), range(24)))
        assert [(answer.status, answer.body) for answer in answers] == [(200, b"%d" % at) for at in range(24)]
        # And then once more, when it accepts for itself again.
        wait_for("another worker in its place", lambda: pid_of(platform, 0) not in (0, killed))
        wait_for("both serve", lambda: serving(platform) == COUNT)


def test_a_worker_that_is_stuck_makes_way_before_a_token_counts_as_deleted(platform: Platform) -> None:
    wait_for("both serve", lambda: serving(platform) == COUNT)
    body = {"name": "stuck", "namespaces": ["default"], "verbs": ["functions:invoke"]}
    token = platform.api("POST", "/tokens", body)["token"]
    assert {platform.call(name, token=token).status for name in NAMES} == {200}
    stuck = pid_of(platform, 1)
    # A connection that the platform's own process has already, since no other can answer for a stopped one.
    link = platform.connection(120)
    headers = {"Authorization": f"Bearer {platform.token}"}
    link.request("GET", "/septet/v1/version", headers=headers)
    assert link.getresponse().read()
    os.kill(stuck, signal.SIGSTOP)
    try:
        link.request("DELETE", "/septet/v1/tokens/stuck", headers=headers)
        assert link.getresponse().status == 200
        # It was killed meanwhile: nobody is left who would take the token.
        assert not _is_worker(stuck)
    finally:
        link.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(stuck, signal.SIGKILL)
    wait_for("another worker in its place", lambda: pid_of(platform, 1) not in (0, stuck))
    wait_for("both serve", lambda: serving(platform) == COUNT)
    assert {platform.call(name, token=token).status for name in NAMES} == {401}
    for name in NAMES:
        wait_for(name, lambda name=name: _answers(platform, name))  # type: ignore[misc]


def test_calls_from_inside_an_instance_find_their_owner(platform: Platform) -> None:
    source = {
        "main.py": "import os, urllib.request\n"
        "def handle(request, context):\n"
        "    name = request.body.decode()\n"
        "    url = os.environ['SEPTET_GATEWAY'] + '/fn/default/' + name + '/'\n"
        "    return urllib.request.urlopen(url, timeout=20).read()\n"
    }
    platform.deploy("relay", source)
    for name in NAMES:
        assert platform.call("relay", body=name).text == name


def test_sigterm_lets_running_calls_of_all_workers_end(own_platform: Platform) -> None:
    own_platform.flags = ("--workers", str(COUNT))
    platform = own_platform.start()
    lines = (
        "import time",
        "def handle(request, context):",
        "    print('in')",
        "    time.sleep(2)",
        "    return 'whole'",
    )
    slow = {"main.py": "\n".join(lines)}
    for name in ("f0", "f1", "f2", "f3"):
        platform.deploy(name, slow, limits={"concurrency": 4})
    assert {owner_of(name) for name in ("f0", "f1", "f2", "f3")} == {0, 1}
    with ThreadPoolExecutor(8) as clients:
        running = [clients.submit(platform.call, f"f{at % 4}", body=b"x") for at in range(8)]
        wait_for("all calls run", lambda: _inside(platform) == 8)
        assert platform.stop() == 0
        answers = [call.result() for call in running]
    assert [(answer.status, answer.text) for answer in answers] == [(200, "whole")] * 8


def _inside(platform: Platform) -> int:
    """How many calls have printed that they run."""
    total = 0
    for name in ("f0", "f1", "f2", "f3"):
        text = platform.request("GET", f"/septet/v1/namespaces/default/functions/{name}/logs").text
        total += sum(json.loads(line)["text"] == "in" for line in text.splitlines())
    return total


def test_nothing_of_it_outlives_a_killed_platform(own_platform: Platform) -> None:
    own_platform.flags = ("--workers", str(COUNT))
    platform = own_platform.start()
    platform.deploy("hello", ECHO)
    workers = [pid_of(platform, slot) for slot in range(COUNT)]
    assert all(workers)
    address = platform.url.removeprefix("http://")
    platform.kill()
    wait_for("no worker", lambda: not any(_is_worker(pid) for pid in workers))
    # The very address is free again, and what was deployed is there.
    platform.flags = ("--workers", str(COUNT), "--listen", address)
    platform.start()
    assert platform.url.endswith(address)
    assert platform.call("hello", body=b"again").body == b"again"
    assert platform.stop() == 0


def _is_worker(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"septet.app.workers.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def test_a_port_that_another_platform_shares_among_its_workers_is_taken(
    platform: Platform, own_platform: Platform
) -> None:
    address = platform.url.removeprefix("http://")
    own_platform.flags = ("--workers", str(COUNT), "--listen", address)
    with pytest.raises(AssertionError, match="cannot listen on"):
        own_platform.start()
    assert own_platform.process is not None
    own_platform.process.wait(30)
