"""The other stored objects, and the table of all kinds."""

from __future__ import annotations

from typing import Literal, TypeAlias, Union

import msgspec

from septet.model.function import Function, FunctionTemplate, Revision, SecretUse
from septet.model.meta import Condition, Meta


class Quota(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ceilings; 0 means none. Memory and storage in MiB, requests a second with `burst` above it."""

    instances: int = 0
    memory: int = 0
    requests: float = 0.0
    burst: int = 0
    storage: int = 0
    builds: int = 0
    functions: int = 0


class NamespaceSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    quota: Quota = Quota()


class Namespace(msgspec.Struct, frozen=True, kw_only=True, tag="Namespace", tag_field="kind"):
    """A tenant. Its own `meta.namespace` is empty."""

    meta: Meta
    spec: NamespaceSpec = NamespaceSpec()


class RouteMatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request must look like. `path` is exact ("/a"), a prefix ("/a/*") or has parameters ("/u/{id}").

    Empty `host` and `methods` match all. Precedence: exact host before "*.suffix" before none; exact path
    before parameters before prefix, longer before shorter; methods named before none; then the older route.
    """

    host: str = ""
    path: str = "/*"
    methods: tuple[str, ...] = ()


class RouteTarget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A weighted goal in the route's namespace; at most one of `revision` and `tag`, neither means the
    function's own traffic."""

    function: str
    weight: int = 100
    revision: str = ""
    tag: str = ""


class RouteSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`strip` removes the matched prefix before the function sees the path."""

    match: RouteMatch
    targets: tuple[RouteTarget, ...]
    strip: bool = False


class RouteStatus(msgspec.Struct, frozen=True, kw_only=True):
    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()


class Route(msgspec.Struct, frozen=True, kw_only=True, tag="Route", tag_field="kind"):
    meta: Meta
    spec: RouteSpec
    status: RouteStatus = RouteStatus()


class SecretSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Key to sealed value: base64 of what the vault made. A plain value never stands in an object."""

    sealed: dict[str, str] = {}


class Secret(msgspec.Struct, frozen=True, kw_only=True, tag="Secret", tag_field="kind"):
    meta: Meta
    spec: SecretSpec = SecretSpec()


class TokenSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A credential, stored as the SHA-256 of its 256 random bits. `namespaces` and `verbs` may hold "*".

    Verbs are "<resource>:<action>", for example "functions:invoke", "functions:*", "secrets:write".
    """

    sha256: str
    namespaces: tuple[str, ...] = ("*",)
    verbs: tuple[str, ...] = ("*",)
    expires_at: float = 0.0
    quota: Quota = Quota()
    description: str = ""


class Token(msgspec.Struct, frozen=True, kw_only=True, tag="Token", tag_field="kind"):
    """Its own `meta.namespace` is empty: what it may reach stands in the spec."""

    meta: Meta
    spec: TokenSpec


class EnvironmentSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A runtime to build and run functions in: a built-in runtime or an image, a builder, a warm pool."""

    runtime: str = ""
    image: str = ""
    builder: str = ""
    build_command: tuple[str, ...] = ()
    pool: int = 0
    contract: str = ""
    contract_version: int = 1
    env: dict[str, str] = {}
    secrets: tuple[SecretUse, ...] = ()


class Environment(msgspec.Struct, frozen=True, kw_only=True, tag="Environment", tag_field="kind"):
    meta: Meta
    spec: EnvironmentSpec = EnvironmentSpec()


AnyObject: TypeAlias = Union[Namespace, Function, Revision, Route, Secret, Token, Environment]  # noqa: UP007
Kind = Literal["Namespace", "Function", "Revision", "Route", "Secret", "Token", "Environment"]

KINDS: dict[str, type[AnyObject]] = {
    "Namespace": Namespace,
    "Function": Function,
    "Revision": Revision,
    "Route": Route,
    "Secret": Secret,
    "Token": Token,
    "Environment": Environment,
}
CLUSTER_KINDS = frozenset({"Namespace", "Token"})

__all__ = ["CLUSTER_KINDS", "KINDS", "AnyObject", "FunctionTemplate", "Kind"]


def kind_of(obj: AnyObject) -> str:
    """The kind's name, as the store and the watch have it."""
    return type(obj).__name__
