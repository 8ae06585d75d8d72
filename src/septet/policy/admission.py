"""Rate limits, and whose turn it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Rate(NamedTuple):
    """`requests` a second, with `burst` above it at once. Requests 0 means no limit."""

    requests: float
    burst: int = 0


class Admission(NamedTuple):
    """`retry_after` is in seconds, 0 when allowed."""

    allowed: bool
    retry_after: float = 0.0


def admit(rate: Rate, arrival: float, now: float, cost: float = 1.0) -> tuple[Admission, float]:
    """The generic cell rate algorithm. `arrival` is what an earlier call returned (theoretical arrival time),
    0 at first; returns the answer and the new arrival time. A refused request changes nothing."""
    if rate.requests <= 0:
        return Admission(True), arrival
    interval = 1.0 / rate.requests
    tolerance = interval * rate.burst
    due = max(arrival, now)
    earliest = due - tolerance
    if now < earliest:
        return Admission(False, earliest - now), arrival
    return Admission(True), due + interval * cost


class Turns(NamedTuple):
    """Whose turn: `served` has each party's virtual finish time, `clock` the virtual time now."""

    clock: float = 0.0
    served: tuple[tuple[str, float], ...] = ()


def next_turn(waiting: Mapping[str, float], turns: Turns) -> tuple[str, Turns]:
    """Picks one of those who wait (name to cost of its next piece of work), the least served first.

    Who was away comes back level with the others, not with credit. Ties go by name. `waiting` is not empty.
    """
    served = {name: tag for name, tag in turns.served if name in waiting}
    begins = {name: max(served.get(name, turns.clock), turns.clock) for name in waiting}
    chosen = min(begins, key=lambda name: (begins[name], name))
    clock = begins[chosen]
    finish = {name: tag for name, tag in turns.served if tag > clock}
    finish[chosen] = clock + waiting[chosen]
    return chosen, Turns(clock, tuple(sorted(finish.items())))
