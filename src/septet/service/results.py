"""What commands answer, beside the model's own objects."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

import msgspec

from septet.model.function import Function
from septet.model.instance import InstanceInfo
from septet.model.meta import Condition, Meta
from septet.model.objects import Environment, Namespace, Quota, Route
from septet.ports.fleetview import NodeFacts
from septet.ports.logs import LogLine
from septet.ports.sandbox import Check

__all__ = [
    "Action",
    "AuditEntry",
    "AuditLog",
    "BlobFacts",
    "ChangeView",
    "Check",
    "EnvironmentApplied",
    "FieldChange",
    "FunctionApplied",
    "Health",
    "InstanceChange",
    "Listing",
    "LogLine",
    "NamespaceApplied",
    "NodeFacts",
    "RevisionLine",
    "RouteApplied",
    "ScaleChange",
    "SecretApplied",
    "SecretView",
    "Summary",
    "TokenCreated",
    "TokenFacts",
    "TokenView",
    "Version",
]

Item = TypeVar("Item")
Action = Literal["created", "updated", "unchanged"]


class Listing(msgspec.Struct, Generic[Item], frozen=True, kw_only=True):
    """A page of a list. `cursor` is the argument for the next page, empty at the end; `version` is the store's
    version that the whole list shows, and where a watch can go on."""

    items: tuple[Item, ...]
    cursor: str = ""
    version: int = 0


class FieldChange(msgspec.Struct, frozen=True, kw_only=True):
    """One difference: the field's path ("limits.memory"), what was there and what comes; null for nothing."""

    field: str
    old: Any = None
    new: Any = None


class FunctionApplied(msgspec.Struct, frozen=True, kw_only=True):
    """What an apply did, or, as a dry run, would do; then `function` is what it would become."""

    action: Action
    changes: tuple[FieldChange, ...]
    function: Function


class NamespaceApplied(msgspec.Struct, frozen=True, kw_only=True):
    action: Action
    changes: tuple[FieldChange, ...]
    namespace: Namespace


class RouteApplied(msgspec.Struct, frozen=True, kw_only=True):
    action: Action
    changes: tuple[FieldChange, ...]
    route: Route


class EnvironmentApplied(msgspec.Struct, frozen=True, kw_only=True):
    action: Action
    changes: tuple[FieldChange, ...]
    environment: Environment


class SecretView(msgspec.Struct, frozen=True, kw_only=True, tag="Secret", tag_field="kind"):
    """A secret as it may be seen: the names of its keys."""

    meta: Meta
    keys: tuple[str, ...]


class SecretApplied(msgspec.Struct, frozen=True, kw_only=True):
    """`changes` names keys, never values."""

    action: Action
    changes: tuple[FieldChange, ...]
    secret: SecretView


class TokenFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A token's spec without its hash. `expires_at` is epoch seconds, 0 never."""

    namespaces: tuple[str, ...]
    verbs: tuple[str, ...]
    expires_at: float
    quota: Quota
    description: str


class TokenView(msgspec.Struct, frozen=True, kw_only=True, tag="Token", tag_field="kind"):
    meta: Meta
    spec: TokenFacts


class TokenCreated(msgspec.Struct, frozen=True, kw_only=True):
    """`token` is the credential itself, shown this once and kept nowhere."""

    token: str
    object: TokenView

    def __repr__(self) -> str:
        return f"TokenCreated(name={self.object.meta.name!r})"


class BlobFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Stored bytes: "sha256:<hex>" and how many."""

    digest: str
    size: int


class ScaleChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change of a function's scale; what is not given stays. Times in seconds."""

    min: int | None = None
    max: int | None = None
    initial: int | None = None
    policy: str | None = None
    target: float | None = None
    utilization: float | None = None
    window: float | None = None
    panic_window_percent: float | None = None
    panic_threshold_percent: float | None = None
    max_up_rate: float | None = None
    max_down_rate: float | None = None
    down_delay: float | None = None
    grace: float | None = None
    keep_alive: float | Literal["auto"] | None = None


class RevisionLine(msgspec.Struct, frozen=True, kw_only=True):
    """A revision in a summary. `percent` is its share of the traffic now."""

    name: str
    phase: str
    percent: int
    tags: tuple[str, ...]
    created_at: float
    message: str = ""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """All about a function, its first question first: `callable` and, in words, `answer`.

    `limits` says how hard this host holds the limits: "hard", "best effort" or "none". `frozen` of the instances are
    kept without running, for a next call; `zygotes` of the function's own are, to be forked.
    """

    name: str
    namespace: str
    callable: bool
    answer: str
    urls: tuple[str, ...]
    runtime: str
    access: str
    limits: str
    revisions: tuple[RevisionLine, ...]
    instances: tuple[InstanceInfo, ...]
    conditions: tuple[Condition, ...]
    frozen: int = 0
    zygotes: int = 0


class InstanceChange(msgspec.Struct, frozen=True, kw_only=True):
    """An instance as it now is; `at` is epoch seconds."""

    at: float
    instance: InstanceInfo


class ChangeView(msgspec.Struct, frozen=True, kw_only=True):
    """One committed write; secrets and tokens come as their views. After a deletion `object` is the last state."""

    version: int
    type: Literal["put", "delete"]
    kind: str
    object: Any


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what, to what, when, from where, and how it came out ("ok" or an error's code)."""

    id: int = 0
    at: float = 0.0
    who: str = ""
    what: str = ""
    verb: str = ""
    namespace: str = ""
    name: str = ""
    remote: str = ""
    outcome: str = ""
    message: str = ""


class AuditLog(msgspec.Struct, frozen=True, kw_only=True):
    items: tuple[AuditEntry, ...]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """`reason` says why not."""

    ok: bool
    reason: str = ""


class Version(msgspec.Struct, frozen=True, kw_only=True):
    version: str
