"""Room for one more instance: the node's budget and the quotas of namespace and token, and what has to go for it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from septet.control.fleet import LIVE, Fleet, Member
from septet.control.mirror import Mirror
from septet.control.settings import ControlSettings
from septet.model.function import Revision
from septet.model.objects import Namespace, Quota, Token
from septet.policy import placement, quota
from septet.policy.placement import Budget, Occupant
from septet.ports.signals import Pool

COUNTED = LIVE | {"frozen"}


class Room:
    """Facts for `policy.placement` and `policy.quota`."""

    def __init__(self, mirror: Mirror, fleet: Fleet, pool: Pool, settings: ControlSettings) -> None:
        self._mirror = mirror
        self._fleet = fleet
        self._pool = pool
        self._node = Budget(settings.memory, settings.instances)

    def make(self, revision: Revision, claim: bool, expected: bool = False) -> tuple[str, ...]:
        """The instances that have to go for one more of `revision`: idle ones, or, when it has none at all, busy
        ones of those who have most; they finish their calls. Without a `claim` (nobody waits for it) nothing goes
        for it but frozen ones: else two functions would take each other's idle instances for ever. For one that is
        merely `expected` to be called, nothing goes. Raises NodeFull, QuotaExceeded."""
        memory = revision.spec.template.limits.memory
        key = (revision.meta.namespace, revision.meta.name)
        live = self._live()
        if self._fits(revision, memory, live):
            return ()
        live, least, occupants = self._there()
        if not claim:
            occupants = {
                id: occupant if occupant.frozen and not expected else occupant._replace(idle_since=None)
                for id, occupant in occupants.items()
            }
        fair = least if claim and not any(member.key == key for member in live) else None
        going: tuple[str, ...] = ()
        for who, ceiling, members in self._ceilings(revision, live):
            own = [occupants[member.id] for member in members if member.id not in going]
            going += self._within(ceiling, memory, own, fair, who)
        rest = [occupant for occupant in occupants.values() if occupant.id not in going] + self._builds()
        more = placement.evictions(memory, self._budget(), rest)
        if more is None and fair is not None:
            more = placement.reclaimed(memory, self._budget(), rest, fair) or None
        if more is None:
            more = placement.place(memory, self._budget(), rest, revision.meta.name)
        return (*going, *more)

    def clear(self, memory: int) -> tuple[str, ...] | None:
        """The instances that have to go so that a build may have `memory` MiB: as for a revision that has none.
        None when that does not make room."""
        _, least, occupants = self._there()
        rest = [*occupants.values(), *self._builds()]
        budget = Budget(self._node.memory)
        going = placement.evictions(memory, budget, rest)
        return placement.reclaimed(memory, budget, rest, least) or None if going is None else going

    def _there(self) -> tuple[list[Member], dict[str, int], dict[str, Occupant]]:
        """The instances that count, what each revision must keep, and the instances as `policy.placement` sees them."""
        live = self._live()
        least = self._least(live)
        return live, least, {member.id: self._occupant(member, least) for member in live}

    def _live(self) -> list[Member]:
        return [member for member in self._fleet.members() if member.phase in COUNTED]

    def _fits(self, revision: Revision, memory: int, live: Sequence[Member]) -> bool:
        """Whether there is room with everybody where they are, as nearly always: then nobody has to be weighed."""
        builds = self._fleet.reserved()
        used = sum(member.memory for member in live) + sum(wanted.memory for wanted in builds)
        node = self._node
        if (node.memory and used + memory > node.memory) or (node.instances and len(live) >= node.instances):
            return False
        return not any(limits.memory or limits.instances for _, limits, _ in self._ceilings(revision, ()))

    def _builds(self) -> list[Occupant]:
        """What builds hold or wait for. Nothing moves them: each has an owner of its own, who keeps it."""
        names = (f"a build ({number})" for number in itertools.count(1))
        return [
            Occupant(name, wanted.memory, kept=True, owner=name)
            for name, wanted in zip(names, self._fleet.reserved(), strict=False)
        ]

    def _budget(self) -> Budget:
        """The node's; builds are no instances."""
        node = self._node
        return node._replace(instances=node.instances + len(self._fleet.reserved())) if node.instances else node

    def _ceilings(self, revision: Revision, live: Sequence[Member]) -> Iterator[tuple[str, Quota, list[Member]]]:
        """Who is held to a quota that counts this revision, and the instances that count towards it already."""
        name = revision.meta.namespace
        namespace = self._mirror.get(Namespace, "", name)
        if namespace is not None:
            yield f"namespace {name!r}", namespace.spec.quota, [member for member in live if member.key[0] == name]
        for account in revision.meta.applied_by:
            token = self._mirror.get(Token, "", account)
            if token is not None:
                own = [member for member in live if account in member.revision.meta.applied_by]
                yield f"token {account!r}", token.spec.quota, own

    def _within(
        self, ceiling: Quota, memory: int, own: Sequence[Occupant], fair: Mapping[str, int] | None, who: str
    ) -> tuple[str, ...]:
        """As `make`, by one quota alone."""
        budget = Budget(ceiling.memory, ceiling.instances)
        going = placement.evictions(memory, budget, own)
        if going is None and fair is not None:
            going = placement.reclaimed(memory, budget, own, fair) or None
        if going is None:
            used = quota.Usage(instances=len(own), memory=sum(occupant.memory for occupant in own))
            quota.check(ceiling, used, quota.Usage(instances=1, memory=memory), who)
        return going or ()

    def _occupant(self, member: Member, least: Mapping[str, int]) -> Occupant:
        owner = _owner(member)
        if member.phase == "frozen":
            return Occupant(member.id, member.memory, member.frozen_since, owner=owner, frozen=True)
        ready = member.phase == "ready"
        return Occupant(
            member.id,
            member.memory,
            idle_since=self._pool.idle_since(member.key, member.id) if ready else None,
            kept=len(self._fleet.members(member.key)) <= least[owner],
            owner=owner,
            running=self._pool.running(member.key, member.id),
        )

    def _least(self, live: Sequence[Member]) -> dict[str, int]:
        """How many instances each revision must keep: its minimum, or, while it is not ready, all it has."""
        found: dict[str, int] = {}
        for member in live:
            owner = _owner(member)
            if owner not in found:
                revision = self._mirror.get(Revision, *member.key) or member.revision
                starting = revision.status.phase == "starting"
                found[owner] = len(self._fleet.members(member.key)) if starting else revision.spec.template.scale.min
        return found


def _owner(member: Member) -> str:
    return "/".join(member.key)
