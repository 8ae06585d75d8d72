"""Namespaces, tokens, secrets, quotas, budgets, and the inner gateway."""

from __future__ import annotations

import base64
import http.client
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from septet_platform import Platform

ECHO = {"main.py": "def handle(request, context):\n    return request.body\n"}
SLOW_BUILD = '[build-system]\nrequires = []\nbuild-backend = "setup"\n\n[project]\nname = "slow"\nversion = "1"\n'
SLEEP = {
    "main.py": "import time\ndef handle(request, context):\n    time.sleep(float(request.body))\n    return 'ok'\n"
}


def token(platform: Platform, name: str, namespaces: list[str], verbs: list[str], **more: object) -> str:
    body = {"name": name, "namespaces": namespaces, "verbs": verbs, **more}
    return str(platform.api("POST", "/tokens", body)["token"])


def test_a_token_reaches_its_namespace_and_its_verbs_alone(platform: Platform) -> None:
    platform.api("PUT", "/namespaces/red", {"spec": {}})
    platform.api("PUT", "/namespaces/blue", {"spec": {}})
    platform.deploy("f", ECHO, namespace="red")
    platform.deploy("f", ECHO, namespace="blue")
    caller = token(platform, "red-caller", ["red"], ["functions:invoke"])
    assert platform.call("f", body=b"x", namespace="red", token=caller).body == b"x"
    assert platform.call("f", body=b"x", namespace="blue", token=caller).status == 403
    assert platform.request("GET", "/septet/v1/namespaces/red/functions", token=caller).status == 403
    platform.api("DELETE", "/tokens/red-caller")
    end = time.monotonic() + 5
    while platform.call("f", body=b"x", namespace="red", token=caller).status != 401:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_secret_is_a_file_and_a_variable_and_is_never_told(platform: Platform) -> None:
    data = {"PASSWORD": base64.b64encode(b"canary-5d1f").decode()}
    platform.api("PUT", "/namespaces/default/secrets/db", {"data": data})
    source = {
        "main.py": "import os\ndef handle(request, context):\n"
        "    return {'env': os.environ['DB_PASSWORD'], 'file': open('/run/secrets/db/PASSWORD').read()}\n"
    }
    use = {"name": "db", "env": True, "files": True, "prefix": "DB_"}
    platform.deploy("keeper", source, secrets=[use])
    assert platform.call("keeper").json == {"env": "canary-5d1f", "file": "canary-5d1f"}
    listed = platform.request("GET", "/septet/v1/namespaces/default/secrets/db").text
    assert "PASSWORD" in listed
    assert "canary-5d1f" not in listed
    for path in platform.data.rglob("*"):
        if path.is_file():
            assert b"canary-5d1f" not in path.read_bytes(), path


def test_a_namespaces_rate_is_kept(platform: Platform) -> None:
    platform.api("PUT", "/namespaces/slow", {"spec": {"quota": {"requests": 1, "burst": 2}}})
    platform.deploy("f", ECHO, namespace="slow")
    answers = [platform.call("f", body=b"x", namespace="slow") for _ in range(8)]
    refused = [a for a in answers if a.status == 429]
    assert refused
    assert refused[0].json["type"] == "urn:septet:error:quota-exceeded"
    assert int(refused[0].headers["retry-after"]) >= 1


def test_a_tokens_rate_holds_for_whatever_it_makes(platform: Platform) -> None:
    platform.deploy("rated", ECHO, scale={"min": 1})
    hour = 1 / 3600
    quota = {"requests": hour, "burst": 2}
    parent = token(platform, "rated-parent", ["default"], ["*"], quota=quota)
    free = token(platform, "rated-free", ["default"], ["*"])
    with caller(platform, parent):
        children = [
            token(platform, f"rated-{number}", ["default"], ["functions:invoke"], quota=quota) for number in "ab"
        ]
    with caller(platform, free):
        unrelated = token(platform, "rated-unrelated", ["default"], ["functions:invoke"])
    called = [platform.call("rated", body=b"x", token=text) for text in (parent, *children, parent, *children)]
    assert [answer.status for answer in called] == [200, 200, 200, 429, 429, 429], (
        "three in all: one, and a burst of two"
    )
    assert "token rated-parent may make" in called[-1].json["detail"]
    assert called[-1].json["limit"].startswith("requests ")
    assert {platform.call("rated", body=b"x", token=text).status for text in (free, unrelated)} == {200}
    # A call that one of them refuses is not counted for the others.
    with caller(platform, free):
        wide = token(platform, "rated-wide", ["default"], ["*"], quota={"requests": hour, "burst": 3})
    with caller(platform, wide):
        narrow = token(platform, "rated-narrow", ["default"], ["functions:invoke"], quota={"requests": hour})
    texts = (narrow, narrow, narrow, narrow, wide, wide, wide, wide)
    statuses = [platform.call("rated", body=b"x", token=text).status for text in texts]
    assert statuses == [200, 429, 429, 429, 200, 200, 200, 429]


@contextmanager
def caller(platform: Platform, text: str) -> Iterator[None]:
    """Speaks to the platform with another token for a while."""
    own, platform.token = platform.token, text
    try:
        yield
    finally:
        platform.token = own


def refusal(platform: Platform, method: str, path: str, body: object) -> str:
    """The limit that a refusal names."""
    got = platform.request(method, f"/septet/v1{path}", json.dumps(body), {"Content-Type": "application/json"})
    assert got.status == 429, got.text
    assert got.json["type"] == "urn:septet:error:quota-exceeded"
    return str(got.json["limit"])


def test_a_tokens_quota_counts_what_it_applied_and_no_more(platform: Platform) -> None:
    limited = {"instances": 1, "functions": 2, "storage": 1}
    small = token(platform, "small", ["default"], ["*"], quota=limited)
    free = token(platform, "free", ["default"], ["*"])
    with caller(platform, small):
        platform.deploy("s", SLEEP, scale={"max": 4}, limits={"queue_timeout": 20})
    with caller(platform, free):
        platform.deploy("f", SLEEP, scale={"max": 4}, limits={"queue_timeout": 20})
    with ThreadPoolExecutor(8) as clients:
        calls = [clients.submit(platform.call, name, body=b"0.5") for name in "sf" for _ in range(4)]
        most = {"s": 0, "f": 0}
        while not all(call.done() for call in calls):
            for name in most:
                most[name] = max(most[name], len(platform.instances(name)))
        assert {call.result().status for call in calls} == {200}
    assert most["s"] == 1, "one instance is all that the token's functions may have"
    assert most["f"] > 1, "the other token's function is not held to it"
    with caller(platform, small):
        # What a token makes counts towards it too, so it cannot step around its quota.
        child = token(platform, "child", ["default"], ["functions:*", "blobs:*"], quota=limited)
    with caller(platform, child):
        platform.apply("two", ECHO)
        spec = {"spec": {"template": {"runtime": "python", "source": platform.source(ECHO)}}}
        assert refusal(platform, "PUT", "/namespaces/default/functions/three", spec) == "quota functions 2"
        got = platform.request("POST", "/septet/v1/namespaces/default/blobs", os.urandom(1024 * 1024))
        assert (got.status, got.json["limit"]) == (429, "quota storage 1 MiB")
    with caller(platform, free):
        platform.apply("three", ECHO)


def test_a_tokens_builds_wait_for_each_other(tmp_path: Path) -> None:
    slow = {**ECHO, "pyproject.toml": SLOW_BUILD, "setup.py": "import time\ntime.sleep(3)\n"}
    with Platform(tmp_path / "data") as platform:
        one = token(platform, "one", ["default"], ["*"], quota={"builds": 1})
        with caller(platform, one):
            platform.apply("a", {**slow, "a.txt": "a"})
            platform.apply("b", {**slow, "b.txt": "b"})
        # The watch has every change in order; two reads one after the other would mix two moments.
        link = platform.connection(timeout=120)
        path = "/septet/v1/watch?kinds=Revision&after=0"
        link.request("GET", path, headers={"Authorization": f"Bearer {platform.token}"})
        changes = link.getresponse()
        phases: dict[str, str] = {}
        most = 0
        while len(phases) < 2 or not set(phases.values()) <= {"ready", "failed"}:
            revision = json.loads(changes.readline())["object"]
            phases[revision["meta"]["name"]] = revision["status"]["phase"]
            most = max(most, list(phases.values()).count("building"))
        link.close()
        assert most == 1


def test_memory_of_all_instances_stays_below_the_budget(tmp_path: Path) -> None:
    with Platform(tmp_path / "data", "--memory-budget", "512") as platform:
        for name in ("a", "b"):
            platform.deploy(name, SLEEP, limits={"memory": 128, "queue_timeout": 20}, scale={"max": 4})
        most = 0
        stop = threading.Event()

        def watch() -> None:
            nonlocal most
            while not stop.is_set():
                most = max(most, platform.api("GET", "/node")["memory_used"])
                time.sleep(0.02)

        watcher = threading.Thread(target=watch)
        watcher.start()
        with ThreadPoolExecutor(16) as clients:
            answers = list(clients.map(lambda i: platform.call("ab"[i % 2], body=b"0.3"), range(32)))
        stop.set()
        watcher.join()
        assert {a.status for a in answers} == {200}
        assert 0 < most <= 512
        # Idle ones make room for a function that needs it.
        platform.deploy("big", ECHO, limits={"memory": 512})
        assert platform.call("big", body=b"x").body == b"x"


def test_a_full_node_says_memory(tmp_path: Path) -> None:
    with Platform(tmp_path / "data", "--memory-budget", "256") as platform:
        platform.deploy("one", SLEEP, limits={"memory": 256})
        platform.deploy("two", SLEEP, limits={"memory": 256})
        with ThreadPoolExecutor(2) as clients:
            long = clients.submit(platform.call, "one", body=b"6")
            time.sleep(1)
            refused = platform.call("two", body=b"0")
            assert refused.status == 503
            assert "memory" in refused.json["detail"]
            assert "retry-after" in refused.headers
            assert long.result().status == 200


def test_one_functions_queue_does_not_slow_another(platform: Platform) -> None:
    platform.deploy("flooded", SLEEP, scale={"max": 1}, limits={"queue": 10_000, "queue_timeout": 60})
    platform.deploy("calm", ECHO, scale={"min": 1, "max": 1})

    def p95() -> float:
        times = []
        for _ in range(60):
            began = time.monotonic()
            assert platform.call("calm", body=b"x").status == 200
            times.append(time.monotonic() - began)
        return sorted(times)[56]

    alone = p95()
    stop = threading.Event()

    def flood() -> None:
        links: list[http.client.HTTPConnection] = []
        while not stop.is_set() and len(links) < 150:
            link = platform.connection()
            link.request("POST", "/fn/default/flooded/", b"0.2", {"Authorization": f"Bearer {platform.token}"})
            links.append(link)
        stop.wait()
        for link in links:
            link.close()

    floods = [threading.Thread(target=flood) for _ in range(4)]
    for thread in floods:
        thread.start()
    time.sleep(1.5)
    crowded = p95()
    stop.set()
    for thread in floods:
        thread.join()
    assert crowded < max(2 * alone, alone + 0.05), (alone, crowded)


INNER = {
    "main.py": """
import json, os, urllib.request, urllib.error

def fetch(path, method="GET", token=None):
    request = urllib.request.Request(os.environ["SEPTET_GATEWAY"] + path, method=method)
    if token:
        request.add_header("Authorization", "Bearer " + token)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()

def handle(request, context):
    ask = request.json()
    token = None
    if ask.get("token"):
        token = open("/run/septet/token").read().strip()
    return list(fetch(ask["path"], token=token))
"""
}


def test_the_inner_gateway_serves_the_namespaces_own_functions(platform: Platform) -> None:
    platform.api("PUT", "/namespaces/other", {"spec": {}})
    platform.deploy("callee", {"main.py": "def handle(request, context):\n    return 'hi ' + request.path\n"})
    platform.deploy("hidden", ECHO, namespace="other")
    platform.deploy("caller", INNER, limits={"timeout": 20})

    def ask(path: str) -> tuple[int, str]:
        status, body = platform.call("caller", body=json.dumps({"path": path})).json
        return status, body

    assert ask("/fn/default/callee/x") == (200, "hi /x")
    assert ask("/fn/other/hidden/")[0] == 403
    assert ask("/septet/v1/namespaces/default/functions")[0] == 401
    assert ask("/septet/v1/tokens")[0] == 401


def test_a_granted_token_reaches_the_api_for_its_namespace(platform: Platform) -> None:
    platform.deploy("manager", INNER, platform=["functions:read"], limits={"timeout": 20})

    def ask(path: str) -> tuple[int, str]:
        status, body = platform.call("manager", body=json.dumps({"path": path, "token": True})).json
        return status, body

    status, body = ask("/septet/v1/namespaces/default/functions")
    assert status == 200
    assert "manager" in [item["meta"]["name"] for item in json.loads(body)["items"]]
    assert ask("/septet/v1/namespaces/other/functions")[0] in (403, 404)
    assert ask("/septet/v1/namespaces/default/secrets")[0] == 403
    assert ask("/septet/v1/tokens")[0] == 403


@pytest.mark.parametrize("path", ["/metrics", "/septet/v1/audit", "/septet/v1/node"])
def test_what_is_the_operators_needs_the_operators_token(platform: Platform, path: str) -> None:
    assert platform.request("GET", path, token=None).status == 401
    reader = token(platform, f"reader{path.replace('/', '-')}", ["default"], ["functions:*"])
    assert platform.request("GET", path, token=reader).status == 403
    assert platform.request("GET", path).status == 200


def test_logs_and_records_of_a_call(platform: Platform) -> None:
    source = {
        "main.py": "def handle(request, context):\n    print('line of', request.body.decode())\n    return 'ok'\n"
    }
    platform.deploy("chatty", source)
    got = platform.call("chatty", body=b"call-77")
    invocation = got.headers["septet-invocation-id"]
    path = f"/septet/v1/namespaces/default/functions/chatty/logs?invocation={invocation}"
    lines = [json.loads(line) for line in platform.request("GET", path).text.splitlines() if line]
    assert [line["text"] for line in lines] == ["line of call-77"]
    record = platform.api("GET", f"/namespaces/default/invocations/{invocation}")
    assert (record["status"], record["function"], record["revision"]) == (200, "chatty", "chatty-00001")
    metrics = platform.request("GET", "/metrics").text
    assert 'faas_invocations_total{function="chatty",namespace="default"' in metrics


def test_the_audit_log_says_who_did_what(platform: Platform) -> None:
    platform.deploy("audited", ECHO)
    entries = platform.api("GET", "/audit?limit=50")["items"]
    mine = [e for e in entries if e["name"] == "audited"]
    assert mine[-1]["who"] == "admin"
    assert mine[-1]["outcome"] == "ok"
    assert mine[-1]["remote"] == "127.0.0.1"


def test_a_listener_may_take_calls_without_a_token(tmp_path: Path) -> None:
    with Platform(tmp_path / "data", "--listener", "open,address=127.0.0.1:0,anonymous=default") as platform:
        platform.api("PUT", "/namespaces/closed", {"spec": {}})
        platform.deploy("f", ECHO)
        platform.deploy("f", ECHO, namespace="closed")
        assert platform.call("f", body=b"x", token=None).status == 401
        platform.url = platform.listeners["open"]
        assert platform.call("f", body=b"x", token=None).body == b"x"
        assert platform.call("f", body=b"x", namespace="closed", token=None).status == 401
        assert platform.request("GET", "/septet/v1/namespaces", token=None).status == 401


def test_a_listener_for_strangers_is_refused_off_the_loopback(tmp_path: Path) -> None:
    platform = Platform(tmp_path / "data", "--listener", "open,address=0.0.0.0:0,anonymous=default")
    with pytest.raises(AssertionError, match="loopback"):
        platform.start()
