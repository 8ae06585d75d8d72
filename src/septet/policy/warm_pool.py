"""How many prepared sandboxes wait for the next cold starts. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

WINDOW = 600.0
INTERVAL = 0.1
"""About what it takes to make one anew: starts within it find only what was there at its begin."""
LEAST = 2
MOST = 32
QUANTILE = 0.999


def size(starts: Iterable[float], now: float, room: int, fixed: int = -1) -> int:
    """`starts` are when cold starts came (seconds, as `now`); `room` is how many the node's memory has room for.

    The 99.9th percentile of how many came within an interval of the last ten minutes, empty intervals included, and
    at least two, so that one start does not make the next one wait. `fixed` from 0 on is what the operator said.
    """
    if fixed >= 0:
        return max(0, min(fixed, room))
    counts = Counter(int((now - at) / INTERVAL) for at in starts if 0 <= now - at < WINDOW)
    intervals = round(WINDOW / INTERVAL)
    rank = math.ceil(intervals * (1 - QUANTILE))
    ordered = sorted(counts.values(), reverse=True)
    wanted = ordered[rank - 1] if len(ordered) >= rank else 0
    return max(0, min(max(wanted, LEAST), MOST, room))
