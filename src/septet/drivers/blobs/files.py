"""Blobs as files named by their digest."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from septet.drivers.blobs.durable import disk_errors, sync_directory
from septet.model.errors import Corrupt, NotFound, PayloadTooLarge

CHUNK = 256 * 1024
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


class FileBlobs:
    """`<root>/<two digits>/<digest>`; what is being received stands in `<root>/incoming`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        with disk_errors("making the blob directory"):
            self._incoming.mkdir(parents=True, exist_ok=True, mode=0o700)
            for left in self._incoming.iterdir():
                left.unlink()

    async def put(self, chunks: AsyncIterator[bytes], limit: int = 0) -> str:
        part = self._incoming / secrets.token_hex(16)
        seen = hashlib.sha256()
        size = 0
        try:
            with disk_errors("storing an upload"):
                with part.open("xb") as file:
                    async for chunk in chunks:
                        size += len(chunk)
                        if limit and size > limit:
                            raise PayloadTooLarge(
                                f"the upload is larger than {limit >> 20} MiB",
                                hint="leave out what need not be there (.septetignore)",
                                limit=f"archive {limit >> 20} MiB",
                            )
                        await asyncio.to_thread(_append, file, seen, chunk)
                    await asyncio.to_thread(os.fsync, file.fileno())
                return await asyncio.to_thread(self._keep, part, seen.hexdigest())
        finally:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()

    async def put_bytes(self, data: bytes) -> str:
        async def whole() -> AsyncIterator[bytes]:
            yield data

        return await self.put(whole())

    async def open(self, digest: str) -> AsyncIterator[bytes]:
        path = self.path(digest)
        seen = hashlib.sha256()
        with disk_errors("reading a blob"), path.open("rb") as file:
            # The last chunk is held back until the whole is known to be right.
            held = b""
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                seen.update(chunk)
                if held:
                    yield held
                held = chunk
        if seen.hexdigest() != path.name:
            raise _corrupt(digest)
        if held:
            yield held

    async def read(self, digest: str, limit: int = 64 * 1024 * 1024) -> bytes:
        size = await self.size(digest)
        if size > limit:
            raise PayloadTooLarge(f"the blob has {size} bytes", limit=f"read {limit} bytes")
        return b"".join([chunk async for chunk in self.open(digest)])

    async def size(self, digest: str) -> int:
        return self.path(digest).stat().st_size

    async def delete(self, digest: str) -> None:
        with contextlib.suppress(NotFound, FileNotFoundError), disk_errors("deleting a blob"):
            self.path(digest).unlink()

    async def digests(self) -> list[str]:
        return await asyncio.to_thread(
            lambda: [f"sha256:{path.name}" for path in self._root.glob("[0-9a-f][0-9a-f]/*")]
        )

    def path(self, digest: str) -> Path:
        found = _DIGEST.fullmatch(digest)
        path = self._root / found[1][:2] / found[1] if found else None
        if path is None or not path.exists():
            raise NotFound(f"there is no blob {digest[:80]!r}", details={"kind": "Blob", "name": digest[:80]})
        return path

    def _keep(self, part: Path, digest: str) -> str:
        folder = self._root / digest[:2]
        if not folder.exists():
            folder.mkdir(exist_ok=True, mode=0o700)
            sync_directory(self._root)
        part.chmod(0o600)
        part.replace(folder / digest)
        sync_directory(folder)
        return f"sha256:{digest}"


def _append(file: IO[bytes], seen: hashlib._Hash, chunk: bytes) -> None:
    seen.update(chunk)
    file.write(chunk)


def _corrupt(digest: str) -> Corrupt:
    return Corrupt(f"the blob {digest} does not match its digest and is not used", hint="deploy the function again")
