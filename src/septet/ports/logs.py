"""Function output and invocation records, bounded on disk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal, Protocol

import msgspec

from septet.model.invocation import InvocationRecord

Stream = Literal["stdout", "stderr", "platform"]


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line. `at` is epoch seconds; `invocation` is empty when it is not known to belong to one."""

    at: float
    namespace: str
    function: str
    revision: str
    instance: str
    stream: Stream
    text: str
    invocation: str = ""


class Logs(Protocol):
    """logs.1  A function's lines stay below its bound on disk; the oldest go first, and a line says so.

    logs.2  Text is stored escaped: control characters and invalid UTF-8 cannot forge a line.
    """

    def write(self, line: LogLine) -> None:
        """Never blocks, never raises; visible to readers within 100 ms."""
        ...

    def record(self, record: InvocationRecord) -> None:
        """Keeps an invocation's record, in batches; never blocks, never raises."""
        ...

    def record_encoded(self, function: tuple[str, str], record: bytes) -> None:
        """As `record`, of a function (namespace, name): the record as JSON, printable ASCII without a backslash."""
        ...

    async def read(
        self,
        namespace: str,
        function: str,
        *,
        revision: str = "",
        instance: str = "",
        invocation: str = "",
        since: float = 0.0,
        tail: int = 0,
    ) -> list[LogLine]:
        """Kept lines in order; `tail` > 0 gives the last so many."""
        ...

    def follow(self, namespace: str, function: str, *, since: float = 0.0) -> AsyncIterator[LogLine]:
        """Kept lines after `since`, then new ones as they come, until the iterator is closed."""
        ...

    async def invocations(self, namespace: str, function: str = "", *, limit: int = 100) -> list[InvocationRecord]:
        """The newest records first."""
        ...

    async def invocation(self, namespace: str, id: str) -> InvocationRecord:
        """One record; NotFound."""
        ...

    async def delete(self, namespace: str, function: str) -> None:
        """Forgets a function's lines and records."""
        ...

    async def close(self) -> None: ...
