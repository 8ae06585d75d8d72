"""What the data plane and control tell each other: demand, load, instances."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from septet.model.errors import SeptetError
from septet.model.instance import ColdReason, InstanceExit, LimitMet
from septet.ports.contract import Link


class Load(NamedTuple):
    """What the data plane knows of one revision now. `average` is the mean concurrency since the last sample,
    `rate` calls a second since then; `waiting` are calls in the queue, `running` calls inside instances."""

    average: float
    rate: float
    waiting: int
    running: int


RevisionKey = tuple[str, str]
"""(namespace, revision name)"""


class Pool(Protocol):
    """The data plane's side, as control sees it. Keys are (namespace, revision)."""

    def add(self, key: RevisionKey, link: Link, concurrency: int) -> None:
        """A ready instance joins; waiting calls go to it at once. `concurrency` -1 means no limit."""
        ...

    def drain(self, key: RevisionKey, instance: str) -> bool:
        """No new calls for this instance; True when it has none running now."""
        ...

    def remove(self, key: RevisionKey, instance: str) -> None:
        """It is gone. Of an unknown instance, nothing happens."""
        ...

    def idle_since(self, key: RevisionKey, instance: str) -> float | None:
        """Loop time since when it runs nothing; None while it runs a call or is unknown."""
        ...

    def running(self, key: RevisionKey, instance: str) -> int: ...

    def sample(self, key: RevisionKey) -> Load:
        """Load since the previous sample of this key."""
        ...

    def fail_waiting(self, key: RevisionKey, error: SeptetError) -> int:
        """Fails every call that waits for this revision; returns how many."""
        ...


class Demand(Protocol):
    """Control's side, as the data plane sees it."""

    def wanted(self, key: RevisionKey) -> None:
        """A call waits and no instance has room; cheap, may be repeated."""
        ...

    def cold_reason(self, key: RevisionKey) -> ColdReason:
        """Why there was no room."""
        ...

    def lost(self, key: RevisionKey, instance: str) -> None:
        """The link to an instance broke."""
        ...

    def explain(self, instance: str, then: Callable[[InstanceExit | None], None]) -> None:
        """Calls `then` with why an instance ended as soon as that is known, with None when it stays unknown for
        a second."""
        ...

    def limits(self, instance: str, age: float, then: Callable[[tuple[LimitMet, ...]], None]) -> None:
        """Asked of a call that fails: calls `then` once, within a second, with the limits that its instance met in
        the last `age` seconds or meets now, as far as that can be told."""
        ...


InstanceListener = Callable[[], None]
