"""What a token's quota counts: whatever it applied or uploaded, and whatever the tokens that it made did."""

from __future__ import annotations

from collections.abc import Iterator

from septet.model.errors import NotFound
from septet.model.function import Build, Function, Revision
from septet.model.objects import Quota
from septet.policy.quota import Usage, check
from septet.service.context import Context

MEBIBYTE = 1024 * 1024


def limited(context: Context, ceiling: str) -> Iterator[tuple[str, Quota]]:
    """The caller's token and those that it came from, of which a quota has that ceiling."""
    for name in context.caller.account:
        quota = context.credentials.quota(name)
        if getattr(quota, ceiling):
            yield name, quota


async def check_functions(context: Context, known: Function | None) -> None:
    """Before the caller applies a function that was `known` before; raises QuotaExceeded."""
    for name, quota in limited(context, "functions"):
        if known is not None and name in known.meta.applied_by:
            continue
        own = sum(name in function.meta.applied_by for function in await context.all(Function))
        check(quota, Usage(functions=own), Usage(functions=1), f"token {name!r}")


def check_build(context: Context, build: Build, namespace: str, quota: Quota) -> None:
    """A build may not ask for more memory than its namespace, with that quota, or its token has; QuotaExceeded."""
    asked = Usage(memory=build.memory)
    check(quota, Usage(), asked, f"namespace {namespace!r}")
    for name, own in limited(context, "memory"):
        check(own, Usage(), asked, f"token {name!r}")


async def check_storage(context: Context, digest: str = "", size: int = 1) -> None:
    """Before the caller's upload of `size` bytes is taken in, or claimed once it is known; raises QuotaExceeded."""
    for name, quota in limited(context, "storage"):
        stored = await _stored(context, name)
        if digest in stored:
            continue
        used = sum(stored.values()) / MEBIBYTE
        check(quota, Usage(storage=used), Usage(storage=size / MEBIBYTE), f"token {name!r}")


async def _stored(context: Context, token: str) -> dict[str, int]:
    """Bytes of each blob that the token uploaded, or that functions and revisions of its making name."""
    digests = context.claims.uploaded_by(token)
    applied: list[Function | Revision] = [*await context.all(Function), *await context.all(Revision)]
    for obj in applied:
        if token in obj.meta.applied_by and obj.spec.template.source:
            digests.add(obj.spec.template.source)
    sizes: dict[str, int] = {}
    for digest in digests:
        try:
            sizes[digest] = await context.ports.blobs.size(digest)
        except NotFound:
            continue
    return sizes
