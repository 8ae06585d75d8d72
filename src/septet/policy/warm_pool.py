"""How many prepared sandboxes wait for the next cold starts. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

WINDOW = 600.0
INTERVAL = 0.1
"""About what it takes to make one anew: starts within it find only what was there at its begin."""
LEAST = 2
MOST = 32
QUANTILE = 0.999
UNUSED = 3600.0
"""Seconds without a start after which nobody waits for one."""
SPARE = 16
"""One part of so many of the host's memory is left to others."""


def size(starts: Sequence[float], now: float, room: int, fixed: int = -1) -> int:
    """`starts` are when cold starts came (seconds, as `now`), in order; `room` is how many there is memory for.

    The 99.9th percentile of how many came within an interval of the last ten minutes, empty intervals included, and
    at least two, so that one start does not make the next one wait; none when the last start is an hour ago. `fixed`
    from 0 on is what the operator said.
    """
    if fixed >= 0:
        return max(0, min(fixed, room))
    if starts and now - starts[-1] >= UNUSED:
        return 0
    counts = Counter(int((now - at) / INTERVAL) for at in starts if 0 <= now - at < WINDOW)
    intervals = round(WINDOW / INTERVAL)
    rank = math.ceil(intervals * (1 - QUANTILE))
    ordered = sorted(counts.values(), reverse=True)
    wanted = ordered[rank - 1] if len(ordered) >= rank else 0
    return max(0, min(max(wanted, LEAST), MOST, room))


def room(waiting: int, each: float, unpromised: float, available: float, host: float) -> int:
    """How many may wait, `waiting` do. In MiB: what one takes, what no instance was promised, what the host has
    available now and in all. Under memory pressure it falls below `waiting`: those go first."""
    fits = math.floor((available - host / SPARE) / each)
    return min(math.floor(unpromised / each), waiting + fits)
