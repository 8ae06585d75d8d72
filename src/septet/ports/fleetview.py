"""What the service asks of those who run instances: who runs, what keeps a function from running, the node."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal, Protocol

import msgspec

from septet.model.instance import InstanceEvent, InstanceInfo
from septet.ports.sandbox import Check


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The node now. Memory in MiB: `memory_used` is the sum of the limits of all instances and builds, never above the
    budget."""

    sandbox: str
    limits: Literal["hard", "best effort", "none"]
    memory_budget: int
    memory_used: int
    instances: int
    started_at: float = 0.0


class FleetView(Protocol):
    """Answers from memory, so that a summary costs nothing. fleet.1: none of these methods blocks."""

    def instances(self, namespace: str = "", function: str = "") -> list[InstanceInfo]:
        """Instances that have not stopped; an empty argument means all."""
        ...

    def watch(self) -> AsyncIterator[InstanceEvent]:
        """fleet.2  First one event for each instance there is, then every change, until the iterator is closed."""
        ...

    def obstacle(self, namespace: str, function: str) -> str:
        """What keeps instances of a function from starting now, as a clause ("the node's memory is taken");
        empty when nothing does."""
        ...

    def node(self) -> NodeFacts: ...

    def egress_missing(self) -> tuple[Check, ...]:
        """What this host lacks for network mode egress, as the driver found it; empty when nothing is missing."""
        ...

    async def checks(self) -> list[Check]:
        """What `doctor` shows: this host's features, tried and not assumed."""
        ...
