"""Functions and what belongs to them; routes, environments, secrets."""

from __future__ import annotations

from typing import Any

from septet.apis.native import bodies as b
from septet.apis.native.row import NS, Parts, Row, in_namespace, listed, metadata, named, operation
from septet.model.function import Function, Revision
from septet.model.instance import InstanceInfo
from septet.model.invocation import InvocationRecord
from septet.model.objects import Environment, Route
from septet.service import commands as c
from septet.service import results as r


def _logs(p: Parts) -> c.Command[Any]:
    q = p.query
    kind: type[c.FollowLogs | c.ReadLogs] = c.FollowLogs if q.follow else c.ReadLogs
    return kind(
        **named(p), since=q.since, tail=q.tail, revision=q.revision, instance=q.instance, invocation=q.invocation
    )


FUNCTION = f"{NS}/functions/{{name}}"
FUNCTIONS = (
    operation(
        "GET",
        f"{NS}/functions",
        "The functions of a namespace.",
        c.ListFunctions,
        lambda p: c.ListFunctions(**listed(p)),
        r.Listing[Function],
        query=b.ListQuery,
    ),
    operation(
        "GET",
        FUNCTION,
        "A function, wanted and observed.",
        c.GetFunction,
        lambda p: c.GetFunction(**named(p)),
        Function,
    ),
    operation(
        "PUT",
        FUNCTION,
        "Creates or updates a function. It becomes ready later: see its summary, or watch it.",
        c.ApplyFunction,
        lambda p: c.ApplyFunction(**named(p), spec=p.body.spec, **metadata(p)),
        r.FunctionApplied,
        body=b.FunctionBody,
        query=b.ApplyQuery,
    ),
    operation(
        "DELETE",
        FUNCTION,
        "Deletes a function with its revisions, instances and logs.",
        c.DeleteFunction,
        lambda p: c.DeleteFunction(**named(p), resource_version=p.version),
        Function,
    ),
    operation(
        "GET",
        f"{FUNCTION}/summary",
        "Whether it can be called now, and all about it.",
        c.Summarise,
        lambda p: c.Summarise(**named(p)),
        r.Summary,
    ),
    operation(
        "PUT",
        f"{FUNCTION}/traffic",
        "Splits the traffic.",
        c.SetTraffic,
        lambda p: c.SetTraffic(**named(p), targets=p.body.targets, rollout=p.body.rollout, resource_version=p.version),
        Function,
        body=b.TrafficBody,
    ),
    operation(
        "POST",
        f"{FUNCTION}/rollback",
        "Moves all traffic back to an earlier revision.",
        c.Rollback,
        lambda p: c.Rollback(**named(p), revision=p.body.revision, resource_version=p.version),
        Function,
        body=b.RollbackBody,
    ),
    operation(
        "PUT",
        f"{FUNCTION}/scale",
        "Changes how many instances there may be.",
        c.Scale,
        lambda p: c.Scale(**named(p), change=p.body, resource_version=p.version),
        Function,
        body=r.ScaleChange,
    ),
    operation(
        "GET",
        f"{FUNCTION}/revisions",
        "A function's revisions, the oldest first.",
        c.ListRevisions,
        lambda p: c.ListRevisions(**named(p)),
        r.Listing[Revision],
        query=b.PageQuery,
    ),
    operation(
        "GET",
        f"{FUNCTION}/revisions/{{revision}}",
        "One revision.",
        c.GetRevision,
        lambda p: c.GetRevision(**named(p), revision=p.path["revision"]),
        Revision,
    ),
    operation(
        "DELETE",
        f"{FUNCTION}/revisions/{{revision}}",
        "Deletes a revision that nothing needs.",
        c.DeleteRevision,
        lambda p: c.DeleteRevision(**named(p), revision=p.path["revision"], resource_version=p.version),
        Revision,
    ),
    operation(
        "GET",
        f"{FUNCTION}/revisions/{{revision}}/build-log",
        "What its build wrote, so far or to its end.",
        c.BuildLog,
        lambda p: (c.FollowBuildLog if p.query.follow else c.BuildLog)(**named(p), revision=p.path["revision"]),
        str,
        query=b.FollowQuery,
        form="text",
    ),
    operation(
        "GET",
        f"{FUNCTION}/instances",
        "The instances that run.",
        c.ListInstances,
        lambda p: c.ListInstances(**named(p)),
        r.Listing[InstanceInfo],
        query=b.PageQuery,
    ),
    operation(
        "GET",
        f"{FUNCTION}/logs",
        "Output, one JSON value a line.",
        c.ReadLogs,
        _logs,
        r.LogLine,
        query=b.LogQuery,
        form="lines",
    ),
    operation(
        "GET",
        f"{FUNCTION}/invocations",
        "The last calls, the newest first.",
        c.ListInvocations,
        lambda p: c.ListInvocations(**named(p), limit=p.query.limit),
        r.Listing[InvocationRecord],
        query=b.LimitQuery,
    ),
    operation(
        "GET",
        f"{NS}/invocations/{{id}}",
        "One call.",
        c.GetInvocation,
        lambda p: c.GetInvocation(**in_namespace(p), id=p.path["id"]),
        InvocationRecord,
    ),
    operation(
        "POST",
        f"{NS}/blobs",
        "Uploads an archive: zip, or tar with any usual compression.",
        c.PutBlob,
        lambda p: c.PutBlob(**in_namespace(p), chunks=p.chunks),
        r.BlobFacts,
        upload=True,
        status=201,
    ),
    operation(
        "GET",
        f"{NS}/blobs/{{digest}}",
        "Whether this namespace has uploaded these bytes.",
        c.GetBlob,
        lambda p: c.GetBlob(**in_namespace(p), digest=p.path["digest"]),
        r.BlobFacts,
    ),
)


def _crud(
    plural: str, what: str, body: Any, apply: Any, kinds: tuple[Any, ...], answers: tuple[Any, ...]
) -> tuple[Row, ...]:
    """List, get, apply, delete of a kind whose objects are a spec and nothing else."""
    applier, getter, lister, deleter = kinds
    applied, shown, listing = answers
    path = f"{NS}/{plural}"
    return (
        operation(
            "GET",
            path,
            f"The {plural} of a namespace.",
            lister,
            lambda p: lister(**listed(p)),
            listing,
            query=b.ListQuery,
        ),
        operation("GET", f"{path}/{{name}}", f"{what}.", getter, lambda p: getter(**named(p)), shown),
        operation(
            "PUT",
            f"{path}/{{name}}",
            f"Creates or updates. {what}.",
            applier,
            apply,
            applied,
            body=body,
            query=b.ApplyQuery,
        ),
        operation(
            "DELETE",
            f"{path}/{{name}}",
            f"Deletes. {what}.",
            deleter,
            lambda p: deleter(**named(p), resource_version=p.version),
            shown,
        ),
    )


OTHERS = (
    *_crud(
        "routes",
        "A rule that leads requests to functions",
        b.RouteBody,
        lambda p: c.ApplyRoute(**named(p), spec=p.body.spec, **metadata(p)),
        (c.ApplyRoute, c.GetRoute, c.ListRoutes, c.DeleteRoute),
        (r.RouteApplied, Route, r.Listing[Route]),
    ),
    *_crud(
        "environments",
        "What functions are built and run in",
        b.EnvironmentBody,
        lambda p: c.ApplyEnvironment(**named(p), spec=p.body.spec, **metadata(p)),
        (c.ApplyEnvironment, c.GetEnvironment, c.ListEnvironments, c.DeleteEnvironment),
        (r.EnvironmentApplied, Environment, r.Listing[Environment]),
    ),
    *_crud(
        "secrets",
        "A secret, of which only the names of its keys are shown",
        b.SecretBody,
        lambda p: c.ApplySecret(**named(p), data=p.body.data, **metadata(p)),
        (c.ApplySecret, c.GetSecret, c.ListSecrets, c.DeleteSecret),
        (r.SecretApplied, r.SecretView, r.Listing[r.SecretView]),
    ),
)
