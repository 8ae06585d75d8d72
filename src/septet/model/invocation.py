"""Invocations: identity and record."""

from __future__ import annotations

import msgspec

from septet.model.instance import ColdReason


class InvocationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one call after it ended. `id` is 32 hex digits (128 bits); times are epoch seconds.

    `phases` has seconds by phase: queue, start, init, run, reply. `error` is an error code of the tree.
    """

    id: str
    namespace: str
    function: str
    revision: str = ""
    instance: str = ""
    api: str = "native"
    caller: str = ""
    correlation: str = ""
    method: str = ""
    path: str = ""
    status: int = 0
    queued_at: float = 0.0
    started_at: float = 0.0
    first_byte_at: float = 0.0
    ended_at: float = 0.0
    cold: ColdReason = ""
    phases: dict[str, float] = {}
    error: str = ""
    message: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
