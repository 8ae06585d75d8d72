"""Which route object a request belongs to, by host, path and method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple
from urllib.parse import unquote

from septet.model.errors import InvalidInput
from septet.model.objects import Route

Shape = Literal["exact", "parameters", "prefix"]
_RANK: dict[Shape, int] = {"exact": 0, "parameters": 1, "prefix": 2}


class Pattern(NamedTuple):
    """A path pattern in segments; a parameter's segment is (name, True). `prefix` allows more after it."""

    segments: tuple[tuple[str, bool], ...]
    prefix: bool

    @property
    def shape(self) -> Shape:
        if self.prefix:
            return "prefix"
        return "parameters" if any(parameter for _, parameter in self.segments) else "exact"


class Entry(NamedTuple):
    """A route, ready to be matched. `host` is lower case: exact, "*.suffix", or empty."""

    route: Route
    host: str
    pattern: Pattern
    methods: frozenset[str]


class Match(NamedTuple):
    """The route of a request, the decoded path parameters, and the raw path after the matched prefix ("/..."),
    which is the whole path for a route that is not a prefix."""

    route: Route
    parameters: dict[str, str]
    rest: str


class Miss(NamedTuple):
    """No route. `allow` holds the methods that would have matched: empty means that the path is unknown."""

    allow: tuple[str, ...] = ()


def parse_path(path: str) -> Pattern:
    """Reads "/a", "/a/*" or "/u/{id}"; a prefix may have parameters. Raises InvalidInput."""
    if not path.startswith("/"):
        raise _bad(path, "begins with a slash")
    prefix = path.endswith("/*")
    parts = path[1:-2].split("/") if prefix and len(path) > 2 else [] if prefix else path[1:].split("/")
    segments: list[tuple[str, bool]] = []
    for part in parts:
        parameter = part.startswith("{") and part.endswith("}")
        name = part[1:-1] if parameter else unquote(part)
        if parameter and not name.isidentifier():
            raise _bad(path, "names parameters with letters, digits and underscores")
        if not parameter and any(mark in part for mark in "{}*"):
            raise _bad(path, "has { }, and * only as whole segments, and * only at the end")
        segments.append((name, parameter))
    names = [name for name, parameter in segments if parameter]
    if len(names) != len(set(names)):
        raise _bad(path, "uses each parameter name once")
    return Pattern(tuple(segments), prefix)


def _bad(path: str, rule: str) -> InvalidInput:
    return InvalidInput(
        f"{path!r} is no path of a route: such a path {rule}",
        hint='write "/a", "/a/*" or "/u/{id}"',
        details={"field": "match.path"},
    )


def table(routes: Iterable[Route]) -> tuple[Entry, ...]:
    """All routes in the order in which they are tried: the first that matches is the one."""
    entries = [
        Entry(
            route,
            route.spec.match.host.lower(),
            parse_path(route.spec.match.path),
            frozenset(method.upper() for method in route.spec.match.methods),
        )
        for route in routes
    ]
    return tuple(sorted(entries, key=_precedence))


def _precedence(entry: Entry) -> tuple[object, ...]:
    host = 2 if not entry.host else 1 if entry.host.startswith("*.") else 0
    shape = entry.pattern.shape
    literals = tuple(1 if parameter else 0 for _, parameter in entry.pattern.segments)
    return (
        host,
        -len(entry.host),
        _RANK[shape],
        -len(entry.pattern.segments),
        literals,
        0 if entry.methods else 1,
        entry.route.meta.created_at,
        entry.route.meta.namespace,
        entry.route.meta.name,
    )


def find(entries: Sequence[Entry], host: str, path: str, method: str) -> Match | Miss:
    """The route of a request. `host` may carry a port; `path` is raw, without the query."""
    bare = _bare_host(host)
    raw = path[1:].split("/")
    segments = [unquote(segment) for segment in raw]
    allow: set[str] = set()
    for entry in entries:
        if not _host_matches(entry.host, bare):
            continue
        parameters = _path_matches(entry.pattern, segments)
        if parameters is None:
            continue
        if entry.methods and method.upper() not in entry.methods:
            allow |= entry.methods
            continue
        rest = "/" + "/".join(raw[len(entry.pattern.segments) :]) if entry.pattern.prefix else path
        return Match(entry.route, parameters, rest)
    return Miss(tuple(sorted(allow)))


def _bare_host(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].rstrip(".").lower()


def _host_matches(pattern: str, host: str) -> bool:
    if not pattern:
        return True
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return host == pattern


def _path_matches(pattern: Pattern, segments: Sequence[str]) -> dict[str, str] | None:
    count = len(pattern.segments)
    if len(segments) < count or (len(segments) > count and not pattern.prefix):
        return None
    found: dict[str, str] = {}
    for (name, parameter), segment in zip(pattern.segments, segments, strict=False):
        if parameter:
            if not segment:
                return None
            found[name] = segment
        elif name != segment:
            return None
    return found
