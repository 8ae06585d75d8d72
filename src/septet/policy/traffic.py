"""Which revision a call goes to, and how the shares move when a new revision is ready."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec

from septet.model.function import TrafficTarget

FIRST_STEP = 1.0
"""Seconds for which a new revision has one percent, and the shortest step after that."""

Mix = tuple[TrafficTarget, ...]


class Resolution(NamedTuple):
    """`targets` all name a revision; `missing` are revisions that are named but not ready."""

    targets: Mix
    missing: tuple[str, ...]


def pick(targets: Sequence[TrafficTarget], number: float) -> str:
    """The revision for a random `number` in [0, 1), by percent; empty when no target has any."""
    total = sum(target.percent for target in targets)
    left = number * total
    chosen = ""
    for target in targets:
        if target.percent > 0:
            chosen = target.revision
            left -= target.percent
            if left < 0:
                break
    return chosen


def tagged(targets: Sequence[TrafficTarget], tag: str) -> str:
    """The revision that a tag stands for; empty when there is no such tag."""
    return next((target.revision for target in targets if target.tag == tag), "")


def resolve(spec: Sequence[TrafficTarget], latest_ready: str, ready: Collection[str]) -> Resolution:
    """Names the revision of every target; those without one follow the latest ready revision."""
    targets: list[TrafficTarget] = []
    missing: list[str] = []
    for target in spec:
        name = target.revision or latest_ready
        if not name or name not in ready:
            missing.append(name or "(latest ready)")
        targets.append(msgspec.structs.replace(target, revision=name))
    return Resolution(tuple(targets), tuple(missing))


def share(elapsed: float, duration: float, percent: int) -> int:
    """The percent that a new revision has `elapsed` seconds into a rollout to `percent` over `duration`.

    One percent first, then equal steps of at least a second each; all of it from `duration` on.
    """
    if elapsed >= duration or percent <= 1:
        return percent
    if elapsed < FIRST_STEP:
        return 1
    size, every = _steps(duration, percent)
    return min(percent, 1 + size * (1 + math.floor((elapsed - FIRST_STEP) / every)))


def next_change(elapsed: float, duration: float, percent: int) -> float | None:
    """Seconds until `share` next changes; None when it has reached `percent`."""
    if share(elapsed, duration, percent) >= percent:
        return None
    if elapsed < FIRST_STEP:
        return min(FIRST_STEP, duration) - elapsed
    _, every = _steps(duration, percent)
    into = elapsed - FIRST_STEP
    return min(duration - elapsed, (math.floor(into / every) + 1) * every - into)


def _steps(duration: float, percent: int) -> tuple[int, float]:
    """Percent points of a step, and seconds between steps."""
    rest = max(FIRST_STEP, duration - FIRST_STEP)
    steps = min(max(1, int(rest / FIRST_STEP)), percent - 1)
    return max(1, round((percent - 1) / steps)), rest / steps


def shift(mix: Mix, newest: str, percent: int) -> Mix:
    """Gives `newest` at least `percent` points, taken from the others of the mix, the newest of them first.

    `mix` is ordered from the oldest revision to the newest; the sum stays as it is.
    """
    has = sum(target.percent for target in mix if target.revision == newest)
    need = max(0, min(percent, sum(target.percent for target in mix)) - has)
    left: list[TrafficTarget] = []
    taken = 0
    for target in reversed(mix):
        if target.revision == newest:
            continue
        take = min(need - taken, target.percent)
        taken += take
        if target.percent - take > 0:
            left.append(msgspec.structs.replace(target, percent=target.percent - take))
    return (*reversed(left), TrafficTarget(percent=has + taken, revision=newest))


def rolled(spec: Sequence[TrafficTarget], current: Sequence[TrafficTarget], resolved: Mix, percent: int) -> Mix | None:
    """The mix of a gradual rollout in which the newest revision has `percent` of what follows the latest.

    `current` is the mix that serves now. None when there is nothing to move step by step: more than one target
    follows the latest, none did before, or its share changed with this deploy.
    """
    followers = [index for index, target in enumerate(spec) if not target.revision]
    if len(followers) != 1:
        return None
    goal = resolved[followers[0]]
    pinned = [target for index, target in enumerate(resolved) if index != followers[0]]
    mix = _without(current, pinned)
    if goal.percent <= 1 or sum(target.percent for target in mix) != goal.percent:
        return None
    bare = tuple(msgspec.structs.replace(target, tag="") for target in mix if target.percent > 0)
    moved = shift(bare, goal.revision, percent)
    named = tuple(
        msgspec.structs.replace(target, tag=goal.tag) if target.revision == goal.revision else target
        for target in moved
    )
    return (*pinned, *named)


def _without(current: Sequence[TrafficTarget], pinned: Sequence[TrafficTarget]) -> list[TrafficTarget]:
    """What of the current mix follows the latest: all but one entry for each pinned target."""
    rest = list(current)
    for target in pinned:
        if target in rest:
            rest.remove(target)
    return rest
