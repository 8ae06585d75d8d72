"""Routes: rules that lead requests to functions of their own namespace."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from septet.model.errors import Conflict
from septet.model.meta import Meta
from septet.model.objects import Route, RouteMatch, RouteSpec
from septet.policy.routes import Pattern, parse_path
from septet.service import references, validation
from septet.service.commands import ApplyRoute, DeleteRoute, GetRoute, ListRoutes
from septet.service.context import Context
from septet.service.listing import page_of
from septet.service.plan import Wish, apply
from septet.service.results import Listing, RouteApplied

_HOST = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_METHOD = re.compile(r"[A-Z][A-Z-]{0,31}")
OWN_PATHS = ("septet", "healthz", "readyz", "livez", "metrics", "fn", "_", "api", "apis", "v2", "system", "function")
"""First segments that the platform's own faces answer: no route may claim them."""


async def apply_route(context: Context, command: ApplyRoute) -> RouteApplied:
    validation.name_of("Route", command.name)
    check_match(command.spec.match)
    _check_targets(command.spec)
    validation.pairs("labels", command.labels or {})
    validation.pairs("annotations", command.annotations or {})
    await references.live_namespace(context, command.namespace)

    async def before_write(_known: Route | None) -> None:
        await references.route_references(context, command.namespace, command.spec.targets)
        foreign = [route for route in await context.all(Route) if route.meta.namespace != command.namespace]
        _check_taken(command.spec.match, foreign)

    outcome = await apply(
        context,
        Route(meta=Meta(name=command.name, namespace=command.namespace), spec=command.spec),
        Wish(command.labels, command.annotations, None, command.resource_version, command.dry_run),
        lambda known: msgspec.structs.replace(known, spec=command.spec),
        before_write,
    )
    return RouteApplied(action=outcome.action, changes=outcome.changes, route=outcome.obj)


def check_match(match: RouteMatch) -> None:
    """Raises InvalidInput for a rule that cannot be met, or that claims a path of the platform's own."""
    if match.host and (len(match.host) > 253 or not _HOST.fullmatch(match.host)):
        validation.refuse("match.host", f"{match.host[:100]!r} is no host name", "lower case, or *.suffix, no port")
    if len(match.path) > 2048:
        validation.refuse("match.path", "is longer than 2048 characters")
    validation.plain("match.path", match.path)
    if "?" in match.path or "#" in match.path:
        validation.refuse("match.path", "has no query and no fragment")
    pattern = parse_path(match.path)
    if any(name in (".", "..") for name, parameter in pattern.segments if not parameter):
        validation.refuse("match.path", "has a dot segment")
    first, parameter = pattern.segments[0] if pattern.segments else ("", True)
    if not parameter and first in OWN_PATHS:
        validation.refuse("match.path", f"/{first} is the platform's own", "begin the path with another word")
    for method in match.methods:
        if not _METHOD.fullmatch(method):
            validation.refuse("match.methods", f"{method[:40]!r} is no method", "GET, POST and the like, upper case")


def _check_targets(spec: RouteSpec) -> None:
    if not 1 <= len(spec.targets) <= 100:
        validation.refuse("targets", f"has 1 to 100 targets, not {len(spec.targets)}")
    for index, target in enumerate(spec.targets):
        validation.name_of("Function", target.function)
        validation.number(f"targets[{index}].weight", target.weight, 0, 1_000_000)
        if target.revision and target.tag:
            validation.refuse(f"targets[{index}]", "names a revision and a tag", "leave one of them out")
    if not any(target.weight for target in spec.targets):
        validation.refuse("targets", "none has a weight above 0, so no request could go anywhere")


def _check_taken(match: RouteMatch, foreign: Iterable[Route]) -> None:
    """A tenant's route takes no request away from another tenant's."""
    pattern = parse_path(match.path)
    for route in foreign:
        other = route.spec.match
        if _hosts_meet(match.host, other.host) and _paths_meet(pattern, parse_path(other.path)):
            raise Conflict(
                f"{match.host or 'any host'} {match.path} is claimed by another namespace already",
                hint="name a host of your own in match.host, or another path",
                details={"reason": "state", "field": "match"},
            )


def _hosts_meet(one: str, other: str) -> bool:
    """Whether both claim the same host. A named host comes before none, and an exact one before a suffix, by the
    stated precedence; only the same text, or a host under another's suffix, takes requests away."""
    if one == other:
        return True
    if one.startswith("*.") and other.endswith(one[1:]):
        return True
    return other.startswith("*.") and one.endswith(other[1:])


def _paths_meet(one: Pattern, other: Pattern) -> bool:
    """Whether some path matches both."""
    shared = min(len(one.segments), len(other.segments))
    if len(one.segments) > shared and not other.prefix:
        return False
    if len(other.segments) > shared and not one.prefix:
        return False
    return all(
        mine == theirs or parameter or their_parameter
        for (mine, parameter), (theirs, their_parameter) in zip(one.segments, other.segments, strict=False)
    )


async def get_route(context: Context, command: GetRoute) -> Route:
    route = await context.get(Route, command.namespace, command.name)
    await context.told(route)
    return route


async def list_routes(context: Context, command: ListRoutes) -> Listing[Route]:
    return await page_of(context, Route, command.namespace, command.labels, command.limit, command.cursor)


async def delete_route(context: Context, command: DeleteRoute) -> Route:
    deleted = await context.ports.store.delete(
        "Route", command.namespace, command.name, resource_version=command.resource_version
    )
    assert isinstance(deleted, Route)
    return deleted
