"""Uploads."""

from __future__ import annotations

from septet.model.errors import NotFound
from septet.policy.quota import Usage, check
from septet.service import accounts, references, validation
from septet.service.commands import GetBlob, PutBlob
from septet.service.context import Context
from septet.service.results import BlobFacts

MEBIBYTE = 1024 * 1024


async def put_blob(context: Context, command: PutBlob) -> BlobFacts:
    """Stores the bytes; raises PayloadTooLarge past the platform's limit, QuotaExceeded past the namespace's or the
    token's."""
    owner = await references.live_namespace(context, command.namespace)
    quota = owner.spec.quota
    limit = context.settings.archive_limit
    used = 0.0
    if quota.storage:
        used = await _stored(context, command.namespace) / MEBIBYTE
        check(quota, Usage(storage=used), Usage(storage=1 / MEBIBYTE), f"namespace {command.namespace!r}")
    await accounts.check_storage(context)
    digest = await context.ports.blobs.put(command.chunks, limit)
    size = await context.ports.blobs.size(digest)
    if quota.storage and digest not in await _digests(context, command.namespace):
        # What is over the quota is not claimed, so nothing can name it and the collector takes it away.
        check(quota, Usage(storage=used), Usage(storage=size / MEBIBYTE), f"namespace {command.namespace!r}")
    await accounts.check_storage(context, digest, size)
    context.claims.add(command.namespace, digest, context.caller.account)
    return BlobFacts(digest=digest, size=size)


async def get_blob(context: Context, command: GetBlob) -> BlobFacts:
    """NotFound too when the bytes are there, but another namespace's."""
    validation.digest("digest", command.digest)
    if not await context.claims.holds(command.namespace, command.digest):
        raise NotFound(
            f"{command.digest} has not been uploaded to namespace {command.namespace!r}",
            details={"kind": "Blob", "name": command.digest},
        )
    return BlobFacts(digest=command.digest, size=await context.ports.blobs.size(command.digest))


async def _digests(context: Context, namespace: str) -> set[str]:
    return context.claims.uploads(namespace) | await context.claims.used(namespace)


async def _stored(context: Context, namespace: str) -> int:
    """Bytes of everything that the namespace has uploaded or names."""
    total = 0
    for digest in await _digests(context, namespace):
        try:
            total += await context.ports.blobs.size(digest)
        except NotFound:
            continue
    return total
