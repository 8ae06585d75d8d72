"""What the service asks of those who run instances: who runs, what keeps a function from running, the node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Literal, Protocol

import msgspec

from septet.model.instance import InstanceEvent, InstanceInfo
from septet.model.objects import AnyObject
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

    def zygotes(self, namespace: str, function: str) -> int:
        """How many zygotes of the function's own are kept; each counts with its memory limit."""
        ...

    def node(self) -> NodeFacts: ...

    def egress_missing(self, sandbox: str = "") -> tuple[Check, ...]:
        """What this host lacks for network mode egress, as that sandbox's driver found it (an empty name is the
        default's); empty when nothing is missing."""
        ...

    async def known(self, objects: Iterable[AnyObject]) -> None:
        """Waits for the side of the calls, which learns of a write a little after whoever reads the store.

        fleet.3  Returns once it has each of these objects as it is here, or newer, or knows that it is gone: a function
                 that was said to be ready answers from then on. After two seconds it returns all the same.
        """
        ...

    async def checks(self) -> list[Check]:
        """What `doctor` shows: this host's features, tried and not assumed."""
        ...
