"""The native API as data: from these rows come the routes, the OpenAPI document and the test of every credential."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, NamedTuple

from septet.apis.native import bodies as b
from septet.apis.native.strict import read_labels
from septet.model.function import Function, Revision
from septet.model.instance import InstanceInfo
from septet.model.invocation import InvocationRecord
from septet.model.objects import Environment, Namespace, Route
from septet.service import commands as c
from septet.service import results as r

Rule = Literal["token", "any token", "open"]
Form = Literal["json", "lines", "text", "bytes"]


class Parts(NamedTuple):
    """A request, read: path parameters decoded, query and body as their structs, the version that If-Match or
    the body names (0: none), and the raw body for uploads."""

    path: dict[str, str]
    query: Any
    body: Any
    version: int
    chunks: AsyncIterator[bytes]


class Row(NamedTuple):
    """One operation. `rule` "token" means that the command's own verb is asked for; "any token" that any valid one
    will do; "open" that none is needed. `namespace` names the path or query parameter that the verb is held in."""

    method: str
    path: str
    description: str
    rule: Rule
    command: type[c.Command[Any]] | None
    build: Callable[[Parts], c.Command[Any]] | None
    answer: Any
    body: Any = None
    query: type[b.Query] = b.Query
    form: Form = "json"
    status: int = 200
    upload: bool = False


NS = "/septet/v1/namespaces/{ns}"
V1 = "/septet/v1"


def _row(
    method: str, path: str, description: str, command: type[c.Command[Any]], build: Any, answer: Any, **more: Any
) -> Row:
    return Row(method, path, description, "token", command, build, answer, **more)


def _ns(p: Parts) -> dict[str, str]:
    return {"namespace": p.path["ns"]}


def _named(p: Parts) -> dict[str, str]:
    return {"namespace": p.path["ns"], "name": p.path["name"]}


def _metadata(p: Parts) -> dict[str, Any]:
    return {
        "labels": p.body.labels,
        "annotations": p.body.annotations,
        "resource_version": p.version,
        "dry_run": p.query.dry_run,
    }


def _page(p: Parts) -> dict[str, Any]:
    return {"limit": p.query.limit, "cursor": p.query.cursor}


def _list(p: Parts) -> dict[str, Any]:
    return {**_ns(p), **_page(p), "labels": read_labels(p.query.label)}


def _logs(p: Parts) -> c.Command[Any]:
    q = p.query
    kind: type[c.FollowLogs | c.ReadLogs] = c.FollowLogs if q.follow else c.ReadLogs
    return kind(
        **_named(p), since=q.since, tail=q.tail, revision=q.revision, instance=q.instance, invocation=q.invocation
    )


PLATFORM = (
    Row("GET", "/healthz", "Whether the process answers.", "open", None, None, r.Health),
    Row("GET", "/readyz", "Whether calls are taken.", "open", None, None, r.Health),
    _row("GET", "/metrics", "Prometheus metrics.", c.ReadMetrics, lambda p: c.ReadMetrics(), str, form="text"),
    Row("GET", f"{V1}/version", "The platform's version.", "any token", None, None, r.Version),
    Row("GET", f"{V1}/openapi.json", "This document.", "any token", None, None, dict[str, Any]),
    _row(
        "GET",
        f"{V1}/node",
        "Sandbox, memory and instances of the node.",
        c.NodeStatus,
        lambda p: c.NodeStatus(),
        c.NodeFacts,
    ),
    _row("GET", f"{V1}/doctor", "What this host can do.", c.Doctor, lambda p: c.Doctor(), list[c.Check]),
    _row(
        "GET",
        f"{V1}/audit",
        "Who did what, the newest first.",
        c.ReadAudit,
        lambda p: c.ReadAudit(limit=p.query.limit, before=p.query.before),
        r.AuditLog,
        query=b.AuditQuery,
    ),
    _row(
        "POST",
        f"{V1}/backup",
        "A tar of everything that is kept.",
        c.Backup,
        lambda p: c.Backup(key=p.query.key),
        bytes,
        query=b.BackupQuery,
        form="bytes",
    ),
    _row(
        "GET",
        f"{V1}/watch",
        "Changes of objects as they come, one JSON value a line; empty lines keep the connection alive.",
        c.WatchChanges,
        lambda p: c.WatchChanges(
            namespace=p.query.namespace, kinds=tuple(filter(None, p.query.kinds.split(","))), after=p.query.after
        ),
        r.ChangeView,
        query=b.WatchQuery,
        form="lines",
    ),
    _row(
        "GET",
        f"{V1}/instances/watch",
        "Every instance, then their changes, one JSON value a line.",
        c.WatchInstances,
        lambda p: c.WatchInstances(namespace=p.query.namespace, function=p.query.function),
        r.InstanceChange,
        query=b.InstanceQuery,
        form="lines",
    ),
)

TOKENS = (
    _row(
        "GET",
        f"{V1}/tokens",
        "Tokens that the caller may see.",
        c.ListTokens,
        lambda p: c.ListTokens(**_page(p)),
        r.Listing[r.TokenView],
        query=b.PageQuery,
    ),
    _row(
        "POST",
        f"{V1}/tokens",
        "Makes a token and shows it this once.",
        c.CreateToken,
        lambda p: c.CreateToken(
            name=p.body.name,
            namespaces=p.body.namespaces,
            verbs=p.body.verbs,
            expires_at=p.body.expires_at,
            quota=p.body.quota,
            description=p.body.description,
        ),
        r.TokenCreated,
        body=b.TokenBody,
        status=201,
    ),
    _row(
        "GET",
        f"{V1}/tokens/{{name}}",
        "A token without its text.",
        c.GetToken,
        lambda p: c.GetToken(name=p.path["name"]),
        r.TokenView,
    ),
    _row(
        "DELETE",
        f"{V1}/tokens/{{name}}",
        "Takes a token back, at once.",
        c.DeleteToken,
        lambda p: c.DeleteToken(name=p.path["name"], resource_version=p.version),
        r.TokenView,
    ),
)

NAMESPACES = (
    _row(
        "GET",
        f"{V1}/namespaces",
        "Namespaces that the caller may see.",
        c.ListNamespaces,
        lambda p: c.ListNamespaces(**_page(p)),
        r.Listing[Namespace],
        query=b.PageQuery,
    ),
    _row(
        "POST",
        f"{V1}/namespaces",
        "Makes a namespace; refused when there is one of its name.",
        c.ApplyNamespace,
        lambda p: c.ApplyNamespace(name=p.body.name, spec=p.body.spec, create=True, **_metadata(p)),
        r.NamespaceApplied,
        body=b.NewNamespaceBody,
        query=b.ApplyQuery,
        status=201,
    ),
    _row(
        "GET",
        NS,
        "A namespace with its quota.",
        c.GetNamespace,
        lambda p: c.GetNamespace(**_ns(p)),
        Namespace,
    ),
    _row(
        "PUT",
        NS,
        "Creates or updates a namespace.",
        c.ApplyNamespace,
        lambda p: c.ApplyNamespace(name=p.path["ns"], spec=p.body.spec, **_metadata(p)),
        r.NamespaceApplied,
        body=b.NamespaceBody,
        query=b.ApplyQuery,
    ),
    _row(
        "DELETE",
        NS,
        "Deletes a namespace with everything in it.",
        c.DeleteNamespace,
        lambda p: c.DeleteNamespace(name=p.path["ns"], resource_version=p.version),
        Namespace,
    ),
)

FUNCTION = f"{NS}/functions/{{name}}"
FUNCTIONS = (
    _row(
        "GET",
        f"{NS}/functions",
        "The functions of a namespace.",
        c.ListFunctions,
        lambda p: c.ListFunctions(**_list(p)),
        r.Listing[Function],
        query=b.ListQuery,
    ),
    _row(
        "GET",
        FUNCTION,
        "A function, wanted and observed.",
        c.GetFunction,
        lambda p: c.GetFunction(**_named(p)),
        Function,
    ),
    _row(
        "PUT",
        FUNCTION,
        "Creates or updates a function. It becomes ready later: see its summary, or watch it.",
        c.ApplyFunction,
        lambda p: c.ApplyFunction(**_named(p), spec=p.body.spec, **_metadata(p)),
        r.FunctionApplied,
        body=b.FunctionBody,
        query=b.ApplyQuery,
    ),
    _row(
        "DELETE",
        FUNCTION,
        "Deletes a function with its revisions, instances and logs.",
        c.DeleteFunction,
        lambda p: c.DeleteFunction(**_named(p), resource_version=p.version),
        Function,
    ),
    _row(
        "GET",
        f"{FUNCTION}/summary",
        "Whether it can be called now, and all about it.",
        c.Summarise,
        lambda p: c.Summarise(**_named(p)),
        r.Summary,
    ),
    _row(
        "PUT",
        f"{FUNCTION}/traffic",
        "Splits the traffic.",
        c.SetTraffic,
        lambda p: c.SetTraffic(**_named(p), targets=p.body.targets, rollout=p.body.rollout, resource_version=p.version),
        Function,
        body=b.TrafficBody,
    ),
    _row(
        "POST",
        f"{FUNCTION}/rollback",
        "Moves all traffic back to an earlier revision.",
        c.Rollback,
        lambda p: c.Rollback(**_named(p), revision=p.body.revision, resource_version=p.version),
        Function,
        body=b.RollbackBody,
    ),
    _row(
        "PUT",
        f"{FUNCTION}/scale",
        "Changes how many instances there may be.",
        c.Scale,
        lambda p: c.Scale(**_named(p), change=p.body, resource_version=p.version),
        Function,
        body=r.ScaleChange,
    ),
    _row(
        "GET",
        f"{FUNCTION}/revisions",
        "A function's revisions, the oldest first.",
        c.ListRevisions,
        lambda p: c.ListRevisions(**_named(p)),
        r.Listing[Revision],
        query=b.PageQuery,
    ),
    _row(
        "GET",
        f"{FUNCTION}/revisions/{{revision}}",
        "One revision.",
        c.GetRevision,
        lambda p: c.GetRevision(**_named(p), revision=p.path["revision"]),
        Revision,
    ),
    _row(
        "DELETE",
        f"{FUNCTION}/revisions/{{revision}}",
        "Deletes a revision that nothing needs.",
        c.DeleteRevision,
        lambda p: c.DeleteRevision(**_named(p), revision=p.path["revision"], resource_version=p.version),
        Revision,
    ),
    _row(
        "GET",
        f"{FUNCTION}/revisions/{{revision}}/build-log",
        "What its build wrote.",
        c.BuildLog,
        lambda p: c.BuildLog(**_named(p), revision=p.path["revision"]),
        str,
        form="text",
    ),
    _row(
        "GET",
        f"{FUNCTION}/instances",
        "The instances that run.",
        c.ListInstances,
        lambda p: c.ListInstances(**_named(p)),
        r.Listing[InstanceInfo],
        query=b.PageQuery,
    ),
    _row(
        "GET",
        f"{FUNCTION}/logs",
        "Output, one JSON value a line.",
        c.ReadLogs,
        _logs,
        c.LogLine,
        query=b.LogQuery,
        form="lines",
    ),
    _row(
        "GET",
        f"{FUNCTION}/invocations",
        "The last calls, the newest first.",
        c.ListInvocations,
        lambda p: c.ListInvocations(**_named(p), limit=p.query.limit),
        r.Listing[InvocationRecord],
        query=b.LimitQuery,
    ),
    _row(
        "GET",
        f"{NS}/invocations/{{id}}",
        "One call.",
        c.GetInvocation,
        lambda p: c.GetInvocation(**_ns(p), id=p.path["id"]),
        InvocationRecord,
    ),
    _row(
        "POST",
        f"{NS}/blobs",
        "Uploads an archive: zip, or tar with any usual compression.",
        c.PutBlob,
        lambda p: c.PutBlob(**_ns(p), chunks=p.chunks),
        r.BlobFacts,
        upload=True,
        status=201,
    ),
    _row(
        "GET",
        f"{NS}/blobs/{{digest}}",
        "Whether this namespace has uploaded these bytes.",
        c.GetBlob,
        lambda p: c.GetBlob(**_ns(p), digest=p.path["digest"]),
        r.BlobFacts,
    ),
)


def _crud(
    plural: str, what: str, body: Any, apply: Any, kinds: tuple[Any, ...], answers: tuple[Any, ...]
) -> tuple[Row, ...]:
    """List, get, apply, delete of a kind whose objects are a spec and nothing else."""
    applier, getter, lister, deleter = kinds
    applied, shown = answers
    path = f"{NS}/{plural}"
    return (
        _row(
            "GET",
            path,
            f"The {plural} of a namespace.",
            lister,
            lambda p: lister(**_list(p)),
            r.Listing[shown],
            query=b.ListQuery,
        ),
        _row("GET", f"{path}/{{name}}", f"{what}.", getter, lambda p: getter(**_named(p)), shown),
        _row(
            "PUT",
            f"{path}/{{name}}",
            f"Creates or updates. {what}.",
            applier,
            apply,
            applied,
            body=body,
            query=b.ApplyQuery,
        ),
        _row(
            "DELETE",
            f"{path}/{{name}}",
            f"Deletes. {what}.",
            deleter,
            lambda p: deleter(**_named(p), resource_version=p.version),
            shown,
        ),
    )


OTHERS = (
    *_crud(
        "routes",
        "A rule that leads requests to functions",
        b.RouteBody,
        lambda p: c.ApplyRoute(**_named(p), spec=p.body.spec, **_metadata(p)),
        (c.ApplyRoute, c.GetRoute, c.ListRoutes, c.DeleteRoute),
        (r.RouteApplied, Route),
    ),
    *_crud(
        "environments",
        "What functions are built and run in",
        b.EnvironmentBody,
        lambda p: c.ApplyEnvironment(**_named(p), spec=p.body.spec, **_metadata(p)),
        (c.ApplyEnvironment, c.GetEnvironment, c.ListEnvironments, c.DeleteEnvironment),
        (r.EnvironmentApplied, Environment),
    ),
    *_crud(
        "secrets",
        "A secret, of which only the names of its keys are shown",
        b.SecretBody,
        lambda p: c.ApplySecret(**_named(p), data=p.body.data, **_metadata(p)),
        (c.ApplySecret, c.GetSecret, c.ListSecrets, c.DeleteSecret),
        (r.SecretApplied, r.SecretView),
    ),
)

ROWS: tuple[Row, ...] = (*PLATFORM, *TOKENS, *NAMESPACES, *FUNCTIONS, *OTHERS)
