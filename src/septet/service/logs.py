"""Output and invocation records."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from septet.model.function import Function
from septet.model.invocation import InvocationRecord
from septet.ports.logs import LogLine
from septet.service import validation
from septet.service.commands import FollowLogs, GetInvocation, ListInvocations, ReadLogs
from septet.service.context import Context
from septet.service.results import Listing

TAIL_MOST = 1_000_000
RECORDS_MOST = 1000


async def read_logs(context: Context, command: ReadLogs) -> list[LogLine]:
    await _check(context, command)
    return await _read(context, command)


async def follow_logs(context: Context, command: FollowLogs) -> AsyncIterator[LogLine]:
    """Kept lines and new ones. With `tail` the last so many kept ones, and everything after them."""
    await _check(context, command)
    since = command.since
    skip = 0
    if command.tail:
        kept = await _read(context, command)
        since = kept[0].at if kept else context.ports.clock.wall()
        # Lines of the same instant as the first one of the tail, but before it, must not come again.
        same = await context.ports.logs.read(command.namespace, command.name, since=since) if kept else []
        same = [line for line in same if _wanted(line, command)]
        skip = max(0, len(same) - len(kept))
    return _follow(context, command, since, skip)


async def _follow(context: Context, command: FollowLogs, since: float, skip: int) -> AsyncIterator[LogLine]:
    lines = context.ports.logs.follow(command.namespace, command.name, since=since)
    async for line in lines:
        if not _wanted(line, command):
            continue
        if skip:
            skip -= 1
            continue
        yield line


def _wanted(line: LogLine, command: ReadLogs | FollowLogs) -> bool:
    return (
        (not command.revision or line.revision == command.revision)
        and (not command.instance or line.instance == command.instance)
        and (not command.invocation or line.invocation == command.invocation)
    )


async def _read(context: Context, command: ReadLogs | FollowLogs) -> list[LogLine]:
    return await context.ports.logs.read(
        command.namespace,
        command.name,
        revision=command.revision,
        instance=command.instance,
        invocation=command.invocation,
        since=command.since,
        tail=command.tail,
    )


async def _check(context: Context, command: ReadLogs | FollowLogs) -> None:
    validation.number("tail", command.tail, 0, TAIL_MOST)
    validation.number("since", command.since, 0, 1e11)
    await context.get(Function, command.namespace, command.name)


async def list_invocations(context: Context, command: ListInvocations) -> Listing[InvocationRecord]:
    validation.number("limit", command.limit, 1, RECORDS_MOST)
    await context.get(Function, command.namespace, command.name)
    found = await context.ports.logs.invocations(command.namespace, command.name, limit=command.limit)
    return Listing(items=tuple(found))


async def get_invocation(context: Context, command: GetInvocation) -> InvocationRecord:
    if not re.fullmatch(r"[0-9a-f]{32}", command.id):
        validation.refuse("id", f"{command.id[:80]!r} is no invocation's id", "32 hex digits")
    return await context.ports.logs.invocation(command.namespace, command.id)
