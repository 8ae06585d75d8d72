"""Keep-alive in the real program: frozen after the last call, thawed by the next, gone when it may not stay."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from septet_platform import Platform

WHO = {
    "main.py": "import os, threading, time\n\nticks = 0\n\n\ndef count():\n    global ticks\n    while True:\n"
    "        ticks += 1\n        time.sleep(0.01)\n\n\nthreading.Thread(target=count, daemon=True).start()\n"
    "ME = os.urandom(8).hex()\n\n\ndef handle(request, context):\n    return {'me': ME, 'ticks': ticks}\n"
}
"""Tells who it is, and counts as long as it runs."""
QUICK_ZERO = {"window": 6.0, "grace": 0.5}


def wait_for(what: str, condition: Callable[[], bool], timeout: float = 60) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"{what} did not come true in {timeout} s"
        time.sleep(0.05)


def states(platform: Platform, name: str) -> list[str]:
    return [instance["state"] for instance in platform.instances(name)]


def metric(platform: Platform, line: str) -> float:
    text = platform.request("GET", "/metrics").text
    found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that keeps what the function does not say otherwise."""
    data = tmp_path_factory.mktemp("keeping") / "data"
    with Platform(data, "--keep-alive", "10m") as running:
        yield running
    assert running.process is not None and running.process.returncode == 0, running.log.read_text()[-4000:]


def test_after_its_last_call_it_is_frozen_and_the_next_call_finds_the_same_process(keeping: Platform) -> None:
    keeping.deploy("kept", WHO, scale=QUICK_ZERO)
    before = keeping.call("kept").json
    wait_for("frozen", lambda: states(keeping, "kept") == ["frozen"])
    summary = keeping.api("GET", "/namespaces/default/functions/kept/summary")
    assert summary["frozen"] == 1 and summary["callable"] is True
    assert summary["answer"].startswith("yes, frozen")
    assert metric(keeping, 'septet_instances{function="kept",namespace="default",state="frozen"}') == 1
    thaws = metric(keeping, "septet_thaws_total")
    after = keeping.call("kept").json
    assert after["me"] == before["me"]
    assert metric(keeping, "septet_thaws_total") == thaws + 1

    # It takes no step while it is frozen: a tick takes at least ten milliseconds of its running.
    begun = time.monotonic()
    wait_for("frozen again", lambda: states(keeping, "kept") == ["frozen"])
    ran = time.monotonic() - begun
    time.sleep(ran)
    last = keeping.call("kept").json
    assert last["me"] == before["me"]
    assert after["ticks"] < last["ticks"] <= after["ticks"] + 100 * (1.5 * ran + 1)


def test_with_keep_alive_zero_it_is_gone_whatever_the_platform_says(keeping: Platform) -> None:
    keeping.deploy("brief", WHO, scale={**QUICK_ZERO, "keep_alive": 0})
    before = keeping.call("brief").json
    wait_for("no instance", lambda: not platform_has(keeping, "brief"))
    assert keeping.call("brief").json["me"] != before["me"]


def platform_has(platform: Platform, name: str) -> bool:
    found = states(platform, name)
    assert "frozen" not in found
    return bool(found)


def test_it_goes_when_its_time_is_over(keeping: Platform) -> None:
    keeping.deploy("short", WHO, scale={**QUICK_ZERO, "keep_alive": 20})
    keeping.call("short")
    wait_for("frozen", lambda: states(keeping, "short") == ["frozen"])
    wait_for("no instance", lambda: not keeping.instances("short"))


def test_scale_sets_it_and_a_new_revision_lets_the_old_one_go(keeping: Platform) -> None:
    keeping.deploy("changed", WHO, scale=QUICK_ZERO)
    keeping.call("changed")
    wait_for("frozen", lambda: states(keeping, "changed") == ["frozen"])
    keeping.api("PUT", "/namespaces/default/functions/changed/scale", {"keep_alive": 0})
    function = keeping.wait_ready("changed")
    assert function["spec"]["template"]["scale"]["keep_alive"] == 0
    wait_for("no instance", lambda: not keeping.instances("changed"))


def test_memory_that_is_needed_takes_the_frozen_one(tmp_path: Path) -> None:
    with Platform(tmp_path / "data", "--memory-budget", "256", "--keep-alive", "600") as platform:
        platform.deploy("first", WHO, scale=QUICK_ZERO, limits={"memory": 256})
        platform.call("first")
        wait_for("frozen", lambda: states(platform, "first") == ["frozen"])
        platform.deploy("second", WHO, limits={"memory": 256})
        assert platform.call("second").status == 200
        assert not platform.instances("first")


def test_by_default_nothing_is_kept(tmp_path: Path) -> None:
    with Platform(tmp_path / "data") as platform:
        platform.deploy("plain", WHO, scale=QUICK_ZERO)
        platform.call("plain")
        wait_for("no instance", lambda: not platform_has(platform, "plain"))


def test_a_killed_platform_leaves_no_frozen_process(tmp_path: Path) -> None:
    platform = Platform(tmp_path / "data", "--keep-alive", "600").start()
    try:
        platform.deploy("mortal", WHO, scale=QUICK_ZERO, env={"MARK": "keep-alive-mark-51c2"})
        platform.call("mortal")
        wait_for("frozen", lambda: states(platform, "mortal") == ["frozen"])
        assert marked()
        platform.kill()
        wait_for("no process", lambda: not marked())
    finally:
        if platform.process and platform.process.poll() is None:
            platform.stop()


def marked() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if b"keep-alive-mark-51c2" in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
