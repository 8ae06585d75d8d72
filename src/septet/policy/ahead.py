"""How many calls may wait inside a serial instance, so that it need not sleep between short ones."""

from __future__ import annotations

SHORT = 0.010
"""Seconds: calls that take longer than this keep nobody waiting inside their instance."""
WINDOW = 128
"""Calls that are looked at together."""
DEPTH = 3
STUCK = 2 * SHORT
"""Seconds after which those that wait inside are asked for back."""


def depth(calls: int, slow: int) -> int:
    """Calls ahead of the one that runs; `slow` of the last `calls` took longer than SHORT. None before it is known
    that 99 in 100 are short."""
    return DEPTH if calls >= WINDOW and slow * 100 <= calls else 0
