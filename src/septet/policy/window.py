"""Averages over the last so many seconds, in buckets of one second, as values that never change."""

from __future__ import annotations

from typing import NamedTuple

PRECISION = 6


class Window(NamedTuple):
    """`buckets` holds consecutive seconds, the last one being second `last`; at most `size` of them are kept."""

    size: int
    last: int = 0
    buckets: tuple[float, ...] = ()


def record(window: Window, second: int, value: float) -> Window:
    """Adds `value` to a second's bucket; seconds between writes count as zero, until a whole window is empty."""
    if not window.buckets or second - window.last >= window.size:
        return Window(window.size, second, (value,))
    age = window.last - second
    if age < 0:
        grown = (*window.buckets, *(0.0 for _ in range(-age - 1)), value)
        return Window(window.size, second, grown[-window.size :])
    if age >= window.size:
        return window
    missing = age + 1 - len(window.buckets)
    buckets = (*(0.0 for _ in range(missing)), *window.buckets) if missing > 0 else window.buckets
    at = len(buckets) - 1 - age
    return Window(window.size, window.last, (*buckets[:at], buckets[at] + value, *buckets[at + 1 :]))


def average(window: Window, second: int) -> float:
    """The mean of the buckets that are still inside the window at `second`.

    Seconds after the last write shrink the window, they are not zeros; after a whole window of them it is 0.
    """
    trailing = max(0, second - window.last)
    if not window.buckets or trailing >= window.size:
        return 0.0
    valid = window.buckets[-(window.size - trailing) :]
    return round(sum(valid) / len(valid), PRECISION)
