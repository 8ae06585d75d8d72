"""How many calls may wait inside a serial instance, so that it need not sleep between short ones."""

from __future__ import annotations

SHORT = 0.010
"""Seconds: calls that take longer than this keep nobody waiting inside their instance."""
WINDOW = 128
"""Calls that are looked at together."""
WORK = 0.002
"""Seconds of work that may wait inside: the shorter the calls, the more of them."""
DEPTH = 16
STUCK = 2 * SHORT
"""Seconds after which those that wait inside are asked for back."""


def depth(calls: int, slow: int, seconds: float) -> int:
    """Calls ahead of the one that runs; `slow` of the last `calls` took longer than SHORT, and all of them `seconds`
    together. None before it is known that 99 in 100 are short."""
    if calls < WINDOW or slow * 100 > calls:
        return 0
    return max(1, min(DEPTH, int(WORK * calls / seconds))) if seconds > 0 else DEPTH
