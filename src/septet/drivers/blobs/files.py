"""Blobs as files named by their digest."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO

from septet.drivers.blobs.durable import disk_errors, sync_directory
from septet.model.errors import Corrupt, NotFound, PayloadTooLarge

CHUNK = 256 * 1024
STORING = "storing an upload"
READING = "reading a blob"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


class FileBlobs:
    """`<root>/<two digits>/<digest>`; what is being received stands in `<root>/incoming`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._folders: set[str] = set()
        with disk_errors("making the blob directory"):
            self._incoming.mkdir(parents=True, exist_ok=True, mode=0o700)
            for left in self._incoming.iterdir():
                left.unlink()
            sync_directory(root)
            sync_directory(root.parent)

    async def put(self, chunks: AsyncIterator[bytes], limit: int = 0) -> str:
        part = self._incoming / secrets.token_hex(16)
        seen = hashlib.sha256()
        size = 0
        with disk_errors(STORING):
            file = part.open("xb")
        try:
            async for chunk in chunks:
                size += len(chunk)
                if limit and size > limit:
                    raise _too_large(limit)
                with disk_errors(STORING):
                    await asyncio.to_thread(_append, file, seen, chunk)
            with disk_errors(STORING):
                return await asyncio.to_thread(self._keep, file, part, seen.hexdigest())
        finally:
            # What a failed write left in the buffer fails again when the file is closed.
            with contextlib.suppress(OSError):
                file.close()
            part.unlink(missing_ok=True)

    async def put_bytes(self, data: bytes) -> str:
        async def whole() -> AsyncIterator[bytes]:
            yield data

        return await self.put(whole())

    async def open(self, digest: str) -> AsyncIterator[bytes]:
        path = self.path(digest)
        with disk_errors(READING), _not_found(digest):
            file = await asyncio.to_thread(_checked, path, digest)
        with file:
            while True:
                with disk_errors(READING):
                    chunk = await asyncio.to_thread(file.read, CHUNK)
                if not chunk:
                    return
                yield chunk

    async def read(self, digest: str, limit: int = 64 * 1024 * 1024) -> bytes:
        size = await self.size(digest)
        if size > limit:
            raise PayloadTooLarge(f"the blob has {size} bytes", limit=f"read {limit} bytes")
        return b"".join([chunk async for chunk in self.open(digest)])

    async def size(self, digest: str) -> int:
        path = self.path(digest)
        with disk_errors(READING), _not_found(digest):
            return path.stat().st_size

    async def delete(self, digest: str) -> None:
        with contextlib.suppress(NotFound):
            path = self.path(digest)
            with disk_errors("deleting a blob"):
                path.unlink(missing_ok=True)

    async def digests(self) -> list[str]:
        return await asyncio.to_thread(
            lambda: [f"sha256:{path.name}" for path in self._root.glob("[0-9a-f][0-9a-f]/*")]
        )

    def path(self, digest: str) -> Path:
        found = _DIGEST.fullmatch(digest)
        path = self._root / found[1][:2] / found[1] if found else None
        if path is None or not path.exists():
            raise _missing(digest)
        return path

    def _keep(self, file: IO[bytes], part: Path, digest: str) -> str:
        file.flush()
        os.fsync(file.fileno())
        folder = self._root / digest[:2]
        if digest[:2] not in self._folders:
            folder.mkdir(exist_ok=True, mode=0o700)
            sync_directory(self._root)
            self._folders.add(digest[:2])
        part.chmod(0o600)
        part.replace(folder / digest)
        sync_directory(folder)
        return f"sha256:{digest}"


def _append(file: IO[bytes], seen: hashlib._Hash, chunk: bytes) -> None:
    seen.update(chunk)
    file.write(chunk)


def _checked(path: Path, digest: str) -> IO[bytes]:
    """The file, open at its begin, once all of it was seen to be right: nothing altered is handed out."""
    file = path.open("rb")
    try:
        if hashlib.file_digest(file, "sha256").hexdigest() != path.name:
            raise Corrupt(
                f"the blob {digest} does not match its digest and is not used", hint="deploy the function again"
            )
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


@contextlib.contextmanager
def _not_found(digest: str) -> Iterator[None]:
    """A blob that went between two looks was not there."""
    try:
        yield
    except FileNotFoundError as error:
        raise _missing(digest) from error


def _missing(digest: str) -> NotFound:
    return NotFound(f"there is no blob {digest[:80]!r}", details={"kind": "Blob", "name": digest[:80]})


def _too_large(limit: int) -> PayloadTooLarge:
    size = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit} bytes"
    return PayloadTooLarge(
        f"the upload is larger than {size}",
        hint="leave out what need not be there (.septetignore)",
        limit=f"archive {size}",
    )
