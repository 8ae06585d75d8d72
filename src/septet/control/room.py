"""Room for one more instance: the node's budget and the namespace's quota, and what has to go for it."""

from __future__ import annotations

from collections.abc import Sequence

from septet.control.fleet import Fleet, Member
from septet.control.mirror import Mirror
from septet.control.settings import ControlSettings
from septet.model.function import Revision
from septet.model.objects import Namespace
from septet.policy import placement, quota
from septet.policy.placement import Budget, Occupant
from septet.ports.signals import Pool, RevisionKey


class Room:
    """Facts for `policy.placement` and `policy.quota`."""

    def __init__(self, mirror: Mirror, fleet: Fleet, pool: Pool, settings: ControlSettings) -> None:
        self._mirror = mirror
        self._fleet = fleet
        self._pool = pool
        self._node = Budget(settings.memory, settings.instances)

    def make(self, revision: Revision) -> tuple[str, ...]:
        """The idle instances that have to go for one more of `revision`. Raises NodeFull or QuotaExceeded."""
        memory = revision.spec.template.limits.memory
        live = [member for member in self._fleet.members() if member.live]
        kept = self._kept(live)
        going = self._within_quota(revision, memory, live, kept)
        rest = [self._occupant(member, kept) for member in live if member.id not in going]
        more = placement.place(memory, self._node, rest, revision.meta.name)
        return (*going, *more)

    def _within_quota(
        self, revision: Revision, memory: int, live: Sequence[Member], kept: set[RevisionKey]
    ) -> tuple[str, ...]:
        name = revision.meta.namespace
        namespace = self._mirror.get(Namespace, "", name)
        if namespace is None:
            return ()
        ceiling = namespace.spec.quota
        own = [self._occupant(member, kept) for member in live if member.key[0] == name]
        going = placement.evictions(memory, Budget(ceiling.memory, ceiling.instances), own)
        if going is None:
            used = quota.Usage(instances=len(own), memory=sum(occupant.memory for occupant in own))
            quota.check(ceiling, used, quota.Usage(instances=1, memory=memory), f"namespace {name!r}")
        return going or ()

    def _occupant(self, member: Member, kept: set[RevisionKey]) -> Occupant:
        idle = self._pool.idle_since(member.key, member.id) if member.phase == "ready" else None
        return Occupant(member.id, member.memory, idle, member.key in kept)

    def _kept(self, live: Sequence[Member]) -> set[RevisionKey]:
        """Revisions that have no instance to spare: at their minimum, or not yet ready."""
        count: dict[RevisionKey, int] = {}
        revisions: dict[RevisionKey, Revision] = {}
        for member in live:
            count[member.key] = count.get(member.key, 0) + 1
            revisions[member.key] = self._mirror.get(Revision, *member.key) or member.revision
        return {
            key
            for key, revision in revisions.items()
            if revision.status.phase == "starting" or count[key] <= revision.spec.template.scale.min
        }
