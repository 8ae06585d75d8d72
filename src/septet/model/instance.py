"""Instances: never stored, always observed."""

from __future__ import annotations

from typing import Literal

import msgspec

InstanceState = Literal["starting", "running", "ready", "frozen", "draining", "stopped"]
Protocol = Literal["frames", "http1", "h2c"]
Tier = Literal["", "pool", "zygote", "function-zygote", "exec"]
"""What an instance was made from: a prepared sandbox, a fork of a running interpreter, of one that has the function's
code loaded, or an exec."""
ColdReason = Literal["", "scaled-to-zero", "frozen", "new-revision", "burst", "evicted", "crashed"]


class LimitMet(msgspec.Struct, frozen=True, kw_only=True):
    """A limit that an instance ran into. `name` is "memory", "pids", "tmp", "open files", or another driver's word;
    `value` has its unit. `times` is how often the kernel refused something since the start; 0 where nobody counts:
    then it is full now."""

    name: str
    value: str
    times: int = 0

    def __str__(self) -> str:
        return f"{self.name} {self.value}"


class InstanceExit(msgspec.Struct, frozen=True, kw_only=True):
    """Why an instance ended. `limit` is "memory", "pids", "tmp", "time" or empty; `message` is a sentence.
    `met` are the limits that it ran into while it lived, whatever it ended of."""

    code: int | None = None
    signal: int | None = None
    limit: str = ""
    message: str = ""
    asked: bool = False
    met: tuple[LimitMet, ...] = ()


class InstanceStats(msgspec.Struct, frozen=True, kw_only=True):
    """Use so far: memory now and at its peak in bytes, processor seconds, processes now, and the limits that it met."""

    memory: int = 0
    memory_peak: int = 0
    cpu_seconds: float = 0.0
    pids: int = 0
    met: tuple[LimitMet, ...] = ()


class InstanceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One instance as its driver sees it. Times are seconds since the epoch; `memory` is its limit in MiB."""

    id: str
    namespace: str
    function: str
    revision: str
    driver: str
    state: InstanceState
    protocol: Protocol
    started_at: float
    memory: int = 0
    labels: dict[str, str] = {}
    exit: InstanceExit | None = None
    tier: Tier = ""


class InstanceEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A change of an instance's state; `stopped` carries the exit."""

    instance: InstanceInfo
    at: float
