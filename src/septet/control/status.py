"""Writing status: control's alone, always on top of what is stored now."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import msgspec

from septet.control.mirror import Mirror
from septet.model.errors import Conflict, NotFound, SeptetError
from septet.model.function import Function, Revision
from septet.model.meta import Condition
from septet.model.objects import Route
from septet.ports.store import Store

Reconciled = TypeVar("Reconciled", Function, Revision, Route)


class Statuses:
    """Changes a status by a function of the object, again when somebody else wrote meanwhile."""

    def __init__(self, store: Store, mirror: Mirror) -> None:
        self._store = store
        self._mirror = mirror

    async def change(self, obj: Reconciled, new: Callable[[Reconciled], Reconciled]) -> Reconciled | None:
        """Writes `new(obj)`'s status and returns the object as stored; None when it is gone."""
        kind = type(obj)
        current = self._mirror.get(kind, obj.meta.namespace, obj.meta.name) or obj
        while current.meta.uid == obj.meta.uid:
            wanted = new(current)
            if wanted.status == current.status:
                return current
            try:
                stored = cast("Reconciled", await self._store.update_status(wanted))
            except Conflict:
                pass
            except NotFound:
                return None
            else:
                self._mirror.apply(stored)
                return stored
            try:
                current = cast("Reconciled", await self._store.get(kind.__name__, obj.meta.namespace, obj.meta.name))
            except NotFound:
                return None
        return None


def with_condition(conditions: tuple[Condition, ...], new: Condition) -> tuple[Condition, ...]:
    """Replaces the condition of this type; `changed_at` stays when the status does."""
    old = next((condition for condition in conditions if condition.type == new.type), None)
    if old is not None and old.status == new.status:
        new = msgspec.structs.replace(new, changed_at=old.changed_at)
    if old is None:
        return (*conditions, new)
    return tuple(new if condition.type == new.type else condition for condition in conditions)


def explain(error: SeptetError, tail: int) -> str:
    """A condition's message: what happened, what to do, and the end of the log or trace, if there is one."""
    parts = [str(error)]
    for name in ("trace", "log"):
        text = error.details.get(name)
        if isinstance(text, str) and text.strip():
            parts.append(text.strip()[-tail:])
    return "\n".join(parts)
