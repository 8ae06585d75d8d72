"""How many instances a revision should have: Knative's pod autoscaler as a pure function of facts and time.

Three steps, each `(facts, settings, memory, now) -> (..., memory)`: `observe` puts load into the windows,
`decide` reads them and says how many; `activate` answers calls that wait and have no room, between two ticks.
Times are monotonic seconds. The activator is always in the path, as with a target burst capacity of -1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

from septet.model.errors import InvalidInput
from septet.model.function import Scale
from septet.policy.window import Window, average, record

TICK = 2.0
DEFAULT_CONCURRENCY = 100.0
DEFAULT_RATE = 200.0
SMALLEST_TARGET = 0.01

Metric = Literal["concurrency", "rps"]


class Facts(NamedTuple):
    """What is so now. `load` is in the policy's metric, a mean since the last observation; `reachable` says
    whether traffic, a tag or a route leads here; `initialised` whether the initial scale was once reached."""

    ready: int
    starting: int = 0
    running: int = 0
    waiting: int = 0
    reachable: bool = True
    initialised: bool = True


class Settings(NamedTuple):
    """A revision's scaling, worked out: `total` is what an instance takes, `target` what it should take,
    `hard` the calls at a time that an instance can take (0: no limit)."""

    policy: str
    metric: Metric
    total: float
    target: float
    hard: int
    window: int
    panic_window: int
    panic_threshold: float
    max_up_rate: float
    max_down_rate: float
    down_delay: float
    grace: float
    minimum: int
    maximum: int
    initial: int


class Memory(NamedTuple):
    """What a decision needs of the past. `pending` is (area, seconds) observed but not yet in a bucket."""

    stable: Window
    panic: Window
    observed_at: float
    pending: tuple[float, float] = (0.0, 0.0)
    panic_since: float | None = None
    panic_peak: int = 0
    recent: tuple[tuple[int, int], ...] = ()
    active_since: float | None = None
    idle_since: float | None = None
    desired: int = -1


class Decision(NamedTuple):
    """`desired` instances, and why in a word: "load", "panic", "bounds", "window", "grace", "idle", "fixed"."""

    desired: int
    reason: str
    panicking: bool = False


def settings_of(scale: Scale, concurrency: int) -> Settings:
    """Works out a revision's settings. `concurrency` is its hard limit in an instance, 0 or -1 for none.

    Raises InvalidInput for a policy that does not exist.
    """
    policy = POLICIES.get(scale.policy)
    if policy is None:
        raise InvalidInput(
            f"there is no scaling policy {scale.policy!r}",
            hint=f"choose one of: {', '.join(sorted(POLICIES))}",
            details={"field": "scale.policy"},
        )
    hard = max(0, concurrency)
    if policy.metric == "concurrency":
        total = float(hard or DEFAULT_CONCURRENCY)
        if scale.target > 0:
            total = min(scale.target, total) if hard else scale.target
    else:
        total = scale.target or DEFAULT_RATE
    window = max(1, round(scale.window))
    return Settings(
        policy=scale.policy,
        metric=policy.metric,
        total=total,
        target=max(SMALLEST_TARGET, total * scale.utilization),
        hard=hard,
        window=window,
        panic_window=max(1, round(window * scale.panic_window_percent / 100)),
        panic_threshold=scale.panic_threshold_percent / 100,
        max_up_rate=scale.max_up_rate,
        max_down_rate=scale.max_down_rate,
        down_delay=scale.down_delay,
        grace=scale.grace,
        minimum=scale.min,
        maximum=scale.max,
        initial=scale.initial,
    )


def start(settings: Settings, ready: int, now: float) -> Memory:
    """The memory of a revision seen for the first time.

    With more than one instance already there it begins in panic, so that a restart takes none of them away.
    """
    stable, panic = Window(settings.window), Window(settings.panic_window)
    memory = Memory(stable, panic, now, active_since=now if ready else None)
    return memory._replace(panic_since=now, panic_peak=ready) if ready > 1 else memory


def observe(load: float, memory: Memory, now: float) -> Memory:
    """Puts the mean `load` since the last observation into the windows, in every second that has passed since.

    Less than a whole new second is kept until there is one, so each bucket is the mean of its second.
    """
    area, span = memory.pending
    elapsed = max(0.0, now - memory.observed_at)
    area, span = area + load * elapsed, span + elapsed
    memory = memory._replace(observed_at=now, pending=(area, span))
    first, last = math.floor(now - span), math.floor(now)
    if last <= first or span <= 0:
        return memory
    mean = area / span
    stable, panic = memory.stable, memory.panic
    for second in range(max(first + 1, last - stable.size + 1), last + 1):
        stable, panic = record(stable, second, mean), record(panic, second, mean)
    return memory._replace(stable=stable, panic=panic, pending=(0.0, 0.0))


def decide(facts: Facts, settings: Settings, memory: Memory, now: float) -> tuple[Decision, Memory]:
    """The number of instances that the revision should have now."""
    return POLICIES[settings.policy].decide(facts, settings, memory, now)


def activate(facts: Facts, settings: Settings, memory: Memory, now: float, step: int) -> tuple[Decision, Memory]:
    """What calls that wait without room need at once: an instance at zero, else as many as the hard limit asks
    for, at most `step` starting at a time. It counts as panic, so that the next tick does not take it back."""
    before = max(0, memory.desired)
    if facts.waiting <= 0:
        return Decision(before, "load", memory.panic_since is not None), memory
    here = facts.ready + facts.starting
    need = math.ceil((facts.waiting + facts.running) / settings.hard) if settings.hard else 1
    want = max(here, min(max(1, need), here + max(0, step - facts.starting)))
    want = max(before, _bounded(want, facts, settings))
    if want > max(1, before):
        memory = memory._replace(panic_since=now, panic_peak=max(memory.panic_peak, want))
    return Decision(want, "panic", memory.panic_since is not None), memory._replace(desired=want, idle_since=None)


def _kpa(facts: Facts, settings: Settings, memory: Memory, now: float) -> tuple[Decision, Memory]:
    """Knative's decision: stable and panic averages, rates, panic, delay, bounds, then scale to zero."""
    second = math.floor(now)
    base = max(1, facts.ready)
    most = math.ceil(settings.max_up_rate * base)
    least = math.floor(base / settings.max_down_rate) if facts.reachable else 0
    stable = math.ceil(average(memory.stable, second) / settings.target)
    panic = math.ceil(average(memory.panic, second) / settings.target)
    want = min(max(stable, least), most)
    memory = _panic(memory, panic / base >= settings.panic_threshold, settings.window, now)
    if memory.panic_since is not None:
        peak = max(memory.panic_peak, want, min(max(panic, least), most))
        memory, want = memory._replace(panic_peak=peak), peak
    if facts.reachable and settings.down_delay > 0:
        memory, want = _delayed(memory, want, settings.down_delay, now)
    panicking = memory.panic_since is not None
    bounded = _bounded(want, facts, settings)
    reason = "bounds" if bounded != want else "panic" if panicking else "load"
    return _to_zero(Decision(bounded, reason, panicking), facts, settings, memory, now)


def _panic(memory: Memory, over: bool, window: int, now: float) -> Memory:
    """Panic begins, and lasts on, while over the threshold; it ends a stable window after the last time."""
    if over:
        return memory._replace(panic_since=now)
    if memory.panic_since is not None and memory.panic_since + window < now:
        return memory._replace(panic_since=None, panic_peak=0)
    return memory


def _delayed(memory: Memory, want: int, delay: float, now: float) -> tuple[Memory, int]:
    """The most that was wanted within `delay` seconds, in buckets of one tick."""
    bucket = math.floor(now / TICK)
    oldest = math.floor((now - delay) / TICK)
    recent = tuple(entry for entry in memory.recent if entry[0] > oldest and entry[0] != bucket)
    here = max([want, *(value for at, value in memory.recent if at == bucket)])
    recent = (*recent, (bucket, here))
    return memory._replace(recent=recent), max(value for _, value in recent)


def _bounded(want: int, facts: Facts, settings: Settings) -> int:
    """Within minimum and maximum; an unreachable revision has no minimum, a new one at least its initial scale."""
    least = settings.minimum if facts.reachable else 0
    if not facts.initialised:
        least = max(least, settings.initial, 1)
    want = max(want, least)
    return min(want, settings.maximum) if settings.maximum > 0 else want


def _to_zero(
    decision: Decision, facts: Facts, settings: Settings, memory: Memory, now: float
) -> tuple[Decision, Memory]:
    """The last instance goes after a stable window of being active, and the grace after that."""
    if facts.ready and memory.active_since is None:
        memory = memory._replace(active_since=now)
    if decision.desired > 0:
        return decision, memory._replace(desired=decision.desired, idle_since=None)
    if facts.running or facts.waiting:
        return _keep("load", decision, memory._replace(idle_since=None))
    if facts.ready == 0:
        memory = memory._replace(active_since=None, idle_since=None, desired=0)
        return decision._replace(reason="idle"), memory
    if memory.active_since is not None and now - memory.active_since < settings.window:
        return _keep("window", decision, memory)
    idle_since = now if memory.idle_since is None else memory.idle_since
    memory = memory._replace(idle_since=idle_since)
    if now - idle_since < settings.grace:
        return _keep("grace", decision, memory)
    return decision._replace(reason="idle"), memory._replace(active_since=None, idle_since=None, desired=0)


def _keep(reason: str, decision: Decision, memory: Memory) -> tuple[Decision, Memory]:
    return decision._replace(desired=1, reason=reason), memory._replace(desired=1)


def _fixed(facts: Facts, settings: Settings, memory: Memory, now: float) -> tuple[Decision, Memory]:
    """The minimum (at least one) whatever the load, as long as anything leads here."""
    want = max(1, settings.minimum) if facts.reachable else 0
    want = _bounded(want, facts, settings)
    return Decision(want, "fixed"), memory._replace(desired=want)


class Policy(NamedTuple):
    metric: Metric
    decide: Callable[[Facts, Settings, Memory, float], tuple[Decision, Memory]]


POLICIES: dict[str, Policy] = {
    "concurrency": Policy("concurrency", _kpa),
    "rps": Policy("rps", _kpa),
    "fixed": Policy("concurrency", _fixed),
}
