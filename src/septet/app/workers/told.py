"""What readers see where workers serve: what these have not told yet, or do not know yet, is waited for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from septet.control.view import View
from septet.model.invocation import InvocationRecord
from septet.model.objects import AnyObject
from septet.ports.logs import LogLine, Logs


class ToldLogs:
    """Implements `ports.logs.Logs` over the platform's own; `settle` returns when workers have told all they know."""

    def __init__(self, logs: Logs, settle: Callable[[], Awaitable[None]]) -> None:
        self._logs = logs
        self._settle = settle
        self.write = logs.write
        self.record = logs.record
        self.record_encoded = logs.record_encoded
        self.follow = logs.follow
        self.delete = logs.delete
        self.close = logs.close

    async def read(self, namespace: str, function: str, **which: Any) -> list[LogLine]:
        await self._settle()
        return await self._logs.read(namespace, function, **which)

    async def invocations(self, namespace: str, function: str = "", *, limit: int = 100) -> list[InvocationRecord]:
        await self._settle()
        return await self._logs.invocations(namespace, function, limit=limit)

    async def invocation(self, namespace: str, id: str) -> InvocationRecord:
        await self._settle()
        return await self._logs.invocation(namespace, id)


class ToldView(View):
    """A view whose readers may call what it shows: every worker knows of it by then."""

    def __init__(self, *rest: Any, settle: Callable[[], Awaitable[None]]) -> None:
        super().__init__(*rest)
        self._settle = settle

    async def known(self, objects: Iterable[AnyObject]) -> None:
        await super().known(objects)
        await self._settle()
