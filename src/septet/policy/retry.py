"""How long to wait before the next try."""

from __future__ import annotations

from typing import NamedTuple


class Backoff(NamedTuple):
    """`first` seconds, growing by `factor` with each failure up to `ceiling`."""

    first: float = 0.5
    factor: float = 2.0
    ceiling: float = 30.0


def ceiling(failures: int, settings: Backoff) -> float:
    """The longest wait after so many failures in a row, in seconds."""
    if failures <= 0:
        return 0.0
    wait = settings.first
    for _ in range(failures - 1):
        wait *= settings.factor
        if wait >= settings.ceiling:
            return settings.ceiling
    return min(wait, settings.ceiling)


def delay(failures: int, settings: Backoff, number: float) -> float:
    """Full jitter: a random `number` in [0, 1) of the ceiling, so that those who failed together part."""
    return number * ceiling(failures, settings)
