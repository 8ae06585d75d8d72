"""Namespaces: the tenants."""

from __future__ import annotations

import msgspec

from septet.model.errors import Conflict, NotFound
from septet.model.function import Function, Revision
from septet.model.meta import Meta
from septet.model.objects import Environment, Namespace, Route, Secret
from septet.service import validation
from septet.service.bootstrap import DEFAULT_NAMESPACE
from septet.service.commands import ApplyNamespace, DeleteNamespace, GetNamespace, ListNamespaces
from septet.service.context import Context
from septet.service.listing import page_of
from septet.service.plan import Wish, apply, check_version
from septet.service.results import Listing, NamespaceApplied

FINALIZER = "septet/contents"
CONTENTS: tuple[type[Route] | type[Function] | type[Environment] | type[Secret], ...] = (
    Route,
    Function,
    Environment,
    Secret,
)
"""In the order of deletion: what refers goes before what it refers to. Revisions go with their functions."""


async def apply_namespace(context: Context, command: ApplyNamespace) -> NamespaceApplied:
    validation.name_of("Namespace", command.name)
    if command.name == "*":
        validation.refuse("name", "`*` means all namespaces")
    validation.quota(command.spec.quota)
    validation.pairs("labels", command.labels or {})
    validation.pairs("annotations", command.annotations or {})
    outcome = await apply(
        context,
        Namespace(meta=Meta(name=command.name, finalizers=(FINALIZER,)), spec=command.spec),
        Wish(command.labels, command.annotations, None, command.resource_version, command.dry_run, command.create),
        lambda known: msgspec.structs.replace(known, spec=command.spec),
    )
    return NamespaceApplied(action=outcome.action, changes=outcome.changes, namespace=outcome.obj)


async def get_namespace(context: Context, command: GetNamespace) -> Namespace:
    return await context.get(Namespace, "", command.namespace)


async def list_namespaces(context: Context, command: ListNamespaces) -> Listing[Namespace]:
    page = await page_of(context, Namespace, None, {}, command.limit, command.cursor)
    seen = tuple(item for item in page.items if context.may(command.verb, item.meta.name))
    return Listing(items=seen, cursor=page.cursor, version=page.version)


async def delete_namespace(context: Context, command: DeleteNamespace) -> Namespace:
    """Marks it, so that nothing new gets in, and empties it. It goes when the last of its contents has gone:
    at once, or, when instances have to end first, by `finish_deletions`."""
    if command.name == DEFAULT_NAMESPACE:
        raise Conflict(
            "the namespace `default` always exists", hint="delete what is in it", details={"reason": "state"}
        )
    namespace = await context.get(Namespace, "", command.name)
    check_version(namespace.meta, command.resource_version, f"namespace {command.name!r}")
    namespace = await _mark(context, namespace)
    return await _finish(context, namespace)


async def finish_deletions(context: Context) -> None:
    """Lets those namespaces go that are being deleted and have become empty, and empties those that a crash left."""
    for namespace in await context.all(Namespace):
        if namespace.meta.deleting_since is not None and FINALIZER in namespace.meta.finalizers:
            await _finish(context, namespace)


async def _finish(context: Context, namespace: Namespace) -> Namespace:
    name = namespace.meta.name
    context.claims.forget(name)
    await empty(context, name)
    for kind in (*CONTENTS, Revision):
        if await context.all(kind, name):
            return namespace
    return await _release(context, namespace)


async def _mark(context: Context, namespace: Namespace) -> Namespace:
    if namespace.meta.deleting_since is not None:
        return namespace
    if FINALIZER not in namespace.meta.finalizers:
        meta = msgspec.structs.replace(namespace.meta, finalizers=(*namespace.meta.finalizers, FINALIZER))
        namespace = await context.update(msgspec.structs.replace(namespace, meta=meta))
    deleted = await context.ports.store.delete(
        "Namespace", "", namespace.meta.name, resource_version=namespace.meta.resource_version
    )
    assert isinstance(deleted, Namespace)
    return deleted


async def empty(context: Context, namespace: str) -> None:
    """Deletes all objects of a namespace; those with finalizers of their own are marked and go in their time."""
    for kind in CONTENTS:
        for obj in await context.all(kind, namespace):
            if obj.meta.deleting_since is None:
                try:
                    await context.ports.store.delete(kind.__name__, namespace, obj.meta.name)
                except NotFound:
                    continue
    functions = {function.meta.uid for function in await context.all(Function, namespace)}
    for revision in await context.all(Revision, namespace):
        # Revisions go with their functions; of one that is gone already, nothing else would take them away.
        if revision.meta.deleting_since is None and revision.spec.function_uid not in functions:
            await context.ports.store.delete("Revision", namespace, revision.meta.name)


async def _release(context: Context, namespace: Namespace) -> Namespace:
    meta = msgspec.structs.replace(
        namespace.meta, finalizers=tuple(name for name in namespace.meta.finalizers if name != FINALIZER)
    )
    try:
        return await context.update(msgspec.structs.replace(namespace, meta=meta))
    except NotFound:
        return namespace
