"""Revisions: list, read, delete, and their build logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import cast

from septet.model.errors import Conflict, NotFound
from septet.model.function import Function, Revision
from septet.model.objects import Route
from septet.ports.logs import LogLine
from septet.service.commands import BuildLog, DeleteRevision, FollowBuildLog, GetRevision, ListRevisions
from septet.service.context import Context
from septet.service.results import Listing

LOG_MOST = 16 * 1024 * 1024
LOOK_EVERY = 0.3
"""Seconds without a line after which a follower looks whether the build has ended: longer than a line takes to show."""
BUILD_INSTANCE = "build"
"""Whose lines a build's output is among the function's logs while it runs."""


async def revisions_of(context: Context, function: Function) -> list[Revision]:
    """A function's own revisions, oldest first."""
    found = [
        revision
        for revision in await context.all(Revision, function.meta.namespace)
        if revision.spec.function_uid == function.meta.uid
    ]
    return sorted(found, key=lambda revision: revision.spec.number)


async def list_revisions(context: Context, command: ListRevisions) -> Listing[Revision]:
    function = await context.get(Function, command.namespace, command.name)
    found = await revisions_of(context, function)
    await context.told(*found)
    return Listing(items=tuple(found), version=await context.ports.store.version())


async def get_revision(context: Context, command: GetRevision) -> Revision:
    revision = await context.get(Revision, command.namespace, command.revision)
    if revision.spec.function != command.name:
        raise NotFound(
            f"function {command.name!r} has no revision {command.revision!r}",
            hint="`septet revisions` lists them",
            details={"kind": "Revision", "name": command.revision},
        )
    await context.told(revision)
    return revision


async def delete_revision(context: Context, command: DeleteRevision) -> Revision:
    """Refused for what traffic, a tag or a route needs, and for the newest: it is what the function's spec says."""
    revision = await get_revision(
        context, GetRevision(namespace=command.namespace, name=command.name, revision=command.revision)
    )
    function = await context.get(Function, command.namespace, command.name)
    user = await _user(context, function, revision.meta.name)
    if user:
        raise Conflict(
            f"{command.revision!r} is still needed: {user}",
            hint="move the traffic, the tag or the route away first",
            details={"reason": "state"},
        )
    deleted = await context.ports.store.delete(
        "Revision", command.namespace, command.revision, resource_version=command.resource_version
    )
    assert isinstance(deleted, Revision)
    return deleted


async def _user(context: Context, function: Function, revision: str) -> str:
    if any(target.revision == revision for target in (*function.spec.traffic, *function.status.traffic)):
        return f"the traffic or a tag of {function.meta.name!r} goes to it"
    if revision in (function.status.latest_created, function.status.latest_ready):
        return "it is the latest"
    for route in await context.all(Route, function.meta.namespace):
        if any(target.revision == revision for target in route.spec.targets):
            return f"route {route.meta.name!r} goes to it"
    return ""


async def build_log(context: Context, command: BuildLog) -> str:
    """The whole log once the build has ended; while it runs, and when none was needed, what is known so far."""
    revision = await get_revision(
        context, GetRevision(namespace=command.namespace, name=command.name, revision=command.revision)
    )
    if revision.status.build_log:
        data = await context.ports.blobs.read(revision.status.build_log, limit=LOG_MOST)
        return data.decode("utf-8", "replace")
    lines = await context.ports.logs.read(
        command.namespace, command.name, revision=command.revision, instance=BUILD_INSTANCE
    )
    return "".join(f"{line.text}\n" for line in lines)


async def follow_build_log(context: Context, command: FollowBuildLog) -> AsyncIterator[bytes]:
    await get_revision(context, _named(command))
    return _follow(context, command)


async def _follow(context: Context, command: FollowBuildLog) -> AsyncIterator[bytes]:
    if not await _builds(context, command):
        whole = BuildLog(namespace=command.namespace, name=command.name, revision=command.revision)
        yield (await build_log(context, whole)).encode()
        return
    lines = cast("AsyncGenerator[LogLine]", context.ports.logs.follow(command.namespace, command.name))
    following = asyncio.ensure_future(anext(lines))
    try:
        while True:
            await asyncio.wait({following}, timeout=LOOK_EVERY)
            if following.done():
                line = following.result()
                following = asyncio.ensure_future(anext(lines))
                if line.revision == command.revision and line.instance == BUILD_INSTANCE:
                    yield f"{line.text}\n".encode()
            elif not await _builds(context, command):
                return
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await lines.aclose()


async def _builds(context: Context, command: FollowBuildLog) -> bool:
    """Whether the build is still to come, or under way."""
    return (await get_revision(context, _named(command))).status.phase in ("pending", "building")


def _named(command: FollowBuildLog) -> GetRevision:
    return GetRevision(namespace=command.namespace, name=command.name, revision=command.revision)
