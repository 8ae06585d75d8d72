"""The platform itself, its tokens and its namespaces."""

from __future__ import annotations

from typing import Any

from septet.apis.native import bodies as b
from septet.apis.native.row import NS, V1, Row, in_namespace, metadata, operation, page
from septet.model.objects import Namespace
from septet.service import commands as c
from septet.service import results as r

PLATFORM = (
    Row("GET", "/healthz", "Whether the process answers.", "open", None, None, r.Health),
    Row("GET", "/readyz", "Whether calls are taken.", "open", None, None, r.Health),
    operation("GET", "/metrics", "Prometheus metrics.", c.ReadMetrics, lambda p: c.ReadMetrics(), str, form="text"),
    Row("GET", f"{V1}/version", "The platform's version.", "any token", None, None, r.Version),
    Row("GET", f"{V1}/openapi.json", "This document.", "any token", None, None, dict[str, Any]),
    operation(
        "GET",
        f"{V1}/node",
        "Sandbox, memory and instances of the node.",
        c.NodeStatus,
        lambda p: c.NodeStatus(),
        r.NodeFacts,
    ),
    operation("GET", f"{V1}/doctor", "What this host can do.", c.Doctor, lambda p: c.Doctor(), list[r.Check]),
    operation(
        "GET",
        f"{V1}/audit",
        "Who did what, the newest first.",
        c.ReadAudit,
        lambda p: c.ReadAudit(limit=p.query.limit, before=p.query.before),
        r.AuditLog,
        query=b.AuditQuery,
    ),
    operation(
        "POST",
        f"{V1}/backup",
        "A tar of everything that is kept.",
        c.Backup,
        lambda p: c.Backup(key=p.query.key),
        bytes,
        query=b.BackupQuery,
        form="bytes",
    ),
    operation(
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
    operation(
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
    operation(
        "GET",
        f"{V1}/tokens",
        "Tokens that the caller may see.",
        c.ListTokens,
        lambda p: c.ListTokens(**page(p)),
        r.Listing[r.TokenView],
        query=b.PageQuery,
    ),
    operation(
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
    operation(
        "GET",
        f"{V1}/tokens/{{name}}",
        "A token without its text.",
        c.GetToken,
        lambda p: c.GetToken(name=p.path["name"]),
        r.TokenView,
    ),
    operation(
        "DELETE",
        f"{V1}/tokens/{{name}}",
        "Takes a token back, at once.",
        c.DeleteToken,
        lambda p: c.DeleteToken(name=p.path["name"], resource_version=p.version),
        r.TokenView,
    ),
)

NAMESPACES = (
    operation(
        "GET",
        f"{V1}/namespaces",
        "Namespaces that the caller may see.",
        c.ListNamespaces,
        lambda p: c.ListNamespaces(**page(p)),
        r.Listing[Namespace],
        query=b.PageQuery,
    ),
    operation(
        "POST",
        f"{V1}/namespaces",
        "Makes a namespace; refused when there is one of its name.",
        c.ApplyNamespace,
        lambda p: c.ApplyNamespace(name=p.body.name, spec=p.body.spec, create=True, **metadata(p)),
        r.NamespaceApplied,
        body=b.NewNamespaceBody,
        query=b.ApplyQuery,
        status=201,
    ),
    operation(
        "GET",
        NS,
        "A namespace with its quota.",
        c.GetNamespace,
        lambda p: c.GetNamespace(**in_namespace(p)),
        Namespace,
    ),
    operation(
        "PUT",
        NS,
        "Creates or updates a namespace.",
        c.ApplyNamespace,
        lambda p: c.ApplyNamespace(name=p.path["ns"], spec=p.body.spec, **metadata(p)),
        r.NamespaceApplied,
        body=b.NamespaceBody,
        query=b.ApplyQuery,
    ),
    operation(
        "DELETE",
        NS,
        "Deletes a namespace with everything in it.",
        c.DeleteNamespace,
        lambda p: c.DeleteNamespace(name=p.path["ns"], resource_version=p.version),
        Namespace,
    ),
)
