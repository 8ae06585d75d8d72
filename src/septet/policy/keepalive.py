"""Which instances go when a revision has more than it should."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Candidate(NamedTuple):
    """One instance of the revision. `idle_since` is None while it runs calls or starts."""

    id: str
    ready: bool
    running: int = 0
    idle_since: float | None = None


def surplus(instances: Sequence[Candidate], desired: int) -> tuple[str, ...]:
    """Those to drain so that `desired` remain: still starting ones first, then the longest idle, then the least
    busy. As many ready ones remain as can."""
    excess = len(instances) - max(0, desired)
    return tuple(candidate.id for candidate in sorted(instances, key=_worth)[:excess]) if excess > 0 else ()


def _worth(candidate: Candidate) -> tuple[int, float, str]:
    if not candidate.ready:
        return (0, 0.0, candidate.id)
    if candidate.idle_since is not None:
        return (1, candidate.idle_since, candidate.id)
    return (2, float(candidate.running), candidate.id)
