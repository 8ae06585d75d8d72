"""Which limits instances ran into: looked at when a call fails, at the tick while one runs for long, and at the end.

A function may meet a limit and tell nobody: it catches the error, and answers 500 or hangs. What the sandbox saw of it
is told once in the instance's log, and to the call that failed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from septet.model.errors import SeptetError
from septet.model.instance import InstanceExit, InstanceInfo, LimitMet
from septet.ports.clock import Clock
from septet.ports.sandbox import Sandbox

MOST = 10
"""Looks at one instance in a second; whoever asks more often is told what the last one saw."""
PATIENCE = 0.5
QUIET = 60.0
"""Seconds between two lines about the same limit of an instance."""

Then = Callable[[tuple[LimitMet, ...]], None]


class Seen:
    """One limit of one instance: how often it was met, when that was last noticed, and what was told of it."""

    __slots__ = ("at", "met", "told", "told_at")

    def __init__(self, met: LimitMet) -> None:
        self.met = met
        self.at = -math.inf
        self.told = -1
        self.told_at = -math.inf


class Looks:
    """What is known of one instance."""

    __slots__ = ("_count", "_since", "limits", "now", "task")

    def __init__(self) -> None:
        self._since = -math.inf
        self._count = 0
        self.task: asyncio.Task[None] | None = None
        self.limits: dict[str, Seen] = {}
        self.now: frozenset[str] = frozenset()

    def spent(self, now: float) -> bool:
        """Whether this second had all its looks; counts one more."""
        if now - self._since >= 1.0:
            self._since, self._count = now, 0
        self._count += 1
        return self._count > MOST


class LimitWatch:
    """`say` writes into an instance's log, `spawn` runs what waits, `find` gives an instance that lives."""

    def __init__(
        self,
        sandboxes: Mapping[str, Sandbox],
        say: Callable[[InstanceInfo, str], None],
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        find: Callable[[str], InstanceInfo | None],
    ) -> None:
        self._sandboxes = sandboxes
        self._say = say
        self._clock = clock
        self._spawn = spawn
        self._find = find
        self._known: dict[str, Looks] = {}

    def ask(self, instance: str, age: float, then: Then) -> None:
        """`Demand.limits`."""
        since = self._clock.now() - age
        info = self._find(instance)
        if info is None:
            then(())
            return
        looks = self._looks(instance)
        if looks.spent(self._clock.now()):
            then(_since(looks, since))
            return
        task = self.look(info)
        task.add_done_callback(lambda _: then(_since(looks, since)))

    def look(self, info: InstanceInfo) -> asyncio.Task[None]:
        """Asks the sandbox, once for all who want to know at this moment."""
        looks = self._looks(info.id)
        if looks.task is None or looks.task.done():
            looks.task = self._spawn(self._look(info, looks))
        return looks.task

    def ended(self, info: InstanceInfo, exit: InstanceExit) -> None:
        """What it met and nobody noticed is told now."""
        looks = self._known.pop(info.id, None) or Looks()
        if self._find(info.id) is not None:
            self._note(info, looks, exit.met, last=True)

    def forget(self, instance: str) -> None:
        self._known.pop(instance, None)

    async def _look(self, info: InstanceInfo, looks: Looks) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                stats = await self._sandboxes[info.driver].stats(info.id)
        except (SeptetError, TimeoutError):
            return  # it ended, and its exit says what it met
        self._note(info, looks, stats.met)

    def _looks(self, instance: str) -> Looks:
        looks = self._known.get(instance)
        if looks is None:
            looks = self._known[instance] = Looks()
        return looks

    def _note(self, info: InstanceInfo, looks: Looks, found: tuple[LimitMet, ...], last: bool = False) -> None:
        now = self._clock.now()
        looks.now = frozenset(met.name for met in found if not met.times)
        for met in found:
            seen = looks.limits.get(met.name)
            if seen is None:
                seen = looks.limits[met.name] = Seen(met)
                seen.at = now
            elif met.times > seen.met.times or not met.times:
                seen.at = now
            seen.met = met
            if met.times > seen.told and (last or now - seen.told_at >= QUIET):
                seen.told, seen.told_at = met.times, now
                self._say(info, _line(met))


def _since(looks: Looks, since: float) -> tuple[LimitMet, ...]:
    return tuple(seen.met for name, seen in looks.limits.items() if seen.at >= since or name in looks.now)


def _line(met: LimitMet) -> str:
    times = f" ({met.times} time{'s' if met.times > 1 else ''})" if met.times else ""
    return f"{met.name} limit {met.value} reached{times}"
