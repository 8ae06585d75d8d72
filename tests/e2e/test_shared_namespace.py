"""Isolation class shared-namespace on a real platform: to zero and back; a function's zygote, with keep-alive alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from septet_platform import Platform

pytestmark = pytest.mark.root

HANDLER = """
import os, random, time
loaded = os.getpid(), time.monotonic()

def handle(request, context):
    time.sleep(float(request.query.get("hold", 0)))
    return {"loaded": loaded[0], "pid": os.getpid(), "random": random.random(), "instance": context.instance}
"""
SOON = {"window": 6.0, "grace": 0.0, "max": 3}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("sets") / "data", "--shared-namespace", "default") as running:
        yield running


def until(condition: Callable[[], object], what: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"within {seconds:g} s it was not so that {what}"
        time.sleep(0.05)


def summary(platform: Platform, name: str) -> Any:
    return platform.api("GET", f"/namespaces/default/functions/{name}/summary")


def memory(platform: Platform) -> int:
    return int(platform.api("GET", "/node")["memory_used"])


def test_a_zygote_is_there_with_keep_alive_alone(platform: Platform) -> None:
    """Both functions in one test: the way to zero takes its time, and they go it together."""
    kept = {**SOON, "keep_alive": 3600.0}
    platform.deploy("plain", {"main.py": HANDLER}, isolation="shared-namespace", scale=SOON)
    platform.deploy("kept", {"main.py": HANDLER}, isolation="shared-namespace", scale=kept, limits={"memory": 100})
    first = platform.call("plain").json
    assert first["loaded"] == first["pid"]
    until(lambda: summary(platform, "kept")["zygotes"] == 1, "its zygote is able", 20)
    assert summary(platform, "plain")["zygotes"] == 0
    assert memory(platform) >= 128 + 2 * 100, "two instances and the zygote"
    answers: list[Any] = []

    def call() -> None:
        answers.append(platform.call("kept", "/?hold=1.5").json)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    forks = [answer for answer in answers if answer["loaded"] != answer["pid"]]
    assert forks, answers
    assert len({answer["loaded"] for answer in forks}) == 1
    assert len({answer["random"] for answer in answers}) == 3
    assert 'septet_cold_starts_total{tier="function-zygote"}' in platform.request("GET", "/metrics").text
    platform.api("PUT", "/namespaces/default/functions/kept/scale", {"keep_alive": 0})
    until(lambda: summary(platform, "kept")["zygotes"] == 0, "the zygote is gone", 30)
    until(lambda: memory(platform) == 0, "everything is at zero", 40)
    assert platform.call("plain").json["instance"] != first["instance"]


def test_a_function_that_cannot_be_forked_says_so_and_serves(platform: Platform) -> None:
    source = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    source += HANDLER
    scale = {**SOON, "keep_alive": 3600.0}
    platform.deploy("unfit", {"main.py": source}, isolation="shared-namespace", scale=scale)
    assert platform.call("unfit").status == 200
    until(lambda: "it starts a thread" in logs(platform, "unfit"), "the log says why", 20)
    assert summary(platform, "unfit")["zygotes"] == 0


def logs(platform: Platform, name: str) -> str:
    return platform.request("GET", f"/septet/v1/namespaces/default/functions/{name}/logs").text
