"""Which freezer a host offers, told by its mounts alone, and the fallbacks that this host may not need."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from septet.drivers.sandbox.process import freeze
from septet.drivers.sandbox.process.freeze import Freezer, SignalIce
from septet.drivers.sandbox.process.supervise import descendants, measure

SPIN = "import os\nif os.fork():\n    os.waitpid(-1, 0)\nos.fork()\nwhile True: pass"


@pytest.fixture
def spinner() -> Iterator[int]:
    """A process that waits for two that never rest."""
    process = subprocess.Popen([sys.executable, "-c", SPIN], start_new_session=True)
    yield process.pid
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def used(first: int) -> float:

    return measure(first, 1 << 40).cpu_seconds


async def rests(first: int) -> bool:
    before = used(first)
    await asyncio.sleep(0.3)
    return used(first) - before <= 0.02


async def below(first: int, count: int) -> None:
    end = time.monotonic() + 10
    while len(descendants(first)) <= count:
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def test_signals_stop_everything_below_the_first_process(spinner: int) -> None:
    await below(spinner, 2)
    ice = SignalIce(lambda: descendants(spinner)[1:])
    await ice.freeze()
    assert await rests(spinner)
    ice.thaw()
    assert not await rests(spinner)


@pytest.mark.root
async def test_version_1_holds_the_dead_until_it_is_thawed(spinner: int) -> None:
    mounts, own = Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text()
    only_one = "\n".join(line for line in mounts.splitlines() if " - cgroup2 " not in line)
    freezer = Freezer(only_one, own, f"test-{os.getpid()}")
    freezer.open()
    if freezer.kind() != "cgroup v1":
        pytest.skip("this host has no version 1 freezer that can be written to")
    await below(spinner, 2)
    ice = freezer.make("one", None, lambda: descendants(spinner)[1:])
    warden = freezer._warden
    assert warden is not None
    try:
        await ice.freeze()
        assert await rests(spinner)
        held = descendants(spinner)[1:]
        os.kill(held[-1], signal.SIGKILL)
        # What a killed platform leaves: its end of the warden's input closes, and what could not die, dies.
        assert warden.stdin is not None
        warden.stdin.close()
        warden.wait(5)
        assert await gone(held[-1])
    finally:
        ice.thaw()
        for pid in descendants(spinner)[1:]:
            os.kill(pid, signal.SIGKILL)
        await freeze.release(ice)
        freezer.close()
    assert not [base for base in freezer.bases() if Path(base).exists()]


async def gone(pid: int) -> bool:
    end = time.monotonic() + 5
    while (state := freeze._state(pid)) not in ("X", "Z"):
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.01)
    return bool(state)


MOUNT = "31 23 0:28 / {point} rw,relatime - {kind} {kind} rw{options}"


@pytest.mark.parametrize(
    ("mount", "own", "version", "wanted"),
    [
        (("cgroup2", ""), "0::/platform", 2, "platform/septet-k"),
        (("cgroup", ",freezer"), "6:freezer:/platform", 1, "platform/septet-k"),
        (("cgroup", ",memory"), "6:memory:/platform", 1, None),
        (("cgroup", ",freezer"), "6:freezer:/elsewhere", 1, "septet-k"),
    ],
)
def test_where_groups_belong(
    mount: tuple[str, str], own: str, version: int, wanted: str | None, tmp_path: Path
) -> None:
    (tmp_path / "platform").mkdir()
    line = MOUNT.format(point=tmp_path, kind=mount[0], options=mount[1])
    found = freeze._hierarchy(line, own, version, "k")
    assert found == (None if wanted is None else tmp_path / wanted)


def test_without_groups_it_is_signals() -> None:
    freezer = Freezer("", "", "k")
    freezer.open()
    assert (freezer.kind(), freezer.bases()) == ("signals", [])
    processes: Callable[[], list[int]] = list
    assert isinstance(freezer.make("one", None, processes), SignalIce)
