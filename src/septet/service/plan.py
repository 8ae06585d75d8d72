"""What an apply changes, field by field, and applying it: the same for every kind that can be applied."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import msgspec

from septet.model.errors import Conflict, NotFound
from septet.model.function import Function
from septet.model.meta import Meta
from septet.model.objects import Environment, Namespace, Route, Secret
from septet.service.context import Context
from septet.service.results import Action, FieldChange

Applied = TypeVar("Applied", Function, Namespace, Route, Environment, Secret)


class Wish(NamedTuple):
    """The metadata part of an apply; None keeps what is there, `resource_version` 0 compares nothing."""

    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    documents: dict[str, msgspec.Raw] | None = None
    resource_version: int = 0
    dry_run: bool = False
    create: bool = False
    applied_by: tuple[str, ...] | None = None


class Outcome(NamedTuple):
    """`obj` is the object as stored, or, of a dry run, as it would be."""

    action: Action
    changes: tuple[FieldChange, ...]
    obj: Any


def meta_with(meta: Meta, wish: Wish) -> Meta:
    return msgspec.structs.replace(
        meta,
        labels=meta.labels if wish.labels is None else wish.labels,
        annotations=meta.annotations if wish.annotations is None else wish.annotations,
        documents=meta.documents if wish.documents is None else wish.documents,
        applied_by=meta.applied_by if wish.applied_by is None else wish.applied_by,
        resource_version=wish.resource_version or meta.resource_version,
    )


def check_version(known: Meta, wanted: int, what: str) -> None:
    """Raises Conflict when the caller knew another version; 0 compares nothing."""
    if wanted and known.resource_version != wanted:
        raise Conflict(
            f"{what} has changed meanwhile: it is at version {known.resource_version}, not {wanted}",
            hint="read it again, and apply your change to that",
            details={"reason": "version", "resource_version": known.resource_version},
        )


def check_alive(meta: Meta, what: str) -> None:
    if meta.deleting_since is not None:
        raise Conflict(
            f"{what} is being deleted", hint="wait until it is gone, and try again", details={"reason": "state"}
        )


async def apply(
    context: Context,
    new: Applied,
    wish: Wish,
    change: Callable[[Applied], Applied],
    before_write: Callable[[Applied | None], Awaitable[None]] | None = None,
) -> Outcome:
    """Creates `new`, or updates what is there by `change` (its spec) and `wish` (its metadata).

    `before_write` may refuse what is about to be written; a dry run does not ask it. An update that names no
    version is tried again when another write came between.
    """
    kind, namespace, name = type(new), new.meta.namespace, new.meta.name
    what = f"{kind.__name__.lower()} {name!r}"
    for _ in range(5):
        try:
            known = await context.get(kind, namespace, name)
        except NotFound:
            if wish.resource_version:
                raise
            created = msgspec.structs.replace(new, meta=meta_with(new.meta, wish))
            if not wish.dry_run:
                if before_write:
                    await before_write(None)
                try:
                    created = await context.create(created)
                except Conflict:
                    if wish.create:
                        raise
                    continue
                await _check_home(context, created)
            return Outcome("created", differences(None, created), created)
        if wish.create:
            raise Conflict(
                f"there is a {what} already",
                hint="choose another name, or apply a change to this one",
                details={"reason": "state"},
            )
        check_alive(known.meta, what)
        check_version(known.meta, wish.resource_version, what)
        wanted = change(msgspec.structs.replace(known, meta=meta_with(known.meta, wish)))
        changes = differences(known, wanted)
        if not changes:
            return Outcome("unchanged", (), known)
        if wish.dry_run:
            return Outcome("updated", changes, wanted)
        if before_write:
            await before_write(known)
        try:
            return Outcome("updated", changes, await context.update(wanted))
        except Conflict:
            if wish.resource_version:
                raise
    raise Conflict(f"{what} is being changed by others all the time", hint="try again", details={"reason": "version"})


async def _check_home(context: Context, created: Applied) -> None:
    """Takes a new object back when its namespace has begun to go meanwhile: nobody would empty it again."""
    if not created.meta.namespace:
        return
    try:
        home = await context.get(Namespace, "", created.meta.namespace)
        check_alive(home.meta, f"namespace {created.meta.namespace!r}")
    except (NotFound, Conflict):
        await context.ports.store.delete(type(created).__name__, created.meta.namespace, created.meta.name)
        raise


def differences(old: Applied | None, new: Applied) -> tuple[FieldChange, ...]:
    """The fields of spec, labels and annotations that differ; of a new object, those that say something."""
    before = _flat(old) if old is not None else {}
    after = _flat(new)
    if old is None:
        after = {name: value for name, value in after.items() if value not in ("", [], None)}
    return tuple(
        FieldChange(field=name, old=before.get(name), new=after.get(name))
        for name in sorted(before.keys() | after.keys())
        if name not in before or name not in after or before[name] != after[name]
    )


def _flat(obj: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if isinstance(obj, Secret):
        _walk("data", obj.spec.sealed, found)
    else:
        spec = msgspec.to_builtins(obj.spec)
        spec = {**spec.pop("template"), **spec} if isinstance(obj, Function) else spec
        _walk("", spec, found)
    _walk("labels", obj.meta.labels, found)
    _walk("annotations", obj.meta.annotations, found)
    _walk("documents", {key: bytes(raw).decode() for key, raw in obj.meta.documents.items()}, found)
    return found


def _walk(path: str, value: Any, found: dict[str, Any]) -> None:
    """Mappings are walked into; lists are compared as a whole."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _walk(f"{path}.{key}" if path else str(key), inner, found)
    else:
        found[path] = value
