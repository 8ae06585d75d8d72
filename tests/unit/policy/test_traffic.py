from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from septet.model.function import TrafficTarget
from septet.policy import traffic


def target(percent: int, revision: str = "", tag: str = "") -> TrafficTarget:
    return TrafficTarget(percent=percent, revision=revision, tag=tag)


def shares(mix: tuple[TrafficTarget, ...]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for entry in mix:
        found[entry.revision] += entry.percent
    return dict(found)


def test_pick_follows_the_weights() -> None:
    targets = [target(20, "a"), target(0, "b"), target(80, "c")]
    seen = Counter(traffic.pick(targets, number / 1000) for number in range(1000))
    assert seen == {"a": 200, "c": 800}


def test_pick_of_nothing_is_empty() -> None:
    assert traffic.pick([], 0.5) == ""
    assert traffic.pick([target(0, "a")], 0.5) == ""


@given(st.lists(st.integers(0, 100), min_size=1, max_size=6), st.floats(0, 1, exclude_max=True))
def test_pick_never_names_a_target_without_weight(weights: list[int], number: float) -> None:
    targets = [target(weight, f"r{index}") for index, weight in enumerate(weights)]
    chosen = traffic.pick(targets, number)
    if any(weights):
        assert weights[int(chosen[1:])] > 0
    else:
        assert chosen == ""


def test_tag_stands_for_its_revision_whatever_the_weight() -> None:
    targets = [target(100, "a"), target(0, "b", "canary")]
    assert traffic.tagged(targets, "canary") == "b"
    assert traffic.tagged(targets, "other") == ""


def test_targets_without_a_revision_follow_the_latest_ready() -> None:
    found = traffic.resolve([target(90), target(10, "a", "old")], "c", {"a", "b", "c"})
    assert found.targets == (target(90, "c"), target(10, "a", "old"))
    assert found.missing == ()


def test_what_is_not_ready_is_named() -> None:
    assert traffic.resolve([target(50, "x"), target(50)], "c", {"c"}).missing == ("x",)
    assert traffic.resolve([target(100)], "", set()).missing == ("(latest ready)",)


# -- rollout


def test_rollout_begins_with_one_percent_and_ends_on_time() -> None:
    assert traffic.share(0.0, 30, 100) == 1
    assert traffic.share(0.99, 30, 100) == 1
    assert traffic.share(1.0, 30, 100) == 4
    assert traffic.share(29.99, 30, 100) < 100
    assert traffic.share(30.0, 30, 100) == 100
    assert traffic.share(0.0, 0, 100) == 100


def test_share_of_one_percent_or_none_moves_at_once() -> None:
    assert traffic.share(0.0, 30, 1) == 1
    assert traffic.share(0.0, 30, 0) == 0


@given(st.floats(0, 400), st.floats(0, 400), st.floats(0, 300), st.integers(0, 100))
def test_share_only_grows_and_stays_within_its_goal(a: float, b: float, duration: float, percent: int) -> None:
    low, high = sorted((a, b))
    assert 0 <= traffic.share(low, duration, percent) <= traffic.share(high, duration, percent) <= percent


@given(st.floats(0, 400), st.floats(0, 300), st.integers(0, 100))
def test_next_change_is_when_the_share_changes(elapsed: float, duration: float, percent: int) -> None:
    wait = traffic.next_change(elapsed, duration, percent)
    now = traffic.share(elapsed, duration, percent)
    if wait is None:
        assert now == percent
        return
    assert wait > -1e-9
    assert traffic.share(elapsed + wait + 1e-6, duration, percent) > now
    if wait > 1e-3:
        assert traffic.share(elapsed + wait - 1e-3, duration, percent) == now


@pytest.mark.parametrize("duration", [1.5, 2, 5, 30, 200])
def test_following_the_changes_reaches_the_goal_in_time(duration: float) -> None:
    elapsed, steps = 0.0, 0
    while (wait := traffic.next_change(elapsed, duration, 100)) is not None:
        elapsed += wait + 1e-9
        steps += 1
        assert steps <= 100
    assert 0.5 * duration <= elapsed <= duration + 1e-6


def test_points_are_taken_from_the_newest_of_the_others_first() -> None:
    mix = (target(60, "r1"), target(40, "r2"))
    assert shares(traffic.shift(mix, "r3", 1)) == {"r1": 60, "r2": 39, "r3": 1}
    assert shares(traffic.shift(mix, "r3", 50)) == {"r1": 50, "r3": 50}
    assert shares(traffic.shift(mix, "r3", 100)) == {"r3": 100}


def test_what_the_newest_has_is_never_taken_back() -> None:
    assert shares(traffic.shift((target(60, "r1"), target(40, "r2")), "r2", 10)) == {"r1": 60, "r2": 40}


@given(st.lists(st.integers(0, 50), min_size=1, max_size=5), st.integers(0, 100))
def test_shift_keeps_the_sum(weights: list[int], percent: int) -> None:
    mix = tuple(target(weight, f"r{index}") for index, weight in enumerate(weights))
    moved = traffic.shift(mix, "new", percent)
    assert sum(shares(moved).values()) == sum(weights)
    assert shares(moved).get("new", 0) == min(percent, sum(weights))


def test_pinned_targets_stay_out_of_a_rollout() -> None:
    spec = [target(20, "r1", "old"), target(80, "", "live")]
    current = (target(20, "r1", "old"), target(80, "r2", "live"))
    resolved = (target(20, "r1", "old"), target(80, "r3", "live"))
    mix = traffic.rolled(spec, current, resolved, 10)
    assert mix == (target(20, "r1", "old"), target(70, "r2"), target(10, "r3", "live"))


def test_second_deploy_starts_from_the_current_mix() -> None:
    spec = [target(100)]
    current = (target(60, "r1"), target(40, "r2"))
    mix = traffic.rolled(spec, current, (target(100, "r3"),), 1)
    assert mix is not None and shares(mix) == {"r1": 60, "r2": 39, "r3": 1}


def test_nothing_to_roll_when_the_share_changed_or_many_follow_the_latest() -> None:
    assert traffic.rolled([target(50)], (target(100, "r1"),), (target(50, "r2"),), 1) is None
    two = [target(50), target(50)]
    assert traffic.rolled(two, (target(100, "r1"),), (target(50, "r2"), target(50, "r2")), 1) is None
    assert traffic.rolled([target(100)], (), (target(100, "r1"),), 1) is None
