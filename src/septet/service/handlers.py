"""Command to handler; the table is complete, which a test holds it to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from septet.service import (
    backup,
    blobs,
    environments,
    functions,
    logs,
    namespaces,
    node,
    revisions,
    routes,
    secrets,
    summary,
    tokens,
    watching,
)
from septet.service import commands as c
from septet.service.context import Context

Handler = Callable[[Context, Any], Awaitable[Any]]

HANDLERS: dict[type[c.Command[Any]], Handler] = {
    c.ApplyFunction: functions.apply_function,
    c.GetFunction: functions.get_function,
    c.ListFunctions: functions.list_functions,
    c.DeleteFunction: functions.delete_function,
    c.SetTraffic: functions.set_traffic,
    c.Rollback: functions.rollback,
    c.Scale: functions.scale,
    c.Summarise: summary.summarise,
    c.ListRevisions: revisions.list_revisions,
    c.GetRevision: revisions.get_revision,
    c.DeleteRevision: revisions.delete_revision,
    c.BuildLog: revisions.build_log,
    c.FollowBuildLog: revisions.follow_build_log,
    c.PutBlob: blobs.put_blob,
    c.GetBlob: blobs.get_blob,
    c.ListInstances: watching.list_instances,
    c.WatchInstances: watching.watch_instances,
    c.ReadLogs: logs.read_logs,
    c.FollowLogs: logs.follow_logs,
    c.ListInvocations: logs.list_invocations,
    c.GetInvocation: logs.get_invocation,
    c.ApplyNamespace: namespaces.apply_namespace,
    c.GetNamespace: namespaces.get_namespace,
    c.ListNamespaces: namespaces.list_namespaces,
    c.DeleteNamespace: namespaces.delete_namespace,
    c.ApplyRoute: routes.apply_route,
    c.GetRoute: routes.get_route,
    c.ListRoutes: routes.list_routes,
    c.DeleteRoute: routes.delete_route,
    c.ApplyEnvironment: environments.apply_environment,
    c.GetEnvironment: environments.get_environment,
    c.ListEnvironments: environments.list_environments,
    c.DeleteEnvironment: environments.delete_environment,
    c.ApplySecret: secrets.apply_secret,
    c.GetSecret: secrets.get_secret,
    c.ListSecrets: secrets.list_secrets,
    c.DeleteSecret: secrets.delete_secret,
    c.CreateToken: tokens.create_token,
    c.GetToken: tokens.get_token,
    c.ListTokens: tokens.list_tokens,
    c.DeleteToken: tokens.delete_token,
    c.WatchChanges: watching.watch_changes,
    c.ReadAudit: node.read_audit,
    c.Doctor: node.doctor,
    c.NodeStatus: node.node_status,
    c.ReadMetrics: node.read_metrics,
    c.Backup: backup.backup,
}
