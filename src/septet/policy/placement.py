"""Room on the node: what has to go so that a new instance fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from septet.model.errors import NodeFull


class Occupant(NamedTuple):
    """One instance. Memory is its limit in MiB. `idle_since` is None while it runs a call or starts; `kept`
    is set for those that must stay (the minimum of their revision). `owner` is whose instance it is, and
    `running` how many calls it has; `frozen` ones are kept for a next call and go before all others."""

    id: str
    memory: int
    idle_since: float | None = None
    kept: bool = False
    owner: str = ""
    running: int = 0
    frozen: bool = False


class Budget(NamedTuple):
    """Ceilings in MiB and in instances; 0 means none."""

    memory: int = 0
    instances: int = 0


def evictions(memory: int, budget: Budget, occupants: Sequence[Occupant]) -> tuple[str, ...] | None:
    """The idle instances to stop so that one of `memory` MiB fits, frozen ones first, then the longest idle;
    empty when there is room, None when there cannot be."""
    excess = sum(occupant.memory for occupant in occupants) + memory - budget.memory if budget.memory else 0
    surplus = len(occupants) + 1 - budget.instances if budget.instances else 0
    idle = [(not o.frozen, o.idle_since, o) for o in occupants if o.idle_since is not None and not o.kept]
    chosen: list[Occupant] = []
    for _, _, occupant in sorted(idle, key=lambda entry: entry[:2]):
        if excess <= 0 and surplus <= 0:
            break
        chosen.append(occupant)
        excess -= occupant.memory
        surplus -= 1
    if excess > 0 or surplus > 0:
        return None
    return tuple(_spared(chosen, -excess if budget.memory else None, -surplus if budget.instances else None))


def reclaimed(memory: int, budget: Budget, occupants: Sequence[Occupant], least: Mapping[str, int]) -> tuple[str, ...]:
    """The instances to take from those who have most, for somebody who has none: the least busy of the owner with
    the most memory first, again and again until one of `memory` MiB fits. Each owner keeps one, and at least as
    many as `least` says. Empty when that does not make room."""
    left = list(occupants)
    taken: list[str] = []
    while not _fits(memory, budget, left):
        held: dict[str, list[Occupant]] = {}
        for occupant in left:
            held.setdefault(occupant.owner, []).append(occupant)
        rich = [own for owner, own in held.items() if len(own) > max(1, least.get(owner, 0))]
        if not rich:
            return ()
        richest = max(rich, key=lambda own: (sum(occupant.memory for occupant in own), own[0].owner))
        victim = min(richest, key=lambda occupant: (occupant.running, occupant.idle_since or 0.0, occupant.id))
        left.remove(victim)
        taken.append(victim.id)
    return tuple(taken)


def _fits(memory: int, budget: Budget, occupants: Sequence[Occupant]) -> bool:
    room = not budget.memory or sum(occupant.memory for occupant in occupants) + memory <= budget.memory
    return room and (not budget.instances or len(occupants) < budget.instances)


def _spared(chosen: Sequence[Occupant], memory: int | None, instances: int | None) -> list[str]:
    """Leaves out those that turn out not to be needed; `memory` and `instances` are what is free beyond need."""
    needed: list[str] = []
    for occupant in reversed(chosen):
        spare = (memory is None or occupant.memory <= memory) and (instances is None or instances >= 1)
        if not spare:
            needed.append(occupant.id)
            continue
        memory = None if memory is None else memory - occupant.memory
        instances = None if instances is None else instances - 1
    needed.reverse()
    return needed


def place(memory: int, budget: Budget, occupants: Sequence[Occupant], name: str) -> tuple[str, ...]:
    """As `evictions`; raises NodeFull, with the numbers, when there cannot be room for an instance of `name`."""
    found = evictions(memory, budget, occupants)
    if found is not None:
        return found
    used = sum(occupant.memory for occupant in occupants)
    idle = sum(1 for occupant in occupants if occupant.idle_since is not None and not occupant.kept)
    never = bool(budget.memory) and memory > budget.memory
    raise NodeFull(
        f"no memory for an instance of {name}: it needs {memory} MiB, and of the node's {budget.memory} MiB "
        f"{used} MiB are taken by {len(occupants)} instances and builds, {idle} of them idle",
        hint="lower limits.memory or raise the node's memory budget"
        if never
        else "try again shortly, lower limits.memory, or raise the node's memory budget",
        limit=f"node memory {budget.memory} MiB",
        retry_after=None if never else 1.0,
        details={"needed": memory, "budget": budget.memory, "used": used, "instances": len(occupants), "idle": idle},
    )
