"""Which instances go when a revision has more than it should, and how long the last one is kept for a next call.

Two policies say how long. The fixed one keeps it a number of seconds after the last call. The other is the hybrid
histogram policy of "Serverless in the Wild" (Shahrad et al., USENIX ATC 2020): a histogram of a function's idle times,
from the end of a call to the next one, in bins of a minute up to four hours. Where it is representative, an instance
is wanted from a little before the 5th percentile (the pre-warm window, in which there is none) to a little after the
99th (the keep-alive window). It is representative when there are enough idle times, most of them within range, and the
bins' counts vary: a coefficient of variation of two or more. Else the fixed policy decides.

Two things differ from the paper. It forecasts idle times beyond the range with an ARIMA model; here they get the fixed
keep-alive, since a call every few hours costs little when it starts cold. And where the histogram says nothing, the
paper keeps an instance for the whole range; here the fixed keep-alive is what the operator set.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

BIN = 60.0
BINS = 240
HEAD = 0.05
TAIL = 0.99
MARGIN = 0.1
LEAST = 5
"""Idle times, before which there is no histogram to speak of."""
MOST_BEYOND = 0.5
"""Share of idle times beyond the range, above which the function is too rare for a histogram."""
SPREAD = 2.0
"""Coefficient of variation of the bins' counts, below which the histogram is flat and says nothing."""
FADE = 10_000
"""Idle times, at which all counts are halved, so that what a function did long ago fades."""
STANDARD = 600.0
"""Seconds of the fixed policy where nothing else is said."""

NOTHING: Mapping[int, int] = {}


class Candidate(NamedTuple):
    """One instance of the revision. `idle_since` is None while it runs calls or starts."""

    id: str
    ready: bool
    running: int = 0
    idle_since: float | None = None


def surplus(instances: Sequence[Candidate], desired: int) -> tuple[str, ...]:
    """Those to drain so that `desired` remain: still starting ones first, then the longest idle, then the least
    busy. As many ready ones remain as can."""
    excess = len(instances) - max(0, desired)
    return tuple(candidate.id for candidate in sorted(instances, key=_worth)[:excess]) if excess > 0 else ()


def _worth(candidate: Candidate) -> tuple[int, float, str]:
    if not candidate.ready:
        return (0, 0.0, candidate.id)
    if candidate.idle_since is not None:
        return (1, candidate.idle_since, candidate.id)
    return (2, float(candidate.running), candidate.id)


class Windows(NamedTuple):
    """Seconds: an instance is wanted from `prewarm` after the end of the last call on, for `keep`. With `prewarm` 0
    the one that ran the call stays."""

    prewarm: float
    keep: float

    @property
    def end(self) -> float:
        """Seconds after the end of the last call, after which none is wanted."""
        return self.prewarm + self.keep


class IdleTimes(NamedTuple):
    """What is remembered of a function. `bins` are counts by bin, without the empty ones, `beyond` is the count out of
    range, `total` all of them; `learnt` is what they say, worked out anew when there are `due` of them."""

    bins: Mapping[int, int] = NOTHING
    beyond: int = 0
    total: int = 0
    due: int = 1
    learnt: Windows | None = None


def observe(memory: IdleTimes, idle: Sequence[float], brief: int = 0) -> IdleTimes:
    """Idle times (seconds) that have passed, and `brief` more that were shorter than one bin.

    The windows are worked out only when the count has grown by a quarter, so that a function that is called all the
    time costs next to nothing. Up to `memory.due` idle times at once give the same as one after the other.
    """
    bins = dict(memory.bins)
    beyond = 0
    if brief:
        bins[0] = bins.get(0, 0) + brief
    for seconds in idle:
        number = int(seconds / BIN)
        if number < BINS:
            bins[number] = bins.get(number, 0) + 1
        else:
            beyond += 1
    total = memory.total + len(idle) + brief
    memory = IdleTimes(bins, memory.beyond + beyond, total, memory.due, memory.learnt)
    return memory if total < memory.due else _learn(memory)


def recalled(bins: Mapping[int, int], beyond: int) -> IdleTimes:
    """What was remembered of a function before, from its counts alone."""
    counts = {number: count for number, count in bins.items() if count > 0}
    return _learn(IdleTimes(counts, beyond, sum(counts.values()) + beyond))


def windows(memory: IdleTimes, fixed: float) -> Windows:
    """The histogram's windows where it is representative, else `fixed` seconds (0: none is kept)."""
    return memory.learnt or Windows(0.0, fixed)


def _learn(memory: IdleTimes) -> IdleTimes:
    bins, beyond, total = memory.bins, memory.beyond, memory.total
    if total >= FADE:
        bins = {number: count // 2 for number, count in bins.items() if count > 1}
        beyond //= 2
        total = sum(bins.values()) + beyond
    return IdleTimes(bins, beyond, total, total + max(1, total // 4), _read(bins, beyond, total))


def _read(bins: Mapping[int, int], beyond: int, total: int) -> Windows | None:
    """The windows of a histogram; None when it is not representative."""
    if total < LEAST or beyond > total * MOST_BEYOND or _variation(bins.values()) < SPREAD:
        return None
    inside = total - beyond
    ordered = sorted(bins.items())
    prewarm = _percentile(ordered, inside, HEAD) * BIN * (1 - MARGIN)
    end = (_percentile(ordered, inside, TAIL) + 1) * BIN * (1 + MARGIN)
    return Windows(prewarm, end - prewarm)


def _variation(counts: Iterable[int]) -> float:
    """Standard deviation of all bins' counts by their mean."""
    held = list(counts)
    mean = sum(held) / BINS
    square = sum(count * count for count in held) / BINS
    return math.sqrt(max(0.0, square - mean * mean)) / mean if mean else 0.0


def _percentile(ordered: Sequence[tuple[int, int]], inside: int, share: float) -> int:
    """The bin in which the percentile lies."""
    seen = 0
    for number, count in ordered:
        seen += count
        if seen >= share * inside:
            return number
    return BINS - 1
