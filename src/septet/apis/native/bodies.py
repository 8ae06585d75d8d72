"""What clients send: bodies and query parameters. An unknown key is refused everywhere."""

from __future__ import annotations

from typing import Any

import msgspec

from septet.model.function import FunctionSpec, TrafficTarget
from septet.model.objects import EnvironmentSpec, NamespaceSpec, Quota, RouteSpec


class Query(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """No parameters."""


class ApplyQuery(Query, frozen=True, kw_only=True):
    """`dry_run` answers what would happen, and writes nothing."""

    dry_run: bool = False


class PageQuery(Query, frozen=True, kw_only=True):
    """`limit` items a page; `cursor` is the page before's."""

    limit: int = 100
    cursor: str = ""


class ListQuery(PageQuery, frozen=True, kw_only=True):
    """`label` is `key=value`, several with commas or repeated: all must match."""

    label: str = ""


class LogQuery(Query, frozen=True, kw_only=True):
    """`since` is in epoch seconds; `tail` counts the last lines, 0 for all; `follow` goes on with new ones."""

    follow: bool = False
    since: float = 0.0
    tail: int = 0
    revision: str = ""
    instance: str = ""
    invocation: str = ""


class FollowQuery(Query, frozen=True, kw_only=True):
    """`follow` goes on until the build has ended."""

    follow: bool = False


class LimitQuery(Query, frozen=True, kw_only=True):
    limit: int = 100


class WatchQuery(Query, frozen=True, kw_only=True):
    """`kinds` has commas between; `after` is a version, left out for changes from now on."""

    kinds: str = ""
    after: int | None = None
    namespace: str = ""


class InstanceQuery(Query, frozen=True, kw_only=True):
    namespace: str = ""
    function: str = ""


class AuditQuery(LimitQuery, frozen=True, kw_only=True):
    """`before` is an entry's id."""

    before: int = 0


class BackupQuery(Query, frozen=True, kw_only=True):
    """`key` puts the vault's key into the backup, which then opens every secret."""

    key: bool = False


class Metadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out stays as it is; `resource_version` refuses the write when the object has moved on."""

    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    resource_version: int = 0


class FunctionBody(Metadata, frozen=True, kw_only=True):
    spec: FunctionSpec


class NamespaceBody(Metadata, frozen=True, kw_only=True):
    spec: NamespaceSpec = NamespaceSpec()


class RouteBody(Metadata, frozen=True, kw_only=True):
    spec: RouteSpec


class EnvironmentBody(Metadata, frozen=True, kw_only=True):
    spec: EnvironmentSpec = EnvironmentSpec()


class NewNamespaceBody(NamespaceBody, frozen=True, kw_only=True):
    name: str


class SecretBody(Metadata, frozen=True, kw_only=True):
    """Key to value in base64; all keys at once."""

    data: dict[str, bytes]

    def __repr__(self) -> str:
        return f"SecretBody(keys={sorted(self.data)!r})"


class TrafficBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`rollout` in seconds; left out, the function's own stays."""

    targets: tuple[TrafficTarget, ...]
    rollout: float | None = None


class RollbackBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Empty for the revision that served before."""

    revision: str = ""


class TokenBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`expires_at` in epoch seconds, 0 for never."""

    name: str
    namespaces: tuple[str, ...]
    verbs: tuple[str, ...]
    expires_at: float = 0.0
    quota: Quota = Quota()
    description: str = ""


def _flat(name: str, body: type[Metadata], spec: type[msgspec.Struct], extra: tuple[str, ...] = ()) -> Any:
    """The same body with the spec's fields beside the metadata's, as septet.yaml has them."""
    kept = ("labels", "annotations", "resource_version", *extra)
    fields = [f for f in msgspec.structs.fields(body) if f.name in kept]
    own = [*msgspec.structs.fields(spec), *fields]
    return msgspec.defstruct(
        name,
        [(f.name, f.type) if f.required else (f.name, f.type, f.default) for f in own],
        kw_only=True,
        frozen=True,
        forbid_unknown_fields=True,
        module=__name__,
    )


FLAT: dict[type[msgspec.Struct], tuple[Any, type[msgspec.Struct]]] = {
    FunctionBody: (_flat("FunctionFields", FunctionBody, FunctionSpec), FunctionSpec),
    NamespaceBody: (_flat("NamespaceFields", NamespaceBody, NamespaceSpec), NamespaceSpec),
    NewNamespaceBody: (_flat("NewNamespaceFields", NewNamespaceBody, NamespaceSpec, ("name",)), NamespaceSpec),
    RouteBody: (_flat("RouteFields", RouteBody, RouteSpec), RouteSpec),
    EnvironmentBody: (_flat("EnvironmentFields", EnvironmentBody, EnvironmentSpec), EnvironmentSpec),
}
"""Body to its flat form, and the struct of its `spec`."""


def as_nested(flat: Any, body: type[msgspec.Struct]) -> Any:
    """The nested body of a flat one."""
    spec = FLAT[body][1]
    rest = {f: getattr(flat, f) for f in flat.__struct_fields__ if f not in spec.__struct_fields__}
    return body(spec=spec(**{f: getattr(flat, f) for f in spec.__struct_fields__}), **rest)
