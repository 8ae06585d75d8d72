"""Keep-alive windows from idle times, and which instances are one too many."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from septet.policy import keepalive
from septet.policy.keepalive import BIN, BINS, FADE, IdleTimes, Windows, observe, windows

FIXED = 600.0
RANGE = BIN * BINS

idle_times = st.lists(st.floats(0, 2 * RANGE, allow_nan=False), max_size=200)


def learnt(idle: list[float]) -> IdleTimes:
    """As production does: one after the other."""
    memory = IdleTimes()
    for seconds in idle:
        memory = observe(memory, (seconds,))
    return memory


def test_without_enough_idle_times_the_fixed_one_decides() -> None:
    assert windows(IdleTimes(), FIXED) == Windows(0, FIXED)
    assert windows(learnt([1200.0] * (keepalive.LEAST - 1)), FIXED) == Windows(0, FIXED)
    assert windows(IdleTimes(), 0.0).end == 0


def test_timer_is_expected_shortly_before_it_comes() -> None:
    got = windows(learnt([1230.0] * 20), FIXED)
    assert 1000 < got.prewarm < 1230 < got.end < 1450


def test_short_idle_times_keep_the_instance_and_let_go_soon() -> None:
    got = windows(learnt(([20.0] * 9 + [100.0]) * 10), FIXED)
    assert got.prewarm == 0
    assert 120 <= got.keep <= 140


def test_rare_function_gets_the_fixed_one() -> None:
    assert windows(learnt([RANGE * 2] * 30 + [60.0] * 20), FIXED) == Windows(0, FIXED)
    assert windows(learnt([RANGE * 2] * 20 + [60.0] * 30), FIXED) != Windows(0, FIXED)


def test_flat_histogram_says_nothing() -> None:
    flat = [BIN * number + 1 for number in range(BINS)] * 3
    assert windows(learnt(flat), FIXED) == Windows(0, FIXED)


def test_what_was_long_ago_fades() -> None:
    memory = learnt([3000.0] * FADE)
    assert windows(memory, FIXED).prewarm > 2000
    for _ in range(5 * FADE):
        memory = observe(memory, (30.0,))
    assert windows(memory, FIXED).prewarm == 0
    assert windows(memory, FIXED).keep < 120
    assert memory.total <= FADE


@given(idle_times)
def test_windows_are_bounded(idle: list[float]) -> None:
    got = windows(learnt(idle), FIXED)
    assert 0 <= got.prewarm < RANGE
    assert got.keep > 0
    assert got == Windows(0, FIXED) or got.end <= RANGE * (1 + keepalive.MARGIN) + 1e-6


@given(st.lists(st.floats(0, RANGE - 1), min_size=keepalive.LEAST, max_size=200))
def test_nineteen_of_twenty_idle_times_fall_into_a_histograms_windows(idle: list[float]) -> None:
    memory = observe(IdleTimes(), idle)
    got = windows(memory, FIXED)
    if got != Windows(0, FIXED):
        inside = sum(1 for seconds in idle if got.prewarm <= seconds <= got.end)
        assert inside >= math.floor(0.94 * len(idle)) - 1


@given(idle_times)
def test_order_within_what_was_looked_at_does_not_matter(idle: list[float]) -> None:
    assert observe(IdleTimes(), idle) == observe(IdleTimes(), sorted(idle))


@given(idle_times, st.randoms(use_true_random=False))
def test_many_at_once_are_the_same_as_one_after_the_other(idle: list[float], choice: random.Random) -> None:
    memory = IdleTimes()
    rest = list(idle)
    while rest:
        take = choice.randint(1, memory.due - memory.total)
        memory = observe(memory, rest[:take])
        rest = rest[take:]
    assert memory == learnt(idle)


@given(st.integers(0, 300), st.lists(st.floats(0, RANGE), max_size=20))
def test_brief_ones_are_those_below_a_bin(brief: int, idle: list[float]) -> None:
    assert observe(IdleTimes(), idle, brief) == observe(IdleTimes(), [*idle, *([1.0] * brief)])


@given(idle_times)
def test_memory_is_not_changed_and_counts_all(idle: list[float]) -> None:
    memory = learnt(idle)
    before = dict(memory.bins)
    after = observe(memory, (59.9, RANGE))
    assert memory.bins == before
    assert after.total == len(idle) + 2 == sum(after.bins.values()) + after.beyond


def test_surplus_goes_starting_first_then_the_longest_idle_then_the_least_busy() -> None:
    candidate = keepalive.Candidate
    all_of = [
        candidate("busy", True, running=3),
        candidate("idle", True, idle_since=5.0),
        candidate("longest", True, idle_since=1.0),
        candidate("starting", False),
    ]
    assert keepalive.surplus(all_of, 0) == ("starting", "longest", "idle", "busy")
    assert keepalive.surplus(all_of, 2) == ("starting", "longest")
    assert keepalive.surplus(all_of, 9) == ()
