"""Minutes of load, replayed without sleeping: the time is an argument."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from septet.model.errors import InvalidInput
from septet.model.function import Scale
from septet.policy import autoscale
from septet.policy.autoscale import Decision, Facts, Memory, Settings


class Point(NamedTuple):
    at: float
    ready: int
    desired: int
    panicking: bool
    panic_since: float | None


def replay(
    load: Callable[[float], float],
    seconds: float,
    scale: Scale,
    *,
    concurrency: int = 0,
    ready: int = 1,
    lag: float = 0.0,
    tick: float = 2.0,
    facts: Facts | None = None,
    begin: float = 1000.0,
) -> list[Point]:
    """Ticks with the mean `load(t)`; instances appear `lag` seconds after they were wanted, and go at once."""
    settings = autoscale.settings_of(scale, concurrency)
    memory = autoscale.start(settings, ready, begin)
    base = facts or Facts(ready)
    points: list[Point] = []
    coming: list[tuple[float, int]] = []
    for step in range(1, int(seconds / tick) + 1):
        t = step * tick
        ready = max([ready, *(count for due, count in coming if due <= t)])
        coming = [(due, count) for due, count in coming if due > t]
        memory = autoscale.observe(load(t - tick / 2), memory, begin + t)
        busy = math.ceil(load(t))
        decision, memory = autoscale.decide(base._replace(ready=ready, running=busy), settings, memory, begin + t)
        points.append(Point(t, ready, decision.desired, decision.panicking, memory.panic_since))
        if decision.desired > ready and lag:
            coming.append((t + lag, decision.desired))
        else:
            ready = decision.desired
    return points


def desired(points: list[Point], at: float) -> int:
    return next(point.desired for point in points if point.at == at)


# -- rows of the conformance table


def test_concurrency_target_ten_under_fifty_gives_seven_or_eight_instances_within_ten_seconds() -> None:
    points = replay(lambda t: 50.0, 60, Scale(target=10))
    assert desired(points, 10) in (7, 8)
    assert desired(points, 60) == 8


def test_rate_of_350_with_target_fifty_gives_ten_instances() -> None:
    points = replay(lambda t: 350.0, 60, Scale(policy="rps", target=50))
    assert desired(points, 60) == 10


def test_step_from_one_to_hundred_gives_fourteen_within_eight_seconds_and_keeps_them_a_minute() -> None:
    points = replay(lambda t: 1.0 if t < 60 else 100.0 if t < 90 else 1.0, 400, Scale(target=10), lag=1.0)
    assert desired(points, 60) == 1
    assert desired(points, 68) >= 14
    assert any(point.panicking for point in points if 60 < point.at <= 64)
    over = max(point.panic_since for point in points if point.panic_since is not None)
    assert 60 < over - 1000 <= 68, "the last tick over the threshold"
    held = [point.desired for point in points if 60 <= point.at <= over - 1000 + 60]
    assert held == sorted(held), "none goes within a stable window after it"
    assert held[-1] == max(point.desired for point in points) == 15
    assert points[-1].desired == 1
    assert not points[-1].panicking


def test_when_load_stops_at_most_half_goes_in_a_tick() -> None:
    points = replay(lambda t: 700.0 if t < 100 else 0.0, 400, Scale(target=10))
    assert desired(points, 100) == 100
    falling = [(p.ready, p.desired) for p in points if p.at > 100]
    assert all(after >= before // 2 for before, after in falling)
    assert points[-1].desired == 0


def test_up_rate_bounds_the_first_step() -> None:
    points = replay(lambda t: 1000.0, 2, Scale(target=1, max_up_rate=10))
    assert points[0].desired == 10


def test_idle_function_goes_to_zero_after_window_and_grace() -> None:
    points = replay(lambda t: 5.0 if t < 30 else 0.0, 200, Scale(grace=30))
    zero = next(point.at for point in points if point.desired == 0)
    assert 30 + 60 + 30 - 2 <= zero <= 30 + 60 + 30 + 4


def test_last_instance_stays_while_it_was_active_for_less_than_a_window() -> None:
    settings = autoscale.settings_of(Scale(window=60, grace=0), 0)
    memory = autoscale.start(settings, 1, 1000.0)
    memory = autoscale.observe(0.0, memory, 1010.0)
    decision, _ = autoscale.decide(Facts(1), settings, memory, 1010.0)
    assert decision == Decision(1, "window", False)


def test_minimum_and_maximum_hold() -> None:
    points = replay(lambda t: 1000.0 if t < 50 else 0.0, 300, Scale(min=2, max=5, target=10))
    assert max(point.desired for point in points) == 5
    assert min(point.desired for point in points) == 2


def test_unreachable_revision_has_no_minimum_and_falls_without_a_rate() -> None:
    points = replay(lambda t: 0.0, 200, Scale(min=3), ready=10, facts=Facts(10, reachable=False), tick=2.0)
    assert points[-1].desired == 0
    restarted = [point for point in points if point.panicking]
    assert restarted and all(point.desired == 10 for point in restarted), "a restart takes none away at first"
    assert next(point for point in points if not point.panicking).desired <= 1


def test_new_revision_has_its_initial_scale_until_it_was_reached() -> None:
    points = replay(lambda t: 0.0, 100, Scale(initial=3), ready=0, facts=Facts(0, initialised=False))
    assert {point.desired for point in points} == {3}
    points = replay(lambda t: 0.0, 10, Scale(initial=0), ready=0, facts=Facts(0, initialised=False))
    assert {point.desired for point in points} == {1}, "a new revision has to show that it starts"


def test_down_delay_keeps_the_most_that_was_wanted() -> None:
    scale = Scale(target=10, window=10, down_delay=60, panic_threshold_percent=1000)
    points = replay(lambda t: 70.0 if t < 20 else 0.0, 200, scale)
    assert desired(points, 20) == 10
    assert all(p.desired == 10 for p in points if 20 <= p.at < 80)
    assert desired(points, 110) < 10


def test_fixed_policy_looks_at_no_load() -> None:
    points = replay(lambda t: 1000.0 if t < 30 else 0.0, 200, Scale(policy="fixed", min=3))
    assert {point.desired for point in points} == {3}
    points = replay(lambda t: 1000.0, 20, Scale(policy="fixed"), facts=Facts(1, reachable=False))
    assert {point.desired for point in points} == {0}


# -- settings


def test_defaults_are_those_of_the_table() -> None:
    settings = autoscale.settings_of(Scale(), 0)
    assert settings.total == 100.0
    assert settings.target == pytest.approx(70.0)
    assert (settings.window, settings.panic_window, settings.panic_threshold) == (60, 6, 2.0)
    assert (settings.max_up_rate, settings.max_down_rate, settings.grace) == (1000.0, 2.0, 30.0)
    assert autoscale.settings_of(Scale(policy="rps"), 0).target == pytest.approx(140.0)


def test_hard_concurrency_is_the_total_and_caps_the_target() -> None:
    assert autoscale.settings_of(Scale(), 10).target == pytest.approx(7.0)
    assert autoscale.settings_of(Scale(target=50), 10).target == pytest.approx(7.0)
    assert autoscale.settings_of(Scale(target=5), 10).target == pytest.approx(3.5)
    assert autoscale.settings_of(Scale(policy="rps", target=50), 10).target == pytest.approx(35.0)
    assert autoscale.settings_of(Scale(target=0.001), 0).target == 0.01
    assert autoscale.settings_of(Scale(), -1).total == 100.0


def test_panic_window_is_whole_seconds_and_at_least_one() -> None:
    assert autoscale.settings_of(Scale(window=6), 0).panic_window == 1
    assert autoscale.settings_of(Scale(window=25), 0).panic_window == 2


def test_unknown_policy_is_refused_with_the_choices() -> None:
    with pytest.raises(InvalidInput, match="concurrency, fixed, rps"):
        autoscale.settings_of(Scale(policy="magic"), 0)


# -- observing


def test_observations_shorter_than_a_second_are_weighed_by_their_length() -> None:
    settings = autoscale.settings_of(Scale(), 0)
    memory = autoscale.start(settings, 0, 100.0)
    for load, at in ((10.0, 100.25), (0.0, 100.75), (40.0, 101.0)):
        memory = autoscale.observe(load, memory, at)
    assert memory.stable.buckets == (12.5,)


@given(st.lists(st.tuples(st.floats(0.001, 5), st.floats(0, 1000)), min_size=1, max_size=40))
def test_seconds_are_filled_without_a_gap_and_means_are_kept(samples: list[tuple[float, float]]) -> None:
    memory = autoscale.start(autoscale.settings_of(Scale(window=600), 0), 0, 100.0)
    now = 100.0
    for span, load in samples:
        now += span
        memory = autoscale.observe(load, memory, now)
    assert len(memory.stable.buckets) == math.floor(now) - 100
    if memory.stable.buckets:
        assert memory.stable.last == math.floor(now)
        assert max(memory.stable.buckets) <= max(load for _, load in samples) + 1e-6
        assert min(memory.stable.buckets) >= min(load for _, load in samples) - 1e-6


# -- calls that wait


def activated(facts: Facts, scale: Scale, concurrency: int = 1, step: int = 4, before: int = -1) -> tuple[int, Memory]:
    settings = autoscale.settings_of(scale, concurrency)
    memory = autoscale.start(settings, facts.ready, 100.0)._replace(desired=before)
    decision, memory = autoscale.activate(facts, settings, memory, 100.0, step)
    return decision.desired, memory


def test_first_call_at_zero_wakes_one_instance() -> None:
    assert activated(Facts(0, waiting=1), Scale())[0] == 1


def test_many_calls_at_zero_wake_no_more_than_the_step_and_the_maximum() -> None:
    assert activated(Facts(0, waiting=200), Scale())[0] == 4
    assert activated(Facts(0, waiting=200), Scale(max=2))[0] == 2
    assert activated(Facts(0, waiting=200), Scale(), concurrency=100)[0] == 2
    assert activated(Facts(0, waiting=200), Scale(), concurrency=0)[0] == 1, "without a hard limit one has room"


def test_calls_beyond_the_room_start_more_while_no_more_than_the_step_start() -> None:
    assert activated(Facts(4, running=4, waiting=10), Scale())[0] == 8
    assert activated(Facts(4, starting=3, running=4, waiting=10), Scale())[0] == 8
    assert activated(Facts(4, starting=4, running=4, waiting=10), Scale())[0] == 8
    assert activated(Facts(4, running=4, waiting=1), Scale())[0] == 5


def test_nobody_waiting_changes_nothing() -> None:
    wanted, memory = activated(Facts(1, running=1), Scale(), before=1)
    assert wanted == 1 and memory.panic_since is None


def test_next_tick_does_not_take_back_what_waiting_calls_started() -> None:
    settings = autoscale.settings_of(Scale(), 1)
    memory = autoscale.start(settings, 0, 100.0)
    decision, memory = autoscale.activate(Facts(0, waiting=200), settings, memory, 100.0, 4)
    memory = autoscale.observe(0.5, memory, 102.0)
    decision, memory = autoscale.decide(Facts(4, running=1), settings, memory, 102.0)
    assert decision.desired == 4 and decision.panicking


# -- properties

scales = st.builds(
    Scale,
    min=st.integers(0, 5),
    max=st.integers(5, 50),
    initial=st.integers(0, 5),
    policy=st.sampled_from(["concurrency", "rps", "fixed"]),
    target=st.floats(0, 100),
    window=st.floats(6, 120),
    down_delay=st.floats(0, 60),
    grace=st.floats(0, 60),
)
loads = st.lists(st.floats(0, 5000), min_size=1, max_size=60)


@given(scales, loads, st.integers(-1, 100), st.booleans())
def test_wanted_is_always_within_bounds(scale: Scale, load: list[float], concurrency: int, reachable: bool) -> None:
    points = replay(
        lambda t: load[min(int(t / 2), len(load) - 1)],
        len(load) * 2,
        scale,
        concurrency=concurrency,
        facts=Facts(1, reachable=reachable),
    )
    for point in points:
        assert 0 <= point.desired <= scale.max
        if reachable:
            assert point.desired >= scale.min


@given(st.floats(0, 1000), st.floats(0, 1000), st.integers(0, 50))
def test_more_load_never_wants_fewer(one: float, other: float, ready: int) -> None:
    low, high = sorted((one, other))
    settings = autoscale.settings_of(Scale(target=10), 0)
    wanted = []
    for load in (low, high):
        memory = autoscale.start(settings, ready, 100.0)
        memory = autoscale.observe(load, memory, 110.0)
        decision, _ = autoscale.decide(Facts(ready, running=1), settings, memory, 110.0)
        wanted.append(decision.desired)
    assert wanted[0] <= wanted[1]


@given(loads)
def test_nothing_is_taken_away_while_panicking(load: list[float]) -> None:
    points = replay(lambda t: load[min(int(t / 2), len(load) - 1)], len(load) * 2, Scale(target=10))
    for before, after in itertools.pairwise(points):
        if before.panicking and after.panicking:
            assert after.desired >= before.desired


@given(loads, st.integers(0, 5))
def test_silence_always_ends_at_the_minimum(load: list[float], least: int) -> None:
    end = len(load) * 2.0
    points = replay(
        lambda t: load[int(t / 2)] if t < end else 0.0, end + 60 * 3 + 30 + 200, Scale(target=10, min=least)
    )
    assert points[-1].desired == least


def test_same_facts_give_the_same_answer() -> None:
    settings: Settings = autoscale.settings_of(Scale(), 0)
    memory = autoscale.observe(500.0, autoscale.start(settings, 1, 5.0), 9.0)
    assert autoscale.decide(Facts(1), settings, memory, 9.0) == autoscale.decide(Facts(1), settings, memory, 9.0)
