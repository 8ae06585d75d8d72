"""Every clause of the clock port (`septet/ports/clock.py`), for every driver and for clocks broken on purpose."""

from __future__ import annotations

import asyncio
import inspect
import re
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

import septet.ports.clock
from septet.drivers.clock.system import SystemClock
from septet.ports.clock import Clock

Check = Callable[[Clock], Awaitable[None]]


async def now_never_goes_back(clock: Clock) -> None:
    """clock.1: not from call to call, not between threads, not across a sleep."""
    seen = [clock.now() for _ in range(5000)]
    assert seen == sorted(seen)
    for _ in range(20):
        found: list[float] = []
        thread = threading.Thread(target=lambda found=found: found.append(clock.now()))
        before = clock.now()
        thread.start()
        thread.join()
        assert before <= found[0] <= clock.now()
    before = clock.now()
    await asyncio.sleep(0.01)
    assert clock.now() > before


async def now_does_not_follow_the_wall(clock: Clock) -> None:
    """clock.1: when somebody sets the host's wall clock back, durations stay what they are."""
    before = clock.now()
    real = time.time
    time.time = lambda: real() - 3600.0
    try:
        assert before <= clock.now() < before + 60
    finally:
        time.time = real


async def wall_is_seconds_since_the_epoch(clock: Clock) -> None:
    """clock.2: as another program on this host says it."""
    before = clock.wall()
    said = float(subprocess.run(["date", "+%s.%N"], check=True, capture_output=True, text=True).stdout)
    after = clock.wall()
    # The system's coarse clock, which some calls use, may be a tick (10 ms at most) behind.
    assert before - 0.02 <= said <= after + 0.02


async def sleep_takes_its_time(clock: Clock) -> None:
    """What the docstring of `sleep` says, by `now`: durations and sleeping agree."""
    for _ in range(3):
        before = clock.now()
        await clock.sleep(0.05)
        # An event loop may wake up to a tick of its timers early.
        assert clock.now() - before >= 0.045


async def sleep_ends_when_it_is_cancelled(clock: Clock) -> None:
    sleeping = asyncio.ensure_future(clock.sleep(60))
    await asyncio.sleep(0)
    sleeping.cancel()
    await asyncio.wait([sleeping], timeout=2)
    assert sleeping.done() and sleeping.cancelled()


CHECKS: dict[Check, str] = {
    now_never_goes_back: "clock.1",
    now_does_not_follow_the_wall: "clock.1",
    wall_is_seconds_since_the_epoch: "clock.2",
    sleep_takes_its_time: "",
    sleep_ends_when_it_is_cancelled: "",
}


@pytest.mark.parametrize("make", [SystemClock])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_clause(check: Check, make: type[Clock]) -> None:
    await check(make())


def test_every_clause_of_the_port_has_a_test() -> None:
    written = set(re.findall(r"clock\.\d+", inspect.getsource(septet.ports.clock)))
    assert written == set(CHECKS.values()) - {""}


# -- the suite can fail


class GoesBack(SystemClock):
    calls = 0

    def now(self) -> float:
        self.calls += 1
        return super().now() - (1.0 if self.calls % 1000 == 0 else 0.0)


class FollowsTheWall(SystemClock):
    def now(self) -> float:
        return time.time()


class CountsFromTheStart(SystemClock):
    def wall(self) -> float:
        return time.monotonic()


class Hurries(SystemClock):
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 10)


class SleepsOn(SystemClock):
    async def sleep(self, seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            return


BROKEN: dict[Check, type[Clock]] = {
    now_never_goes_back: GoesBack,
    now_does_not_follow_the_wall: FollowsTheWall,
    wall_is_seconds_since_the_epoch: CountsFromTheStart,
    sleep_takes_its_time: Hurries,
    sleep_ends_when_it_is_cancelled: SleepsOn,
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_a_broken_clock_fails(check: Check) -> None:
    with pytest.raises(AssertionError):
        await check(BROKEN[check]())
