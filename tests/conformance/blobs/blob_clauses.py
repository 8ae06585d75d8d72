"""The clauses of the blobs port (`septet/ports/blobs.py`), as functions of a test bed."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from clauses import Suite, raises

from septet.drivers.blobs.files import FileBlobs
from septet.model.errors import Corrupt, NotFound, PayloadTooLarge

BIG = bytes(range(256)) * 5000


class BlobBed:
    def __init__(self, folder: Path, make: type[FileBlobs] = FileBlobs) -> None:
        self.root = folder / "blobs"
        self.make = make
        self.blobs = make(self.root)

    def reopen(self) -> None:
        self.blobs = self.make(self.root)

    def files(self) -> list[Path]:
        return [path for path in self.root.rglob("*") if path.is_file()]


suite: Suite[BlobBed] = Suite()


def named(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


async def pieces(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def whole(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


@suite.clause("blobs.1")
async def what_was_put_is_there(bed: BlobBed) -> None:
    for data in (b"", b"x", BIG):
        digest = await bed.blobs.put(pieces(data))
        assert digest == named(data)
        assert await bed.blobs.put_bytes(data) == digest
        bed.reopen()
        assert await whole(bed.blobs.open(digest)) == data
        assert await bed.blobs.read(digest) == data
        assert await bed.blobs.size(digest) == len(data)
        assert bed.blobs.path(digest).read_bytes() == data
    assert sorted(await bed.blobs.digests()) == sorted(map(named, (b"", b"x", BIG)))
    assert len(bed.files()) == 3


@suite.clause("blobs.1")
async def what_was_put_is_synced(bed: BlobBed) -> None:
    """The whole file is synced before it gets its name, and its name after that."""
    synced: list[str] = []
    true_sync = os.fsync

    def sync(fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        synced.append("folder" if path.is_dir() else f"file {path.stat().st_size}")
        true_sync(fd)

    os.fsync = sync  # type: ignore[assignment]
    try:
        for data in (b"small", BIG):
            synced.clear()
            digest = await bed.blobs.put_bytes(data)
            assert synced[0] == f"file {len(data)}", synced
            assert synced[-1] == "folder"
            assert bed.blobs.path(digest).exists()
    finally:
        os.fsync = true_sync


@suite.clause("blobs.2")
async def what_is_too_large_leaves_nothing(bed: BlobBed) -> None:
    await raises(PayloadTooLarge, bed.blobs.put(pieces(BIG), limit=len(BIG) - 1))
    assert bed.files() == []
    assert await bed.blobs.digests() == []
    assert await bed.blobs.put(pieces(BIG), limit=len(BIG)) == named(BIG)


@suite.clause("blobs.2")
async def what_broke_off_leaves_nothing(bed: BlobBed) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield BIG
        raise ConnectionResetError("the client went")

    try:
        await bed.blobs.put(broken())
    except ConnectionResetError:
        pass
    else:
        raise AssertionError("the stream's own error did not come through")

    async def endless() -> AsyncIterator[bytes]:
        yield BIG
        await asyncio.sleep(60)

    putting = asyncio.ensure_future(bed.blobs.put(endless()))
    await asyncio.sleep(0.05)
    putting.cancel()
    await asyncio.gather(putting, return_exceptions=True)
    assert bed.files() == []


@suite.clause("blobs.3")
async def what_is_not_there_is_not_found(bed: BlobBed) -> None:
    digest = await bed.blobs.put_bytes(b"x")
    await bed.blobs.delete(digest)
    await bed.blobs.delete(digest)
    (bed.root / "outside").write_bytes(b"x")
    for name in (digest, "", "x", "sha256:../outside", "sha256:" + "A" * 64, digest.upper(), "sha256:" + "0" * 63):
        await raises(NotFound, whole(bed.blobs.open(name)))
        await raises(NotFound, bed.blobs.read(name))
        await raises(NotFound, bed.blobs.size(name))
        try:
            bed.blobs.path(name)
        except NotFound:
            continue
        raise AssertionError(f"{name!r} has a path")


@suite.clause("blobs.3")
async def what_was_altered_is_never_handed_out(bed: BlobBed) -> None:
    for at in (0, len(BIG) // 2, len(BIG) - 1):
        digest = await bed.blobs.put_bytes(BIG)
        path = bed.blobs.path(digest)
        data = bytearray(BIG)
        data[at] ^= 1
        path.write_bytes(data)
        seen: list[bytes] = []
        try:
            async for chunk in bed.blobs.open(digest):
                seen.append(chunk)  # noqa: PERF401 (what came before the failure counts)
        except Corrupt:
            pass
        else:
            raise AssertionError("no Corrupt")
        assert seen == []
        path.write_bytes(BIG[:-1])
        await raises(Corrupt, bed.blobs.read(digest))
        assert await bed.blobs.put_bytes(BIG) == digest
        assert await bed.blobs.read(digest) == BIG
