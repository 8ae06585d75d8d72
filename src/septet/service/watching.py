"""Watches: changes of objects, and of instances."""

from __future__ import annotations

from collections.abc import AsyncIterator

from septet.model.function import Function, Revision
from septet.model.instance import InstanceInfo
from septet.model.objects import KINDS, AnyObject, Namespace, Route, Secret, Token
from septet.ports.store import Change
from septet.service import secrets, tokens, validation
from septet.service.commands import ListInstances, WatchChanges, WatchInstances
from septet.service.context import Context
from septet.service.results import ChangeView, InstanceChange, Listing, SecretView, TokenView

RESOURCES = {kind: f"{kind.lower()}s" for kind in KINDS} | {"Revision": "functions"}
"""Kind to the resource of its verbs."""


async def list_instances(context: Context, command: ListInstances) -> Listing[InstanceInfo]:
    await context.get(Function, command.namespace, command.name)
    return Listing(items=tuple(context.ports.fleet.instances(command.namespace, command.name)))


async def watch_instances(context: Context, command: WatchInstances) -> AsyncIterator[InstanceChange]:
    return _instances(context, command)


async def _instances(context: Context, command: WatchInstances) -> AsyncIterator[InstanceChange]:
    async for event in context.ports.fleet.watch():
        instance = event.instance
        if command.namespace and instance.namespace != command.namespace:
            continue
        if command.function and instance.function != command.function:
            continue
        yield InstanceChange(at=event.at, instance=instance)


async def watch_changes(context: Context, command: WatchChanges) -> AsyncIterator[ChangeView]:
    for kind in command.kinds:
        validation.choose("kinds", kind, KINDS)
    kinds = frozenset(command.kinds) or frozenset(KINDS)
    after = await context.ports.store.version() if command.after is None else command.after
    validation.number("after", after, 0, 2**63 - 1)
    return _changes(context, command.namespace, context.ports.store.watch(after, kinds))


async def _changes(context: Context, namespace: str, changes: AsyncIterator[Change]) -> AsyncIterator[ChangeView]:
    async for change in changes:
        where = place_of(change.obj)
        if namespace and where != namespace:
            continue
        # Asked for each change, so that a token that expires meanwhile sees nothing more.
        if context.may(f"{RESOURCES[change.kind]}:read", where):
            if isinstance(change.obj, Function | Revision | Route) and change.type == "put":
                await context.told(change.obj)
            yield ChangeView(version=change.version, type=change.type, kind=change.kind, object=shown(change.obj))


def place_of(obj: AnyObject) -> str:
    """The namespace that an object belongs to; a namespace belongs to itself, a token to the platform."""
    return obj.meta.name if isinstance(obj, Namespace) else obj.meta.namespace


def shown(obj: AnyObject) -> AnyObject | SecretView | TokenView:
    """An object as it may leave the service."""
    if isinstance(obj, Secret):
        return secrets.view(obj)
    return tokens.view(obj) if isinstance(obj, Token) else obj
