"""Bytes by digest, and trees of files by digest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol


class Blobs(Protocol):
    """Immutable bytes, named "sha256:<hex>". blobs.1: what `put` returned is durable and complete."""

    async def put(self, chunks: AsyncIterator[bytes], limit: int = 0) -> str:
        """Stores a stream and returns its digest; the same bytes twice are stored once.

        blobs.2  Raises PayloadTooLarge past `limit` bytes (0: none); nothing stays behind.
        """
        ...

    async def put_bytes(self, data: bytes) -> str:
        """As `put`, for bytes at hand."""
        ...

    def open(self, digest: str) -> AsyncIterator[bytes]:
        """The bytes in chunks. blobs.3  Raises NotFound; Corrupt when they do not match the digest."""
        ...

    async def read(self, digest: str, limit: int = 64 * 1024 * 1024) -> bytes:
        """All bytes; PayloadTooLarge past `limit`."""
        ...

    async def size(self, digest: str) -> int:
        """Bytes; NotFound."""
        ...

    async def delete(self, digest: str) -> None:
        """Removes it; of an unknown digest, nothing happens."""
        ...

    async def digests(self) -> list[str]:
        """All digests."""
        ...

    def path(self, digest: str) -> Path:
        """Where the bytes stand on this host, for the archive reader; NotFound."""
        ...


class Trees(Protocol):
    """Immutable trees of files, named by digest, and writable ones in the making, named by the caller's word."""

    async def create(self, work: str) -> Path:
        """A new empty writable tree, owned by us, mode 0700; what an earlier try left under `work` goes."""
        ...

    def working(self, work: str) -> Path:
        """Where a tree in the making stands on this host; NotFound."""
        ...

    async def freeze(self, work: str) -> str:
        """Makes the tree immutable and durable; returns its digest ("tree:<hex>"). An equal tree is kept once.

        trees.1  Owner, and times, do not count; names, contents, link targets and execute bits do.
        trees.2  Setuid and setgid bits are cleared; anything but files, directories and links is refused
                 (InvalidInput).
        """
        ...

    async def discard(self, work: str) -> None:
        """Removes a tree in the making; of an unknown one, nothing happens."""
        ...

    async def keep(self, name: str) -> Path:
        """A writable tree that stays, with what earlier tasks left in it; `working` finds it too.

        trees.3  It outlives the process. Nothing in it counts: any of it may be gone the next time.
        """
        ...

    async def trim(self, name: str, limit: int) -> int:
        """Takes the files that were changed longest ago out of a kept tree until the rest takes at most `limit`
        bytes of disk (0: nothing of it stays), and returns what the rest takes. Links are not followed.

        Nobody may write into the tree meanwhile.
        """
        ...

    async def kept(self) -> list[str]:
        """The names of all kept trees."""
        ...

    def path(self, digest: str) -> Path:
        """Where a frozen tree stands on this host, for drivers of the same host; NotFound."""
        ...

    def folder(self) -> Path:
        """Where all frozen trees stand on this host, each a folder of its own."""
        ...

    async def delete(self, digest: str) -> None: ...

    async def digests(self) -> list[str]: ...


class Vault(Protocol):
    """Secrets at rest. vault.1: sealed values differ each time and fail to open when a bit changes (Corrupt).

    `context` binds a value to its place ("namespace/name/key"): opened elsewhere it raises Corrupt.
    """

    def seal(self, plain: bytes, context: str) -> str: ...

    def open(self, sealed: str, context: str) -> bytes: ...


Progress = Callable[[str], None]
