"""The closed set of commands that every face uses. Each knows its verb, where it reaches, and what it answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar, Generic, Literal, TypeVar

import msgspec

from septet.model.function import Function, FunctionSpec, Revision, TrafficTarget
from septet.model.instance import InstanceInfo
from septet.model.invocation import InvocationRecord
from septet.model.objects import (
    Environment,
    EnvironmentSpec,
    Namespace,
    NamespaceSpec,
    Quota,
    Route,
    RouteSpec,
)
from septet.ports.fleetview import NodeFacts
from septet.ports.logs import LogLine
from septet.ports.sandbox import Check
from septet.service.results import (
    AuditLog,
    BlobFacts,
    ChangeView,
    EnvironmentApplied,
    FunctionApplied,
    InstanceChange,
    Listing,
    NamespaceApplied,
    RouteApplied,
    ScaleChange,
    SecretApplied,
    SecretView,
    Summary,
    TokenCreated,
    TokenView,
)

Result = TypeVar("Result")
Reach = Literal["namespace", "platform", "visible", "granted"]


class Command(msgspec.Struct, Generic[Result], frozen=True, kw_only=True):
    """One thing a caller wants done.

    `verb` is "<resource>:<action>". `reach` says where the verb must be held: in the command's `namespace`, on
    the whole platform, anywhere (the answer then shows only what the caller reaches), or in every namespace that
    a new token is to reach. A command that `mutates` is audited when it succeeds too.
    """

    verb: ClassVar[str] = ""
    mutates: ClassVar[bool] = False
    reach: ClassVar[Reach] = "namespace"
    namespace: str = ""


class Named(Command[Result], frozen=True, kw_only=True):
    name: str


# -- functions ------------------------------------------------------------------------------------------------


class ApplyFunction(Named[FunctionApplied], frozen=True, kw_only=True):
    """Creates or updates; `labels` and `annotations` None keep what is there. `resource_version` 0 compares nothing."""

    verb = "functions:write"
    mutates = True
    spec: FunctionSpec
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    documents: dict[str, msgspec.Raw] | None = None
    resource_version: int = 0
    dry_run: bool = False


class GetFunction(Named[Function], frozen=True, kw_only=True):
    verb = "functions:read"


class ListFunctions(Command[Listing[Function]], frozen=True, kw_only=True):
    verb = "functions:read"
    labels: dict[str, str] = {}
    limit: int = 100
    cursor: str = ""


class DeleteFunction(Named[Function], frozen=True, kw_only=True):
    verb = "functions:write"
    mutates = True
    resource_version: int = 0


class SetTraffic(Named[Function], frozen=True, kw_only=True):
    """`rollout` in seconds; None keeps the function's own."""

    verb = "functions:write"
    mutates = True
    targets: tuple[TrafficTarget, ...]
    rollout: float | None = None
    resource_version: int = 0


class Rollback(Named[Function], frozen=True, kw_only=True):
    """Moves all traffic to `revision`, or to the one that served before the present one."""

    verb = "functions:write"
    mutates = True
    revision: str = ""
    resource_version: int = 0


class Scale(Named[Function], frozen=True, kw_only=True):
    verb = "functions:write"
    mutates = True
    change: ScaleChange
    resource_version: int = 0


class Summarise(Named[Summary], frozen=True, kw_only=True):
    verb = "functions:read"


class ListRevisions(Named[Listing[Revision]], frozen=True, kw_only=True):
    verb = "functions:read"


class GetRevision(Named[Revision], frozen=True, kw_only=True):
    verb = "functions:read"
    revision: str


class DeleteRevision(Named[Revision], frozen=True, kw_only=True):
    verb = "functions:write"
    mutates = True
    revision: str
    resource_version: int = 0


class BuildLog(Named[str], frozen=True, kw_only=True):
    verb = "functions:read"
    revision: str


class FollowBuildLog(Named[AsyncIterator[bytes]], frozen=True, kw_only=True):
    """What is known so far, then each line as it comes, until the build has ended."""

    verb = "functions:read"
    revision: str


class PutBlob(Command[BlobFacts], frozen=True, kw_only=True):
    """`chunks` is read once; it stops at the first byte too many."""

    verb = "functions:write"
    mutates = True
    chunks: AsyncIterator[bytes]


class GetBlob(Command[BlobFacts], frozen=True, kw_only=True):
    """Whether this namespace has uploaded, or uses, these bytes."""

    verb = "functions:write"
    digest: str


# -- what runs ------------------------------------------------------------------------------------------------


class ListInstances(Named[Listing[InstanceInfo]], frozen=True, kw_only=True):
    verb = "functions:read"


class WatchInstances(Command[AsyncIterator[InstanceChange]], frozen=True, kw_only=True):
    """An empty namespace means all, and takes a caller of the whole platform."""

    verb = "functions:read"
    function: str = ""


class ReadLogs(Named[list[LogLine]], frozen=True, kw_only=True):
    verb = "logs:read"
    revision: str = ""
    instance: str = ""
    invocation: str = ""
    since: float = 0.0
    tail: int = 0


class FollowLogs(Named[AsyncIterator[LogLine]], frozen=True, kw_only=True):
    """The kept lines as in `ReadLogs`, then new ones as they come."""

    verb = "logs:read"
    revision: str = ""
    instance: str = ""
    invocation: str = ""
    since: float = 0.0
    tail: int = 0


class ListInvocations(Named[Listing[InvocationRecord]], frozen=True, kw_only=True):
    verb = "logs:read"
    limit: int = 100


class GetInvocation(Command[InvocationRecord], frozen=True, kw_only=True):
    verb = "logs:read"
    id: str


# -- namespaces -----------------------------------------------------------------------------------------------


class ApplyNamespace(Named[NamespaceApplied], frozen=True, kw_only=True):
    """`create` refuses a name that is taken."""

    verb = "namespaces:write"
    mutates = True
    reach = "platform"
    spec: NamespaceSpec = NamespaceSpec()
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    resource_version: int = 0
    dry_run: bool = False
    create: bool = False


class GetNamespace(Command[Namespace], frozen=True, kw_only=True):
    """The namespace is the one it reads."""

    verb = "namespaces:read"


class ListNamespaces(Command[Listing[Namespace]], frozen=True, kw_only=True):
    verb = "namespaces:read"
    reach = "visible"
    limit: int = 100
    cursor: str = ""


class DeleteNamespace(Named[Namespace], frozen=True, kw_only=True):
    """With everything in it."""

    verb = "namespaces:write"
    mutates = True
    reach = "platform"
    resource_version: int = 0


# -- routes, environments, secrets ----------------------------------------------------------------------------


class ApplyRoute(Named[RouteApplied], frozen=True, kw_only=True):
    verb = "routes:write"
    mutates = True
    spec: RouteSpec
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    resource_version: int = 0
    dry_run: bool = False


class GetRoute(Named[Route], frozen=True, kw_only=True):
    verb = "routes:read"


class ListRoutes(Command[Listing[Route]], frozen=True, kw_only=True):
    verb = "routes:read"
    labels: dict[str, str] = {}
    limit: int = 100
    cursor: str = ""


class DeleteRoute(Named[Route], frozen=True, kw_only=True):
    verb = "routes:write"
    mutates = True
    resource_version: int = 0


class ApplyEnvironment(Named[EnvironmentApplied], frozen=True, kw_only=True):
    verb = "environments:write"
    mutates = True
    spec: EnvironmentSpec = EnvironmentSpec()
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    resource_version: int = 0
    dry_run: bool = False


class GetEnvironment(Named[Environment], frozen=True, kw_only=True):
    verb = "environments:read"


class ListEnvironments(Command[Listing[Environment]], frozen=True, kw_only=True):
    verb = "environments:read"
    labels: dict[str, str] = {}
    limit: int = 100
    cursor: str = ""


class DeleteEnvironment(Named[Environment], frozen=True, kw_only=True):
    verb = "environments:write"
    mutates = True
    resource_version: int = 0


class ApplySecret(Named[SecretApplied], frozen=True, kw_only=True):
    """Replaces all keys. `data` holds plain values: it is sealed at once, and shown nowhere."""

    verb = "secrets:write"
    mutates = True
    data: dict[str, bytes]
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    resource_version: int = 0
    dry_run: bool = False

    def __repr__(self) -> str:
        return f"ApplySecret(namespace={self.namespace!r}, name={self.name!r}, keys={sorted(self.data)!r})"


class GetSecret(Named[SecretView], frozen=True, kw_only=True):
    verb = "secrets:read"


class ListSecrets(Command[Listing[SecretView]], frozen=True, kw_only=True):
    verb = "secrets:read"
    labels: dict[str, str] = {}
    limit: int = 100
    cursor: str = ""


class DeleteSecret(Named[SecretView], frozen=True, kw_only=True):
    verb = "secrets:write"
    mutates = True
    resource_version: int = 0


# -- tokens ---------------------------------------------------------------------------------------------------


class CreateToken(Named[TokenCreated], frozen=True, kw_only=True):
    """`namespaces` and `verbs` are at most the caller's own; `expires_at` is epoch seconds, 0 never."""

    verb = "tokens:write"
    mutates = True
    reach = "granted"
    namespaces: tuple[str, ...]
    verbs: tuple[str, ...]
    expires_at: float = 0.0
    quota: Quota = Quota()
    description: str = ""


class GetToken(Named[TokenView], frozen=True, kw_only=True):
    verb = "tokens:read"
    reach = "visible"


class ListTokens(Command[Listing[TokenView]], frozen=True, kw_only=True):
    verb = "tokens:read"
    reach = "visible"
    limit: int = 100
    cursor: str = ""


class DeleteToken(Named[TokenView], frozen=True, kw_only=True):
    verb = "tokens:write"
    mutates = True
    reach = "visible"
    resource_version: int = 0


# -- the platform ---------------------------------------------------------------------------------------------


class WatchChanges(Command[AsyncIterator[ChangeView]], frozen=True, kw_only=True):
    """Changes after a version (None: from now on), of some kinds or, empty, of all that the caller may read.

    An empty namespace means all, and takes a caller of the whole platform.
    """

    verb = "changes:read"
    kinds: tuple[str, ...] = ()
    after: int | None = None


class ReadAudit(Command[AuditLog], frozen=True, kw_only=True):
    """The newest entries first; `before` is an entry's id."""

    verb = "audit:read"
    reach = "platform"
    limit: int = 100
    before: int = 0


class Doctor(Command[list[Check]], frozen=True, kw_only=True):
    verb = "node:read"
    reach = "platform"


class NodeStatus(Command[NodeFacts], frozen=True, kw_only=True):
    verb = "node:read"
    reach = "platform"


class ReadMetrics(Command[bytes], frozen=True, kw_only=True):
    verb = "metrics:read"
    reach = "platform"


class Backup(Command[AsyncIterator[bytes]], frozen=True, kw_only=True):
    """A tar of everything that is kept; with `key` also what opens the secrets."""

    verb = "node:backup"
    mutates = True
    reach = "platform"
    key: bool = False
