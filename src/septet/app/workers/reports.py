"""What a worker tells control of itself: loads, wishes, and batches of records, lines and counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from septet.app.workers.channel import Channel
from septet.app.workers.messages import (
    AskLimits,
    Explain,
    Loads,
    Lost,
    RevisionLoad,
    SlotLoad,
    Tally,
    Told,
    Wanted,
)
from septet.dataplane.metrics import Metrics
from septet.dataplane.pool import InstancePool, RevisionPool
from septet.model.instance import ColdReason, InstanceExit, LimitMet
from septet.model.invocation import InvocationRecord
from septet.ports.logs import LogLine
from septet.ports.signals import RevisionKey

PERIOD = 0.05
IDLE = 0.25
"""Seconds between two looks at places that nobody used at the last one."""
GAP = 0.01
"""Seconds between two wishes for the same revision."""
BACKLOG = 32 * 1024 * 1024
"""Past so many bytes that control has not taken yet, records and lines are dropped."""


class OwnedPool(InstancePool):
    """The revisions of this worker; `touched` hears of each that is used."""

    touched: Callable[[RevisionKey], None]

    def of(self, key: RevisionKey) -> RevisionPool:
        self.touched(key)
        return super().of(key)

    def all(self) -> list[RevisionPool]:
        return list(self._pools.values())


class Reports:
    """Implements `ports.signals.Demand` and the writing side of `ports.logs.Logs` over the channel to control."""

    def __init__(self, channel: Channel, pool: OwnedPool, metrics: Metrics, open_calls: Callable[[], int]) -> None:
        self._channel = channel
        self._pool = pool
        self._metrics = metrics
        self._open_calls = open_calls
        self._loop = asyncio.get_running_loop()
        self._touched: set[RevisionKey] = set()
        self._asked: dict[RevisionKey, bool] = {}
        self._emptied: dict[RevisionKey, ColdReason] = {}
        self._explaining: dict[int, Callable[[InstanceExit | None], None]] = {}
        self._limits: dict[int, Callable[[tuple[LimitMet, ...]], None]] = {}
        self._number = 0
        self._records: list[InvocationRecord] = []
        self._encoded: list[tuple[tuple[str, str], bytes]] = []
        self._lines: list[LogLine] = []
        self._open = 0
        self._slow = False
        self._timer: asyncio.TimerHandle | None = None
        pool.touched = self.touch
        pool.attach(self)

    # -- what happens here

    def touch(self, key: RevisionKey) -> None:
        self._touched.add(key)
        self._arm()

    def record(self, record: InvocationRecord) -> None:
        self._records.append(record)
        self._arm()

    def record_encoded(self, function: tuple[str, str], record: bytes) -> None:
        self._encoded.append((function, record))
        self._arm()

    def write(self, line: LogLine) -> None:
        """Lines go at once, so that who has the answer finds what was printed for it."""
        if not self._lines:
            self._loop.call_soon(self._tell_lines)
        self._lines.append(line)

    # -- Demand

    def wanted(self, key: RevisionKey) -> None:
        if key in self._asked:
            self._asked[key] = True
            return
        self._ask(key)

    def cold_reason(self, key: RevisionKey) -> ColdReason:
        pool = self._pool.find(key)
        if pool is not None and pool.slots:
            return "burst"
        return self._emptied.get(key, "scaled-to-zero")

    def lost(self, key: RevisionKey, instance: str) -> None:
        self._channel.send(Lost(instance))

    def explain(self, instance: str, then: Callable[[InstanceExit | None], None]) -> None:
        self._number += 1
        self._explaining[self._number] = then
        self._channel.send(Explain(self._number, instance))

    def limits(self, instance: str, age: float, then: Callable[[tuple[LimitMet, ...]], None]) -> None:
        self._number += 1
        self._limits[self._number] = then
        self._channel.send(AskLimits(self._number, instance, age))

    # -- from control

    def emptied(self, key: RevisionKey, reason: ColdReason) -> None:
        self._emptied[key] = reason

    def explained(self, number: int, exit: InstanceExit | None) -> None:
        then = self._explaining.pop(number, None)
        if then is not None:
            then(exit)

    def limited(self, number: int, met: tuple[LimitMet, ...]) -> None:
        then = self._limits.pop(number, None)
        if then is not None:
            then(met)

    def forget(self, key: RevisionKey) -> None:
        self._emptied.pop(key, None)
        self._pool.forget(key)

    def flush(self) -> None:
        """Tells everything now."""
        self._tell_lines()
        self._tell_loads()
        records, self._records = tuple(self._records), []
        encoded, self._encoded = tuple(self._encoded), []
        tallies = tuple(
            Tally(
                key,
                grown.status,
                grown.errors,
                grown.timeouts,
                grown.cold,
                grown.bytes_in,
                grown.bytes_out,
            )
            for key, grown in self._metrics.take().items()
        )
        if self._channel.backlog > BACKLOG:
            records, encoded = (), ()
        if records or encoded or tallies:
            self._channel.send(Told(records, encoded, (), tallies))

    # -- inside

    def _tell_lines(self) -> None:
        lines, self._lines = tuple(self._lines), []
        if lines and self._channel.backlog <= BACKLOG:
            self._channel.send(Told(lines=lines))

    def _arm(self) -> None:
        if self._slow and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._slow = False
            self._timer = self._loop.call_later(PERIOD, self._report)

    def _report(self) -> None:
        """Calls that took a free place tell nobody, so as long as there are places they are looked at."""
        self._timer = None
        idle = not (self._touched or self._records or self._encoded or self._open)
        self.flush()
        if self._touched or self._open or any(pool.slots for pool in self._pool.all()):
            self._slow = idle
            self._timer = self._loop.call_later(IDLE if idle else PERIOD, self._report)

    def _tell_loads(self) -> None:
        loads = []
        self._touched.update(pool.key for pool in self._pool.all() if pool.busy)
        for key in list(self._touched):
            load = self._load(key)
            loads.append(load)
            if not load.running and not load.waiting:
                self._touched.discard(key)
        count = self._open_calls()
        if loads or count != self._open:
            self._open = count
            self._channel.send(Loads(count, tuple(loads)))

    def _load(self, key: RevisionKey) -> RevisionLoad:
        pool = self._pool.find(key)
        if pool is None:
            return RevisionLoad(key, 0.0, 0.0, 0, 0, ())
        before = pool.sampled_at
        load = pool.sample()
        span = pool.sampled_at - before
        slots = tuple(SlotLoad(name, slot.running, slot.idle_since, slot.draining) for name, slot in pool.slots.items())
        return RevisionLoad(key, load.average * span, load.rate * span, load.waiting, load.running, slots)

    def _ask(self, key: RevisionKey) -> None:
        self._asked[key] = False
        self._channel.send(Wanted(self._load(key)))
        self._loop.call_later(GAP, self._ask_again, key)

    def _ask_again(self, key: RevisionKey) -> None:
        """Those that began to wait meanwhile are one more wish."""
        if self._asked.pop(key, False):
            self._ask(key)
