"""Time, so that tests can own it."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """clock.1: `now` never goes back within a process. clock.2: `wall` is seconds since the epoch."""

    def now(self) -> float:
        """Monotonic seconds, for durations and deadlines."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch, for what is shown and stored."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Returns after `seconds`; raises CancelledError when cancelled."""
        ...
