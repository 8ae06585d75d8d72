"""Who leads to which revision."""

from __future__ import annotations

from septet.control.mirror import Mirror
from septet.model.function import Function, Revision


def reachable(mirror: Mirror, revision: Revision) -> bool:
    """Whether traffic (wanted or in force), a tag or a route names it, or it is about to get traffic."""
    namespace, name = revision.meta.namespace, revision.meta.name
    function = mirror.get(Function, namespace, revision.spec.function)
    if function is not None:
        if any(target.revision == name for target in (*function.status.traffic, *function.spec.traffic)):
            return True
        if name == function.status.latest_created and any(not target.revision for target in function.spec.traffic):
            return True
    routes = mirror.routes_to(namespace, revision.spec.function)
    return any(target.revision == name for route in routes for target in route.spec.targets)


def referred(mirror: Mirror, function: Function) -> set[str]:
    """Names of this function's revisions that must be kept: reachable ones, the newest, the latest ready one."""
    names = {target.revision for target in (*function.status.traffic, *function.spec.traffic)}
    for route in mirror.routes_to(function.meta.namespace, function.meta.name):
        names.update(target.revision for target in route.spec.targets)
    return (names | {function.status.latest_created, function.status.latest_ready}) - {""}


def revisions(mirror: Mirror, function: Function) -> list[Revision]:
    """The function's revisions, oldest first."""
    return sorted(mirror.revisions(function), key=lambda revision: revision.spec.number)
