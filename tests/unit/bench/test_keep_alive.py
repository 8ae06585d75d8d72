"""The keep-alive simulator counts many gaps at once: it must come to what one gap after the other comes to."""

from __future__ import annotations

import importlib.util
import math
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from septet.policy import keepalive
from septet.policy.keepalive import IdleTimes, Windows


def load() -> Any:
    path = Path(__file__).parents[3] / "bench" / "keep_alive.py"
    spec = importlib.util.spec_from_file_location("bench_keep_alive", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


bench = load()
LENGTH = 400 * 3600.0


@pytest.mark.parametrize("mean", [10.0, 40.0, 120.0, 900.0, 20_000.0])
def test_random_calls_are_cold_as_often_as_theory_says(mean: float) -> None:
    choice = random.Random(5)
    kept = [60.0, 600.0, 3600.0]
    calls = 0
    cold = [0] * len(kept)
    for _ in range(8):
        results = bench.replay(bench._random(choice, mean), LENGTH, kept, choice)
        calls += results[0][0]
        cold = [total + result[1] for total, result in zip(cold, results, strict=False)]
    assert calls == pytest.approx(8 * LENGTH / mean, rel=0.1)
    for seconds, missed in zip(kept, cold, strict=True):
        expected = calls * math.exp(-seconds / mean)
        assert missed == pytest.approx(expected, rel=0.1, abs=4 * math.sqrt(expected) + 1)


def test_bursts_have_the_mean_that_they_were_asked_for() -> None:
    choice = random.Random(6)
    calls = sum(bench.replay(bench._bursts(choice, 600.0), LENGTH, [600.0], choice)[0][0] for _ in range(30))
    assert calls == pytest.approx(30 * LENGTH / 600.0, rel=0.15)


def test_a_timer_costs_the_histogram_next_to_nothing_and_is_warm() -> None:
    choice = random.Random(7)
    pattern = bench.Pattern(10.0, 1.0, 0.0, 0.0, 0.0, lambda: 1800.0)
    (calls, cold, held), (same, missed, waited) = bench.replay(pattern, 100 * 3600.0, [600.0], choice)
    assert calls == same == 199
    assert cold == 199 and held == 600.0 * 199 + 600.0
    assert missed <= keepalive.LEAST + 2
    assert waited < held


def test_batches_are_one_gap_after_the_other() -> None:
    choice = random.Random(8)
    gaps = [choice.expovariate(1 / 700) + 60 for _ in range(2000)]
    rest = iter(gaps)
    pattern = bench.Pattern(0.0, 1.0, 0.0, 0.0, 0.0, lambda: next(rest))
    length = sum(gaps[:1500]) - 1.0
    _, (calls, cold, held) = bench.replay(pattern, length, [600.0], choice)
    memory = IdleTimes()
    expected = 0
    waited = 0.0
    for seconds in gaps[:1499]:
        wanted: Windows = keepalive.windows(memory, keepalive.STANDARD)
        expected += not wanted.prewarm <= seconds <= wanted.end
        waited += max(0.0, min(seconds, wanted.end) - wanted.prewarm)
        memory = keepalive.observe(memory, (seconds,))
    wanted = keepalive.windows(memory, keepalive.STANDARD)
    waited += max(0.0, min(gaps[1499] - 1.0, wanted.end) - wanted.prewarm)
    assert (calls, cold) == (1499, expected)
    assert held == pytest.approx(waited)


def test_trace_has_the_published_rates() -> None:
    choice = random.Random(9)
    calls = [bench.replay(bench.draw(choice), 24 * 3600.0, [600.0], choice)[0][0] for _ in range(1500)]
    hourly = sum(count <= 24 for count in calls) / len(calls)
    minutely = sum(count <= 1440 for count in calls) / len(calls)
    assert 0.35 < hourly < 0.6
    assert 0.75 < minutely < 0.9
