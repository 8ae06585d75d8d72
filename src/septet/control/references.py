"""Who leads to which revision."""

from __future__ import annotations

from septet.control.mirror import Mirror
from septet.model.function import Function, Revision
from septet.model.objects import Route
from septet.ports.signals import RevisionKey


def reachable(mirror: Mirror) -> set[RevisionKey]:
    """Revisions that traffic (wanted or in force), a tag or a route names, and those about to get traffic."""
    found: set[RevisionKey] = set()
    for function in mirror.all(Function):
        namespace = function.meta.namespace
        found.update((namespace, target.revision) for target in function.status.traffic)
        found.update((namespace, target.revision) for target in function.spec.traffic if target.revision)
        if any(not target.revision for target in function.spec.traffic):
            found.add((namespace, function.status.latest_created))
    for route in mirror.all(Route):
        found.update((route.meta.namespace, target.revision) for target in route.spec.targets if target.revision)
    return found


def referred(mirror: Mirror, function: Function) -> set[str]:
    """Names of this function's revisions that must be kept: reachable ones, the newest, the latest ready one."""
    names = {target.revision for target in (*function.status.traffic, *function.spec.traffic)}
    for route in mirror.all(Route, function.meta.namespace):
        names.update(target.revision for target in route.spec.targets)
    return (names | {function.status.latest_created, function.status.latest_ready}) - {""}


def revisions(mirror: Mirror, function: Function) -> list[Revision]:
    """The function's revisions, oldest first."""
    return sorted(mirror.revisions(function.meta.uid), key=lambda revision: revision.spec.number)
