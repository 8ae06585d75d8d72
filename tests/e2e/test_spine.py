"""Deploy, call, scale to zero and back, isolate, kill -9."""

from __future__ import annotations

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from septet_platform import Platform

HELLO = {"main.py": "def handle(request, context):\n    return {'hello': request.json().get('name', 'world')}\n"}
ECHO = {"main.py": "def handle(request, context):\n    return request.body\n"}
QUICK_ZERO = {"window": 6.0, "grace": 0.5}


def wait_for(what: str, condition: object, timeout: float = 30) -> None:
    assert callable(condition)
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"{what} did not come true in {timeout} s"
        time.sleep(0.05)


def processes_naming(text: str) -> list[int]:
    """Pids whose environment or command line holds the text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if text.encode() in (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def test_deploy_and_call(platform: Platform) -> None:
    function = platform.deploy("hello", HELLO)
    assert function["status"]["latest_ready"] == "hello-00001"
    got = platform.call("hello", body=json.dumps({"name": "Ada"}))
    assert (got.status, got.json) == (200, {"hello": "Ada"})
    assert len(got.headers["septet-invocation-id"]) == 32


def test_a_call_needs_a_token_unless_the_function_is_public(platform: Platform) -> None:
    platform.deploy("private", ECHO)
    platform.deploy("open", ECHO, access="public")
    assert platform.call("private", body=b"x", token=None).status == 401
    assert platform.call("private", body=b"x", token="sept_" + "A" * 43).status == 401
    assert platform.call("open", body=b"x", token=None).body == b"x"


def test_an_unknown_function_is_a_problem_with_a_stable_type(platform: Platform) -> None:
    got = platform.call("nobody")
    assert got.status == 404
    assert got.headers["content-type"] == "application/problem+json"
    assert got.json["type"] == "urn:septet:error:not-found"


def test_a_new_deploy_makes_a_new_revision(platform: Platform) -> None:
    platform.deploy("twice", {"main.py": "def handle(request, context):\n    return 'one'\n"})
    platform.deploy("twice", {"main.py": "def handle(request, context):\n    return 'two'\n"})
    assert platform.call("twice").text == "two"
    revisions = platform.api("GET", "/namespaces/default/functions/twice/revisions")["items"]
    assert [r["meta"]["name"] for r in revisions] == ["twice-00001", "twice-00002"]
    assert platform.request("GET", "/fn/default/twice@twice-00001/").text == "one"


def test_scale_to_zero_and_back(platform: Platform) -> None:
    platform.deploy("sleepy", ECHO, scale=QUICK_ZERO, env={"MARK": "sleepy-mark-7f3a"})
    assert platform.call("sleepy", body=b"a").body == b"a"
    assert platform.instances("sleepy")
    wait_for("no instance", lambda: not platform.instances("sleepy"))
    wait_for("no process", lambda: not processes_naming("sleepy-mark-7f3a"), 5)
    assert platform.call("sleepy", body=b"b").body == b"b"


def test_two_hundred_first_calls_to_a_function_at_zero(platform: Platform) -> None:
    platform.deploy("crowd", ECHO, scale={"max": 4, **QUICK_ZERO})
    wait_for("no instance", lambda: not platform.instances("crowd"))
    with ThreadPoolExecutor(200) as clients:
        answers = list(clients.map(lambda i: platform.call("crowd", body=str(i)), range(200)))
    assert {a.status for a in answers} == {200}
    assert [a.text for a in answers] == [str(i) for i in range(200)]
    assert len(platform.instances("crowd")) <= 4


def test_a_function_that_fails_to_load_says_so_and_the_old_one_serves_on(platform: Platform) -> None:
    platform.deploy("fragile", {"main.py": "def handle(request, context):\n    return 'good'\n"})
    platform.apply("fragile", {"main.py": "import nothing_of_this_name\n"})

    def failed() -> bool:
        function = platform.api("GET", "/namespaces/default/functions/fragile")
        ready = next(c for c in function["status"]["conditions"] if c["type"] == "Ready")
        return ready["status"] is False and "nothing_of_this_name" in ready["message"]

    wait_for("the failure", failed)
    assert platform.call("fragile").text == "good"


def test_a_crash_is_a_502_that_names_the_call(platform: Platform) -> None:
    platform.deploy("crash", {"main.py": "import os\ndef handle(request, context):\n    os._exit(3)\n"})
    got = platform.call("crash", body=b"x")
    assert got.status == 502
    assert got.json["type"] == "urn:septet:error:function-crashed"
    assert got.json["invocation"] == got.headers["septet-invocation-id"]


def test_a_timeout_is_a_504_that_names_the_limit(platform: Platform) -> None:
    source = {"main.py": "import time\ndef handle(request, context):\n    time.sleep(30)\n"}
    platform.deploy("slow", source, limits={"timeout": 0.5})
    got = platform.call("slow", body=b"x")
    assert got.status == 504
    assert "0.5" in got.json["limit"]


@pytest.mark.root
def test_out_of_memory_is_a_502_that_says_memory(platform: Platform) -> None:
    source = {"main.py": "def handle(request, context):\n    return str(len(bytearray(400 * 1024 * 1024)))\n"}
    platform.deploy("hungry", source, limits={"memory": 64})
    got = platform.call("hungry", body=b"x")
    assert got.status == 502
    assert got.json["type"] == "urn:septet:error:function-out-of-memory"
    assert "memory" in got.json["detail"]


def test_no_request_fails_during_deploys_under_load(platform: Platform) -> None:
    def source(n: int) -> dict[str, str]:
        return {"main.py": f"def handle(request, context):\n    return 'v{n}'\n"}

    platform.deploy("busy", source(0), scale={"min": 1, "max": 4})
    stop = threading.Event()
    answers: list[tuple[int, str]] = []

    def client() -> None:
        link = platform.connection()
        while not stop.is_set():
            link.request("GET", "/fn/default/busy/", headers={"Authorization": f"Bearer {platform.token}"})
            got = link.getresponse()
            answers.append((got.status, got.read().decode()))
        link.close()

    clients = [threading.Thread(target=client) for _ in range(32)]
    for thread in clients:
        thread.start()
    for n in range(1, 4):
        platform.deploy("busy", source(n), scale={"min": 1, "max": 4})
        time.sleep(0.5)
    stop.set()
    for thread in clients:
        thread.join()
    assert {status for status, _ in answers} == {200}
    assert {body for _, body in answers} == {"v0", "v1", "v2", "v3"}


def test_kill_nine_loses_nothing_and_leaves_no_orphan(own_platform: Platform) -> None:
    platform = own_platform.start()
    platform.deploy("keep", ECHO, env={"MARK": "keep-mark-91bc"}, scale={"min": 1})
    assert platform.call("keep", body=b"1").body == b"1"
    before = platform.api("GET", "/namespaces/default/functions/keep")
    assert processes_naming("keep-mark-91bc")
    platform.kill()
    wait_for("no orphan", lambda: not processes_naming("keep-mark-91bc"), 5)
    platform.start()
    after = platform.api("GET", "/namespaces/default/functions/keep")
    assert after["meta"]["uid"] == before["meta"]["uid"]
    assert after["spec"] == before["spec"]
    assert platform.call("keep", body=b"2").body == b"2"
    assert platform.stop() == 0
    assert not processes_naming("keep-mark-91bc")


def test_a_function_that_never_gets_ready_fails_those_who_wait_and_nobody_else(platform: Platform) -> None:
    source = {
        "main.py": "import os, time\nif time.time() > float(os.environ['UNTIL']):\n    raise RuntimeError('spoiled')\n"
        "def handle(request, context):\n    return 'fresh'\n"
    }
    until = time.time() + 12
    platform.deploy("milk", source, env={"UNTIL": str(until)}, scale=QUICK_ZERO)
    platform.deploy("fine", ECHO)
    wait_for("no instance", lambda: not platform.instances("milk"))
    time.sleep(max(0.0, until - time.time()) + 0.5)
    with ThreadPoolExecutor(12) as clients:
        spoiled = [clients.submit(platform.call, "milk", body=b"x", timeout=40) for _ in range(8)]
        fine = list(clients.map(lambda i: platform.call("fine", body=str(i)), range(30)))
        answers = [future.result() for future in spoiled]
    assert {a.status for a in fine} == {200}
    assert {a.json["type"] for a in answers} == {"urn:septet:error:init-failed"}
    assert all("spoiled" in a.json["detail"] for a in answers)
