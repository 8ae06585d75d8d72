"""Every clause of the blobs port, for every driver; and for each check a broken one that it finds out."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from blob_clauses import BIG, BlobBed, named, pieces, suite, whole
from clauses import Clause, raises, written_clauses

import septet.ports.blobs
from septet.drivers.blobs.files import FileBlobs
from septet.model.errors import Corrupt, NotFound, PayloadTooLarge, SeptetError, Unavailable

SRC = Path(__file__).parents[3] / "src"


@pytest.fixture
def bed(tmp_path: Path) -> BlobBed:
    return BlobBed(tmp_path)


@pytest.mark.parametrize("clause", suite.clauses, ids=lambda clause: clause.name)
async def test_clause(clause: Clause, bed: BlobBed) -> None:
    await clause.check(bed)


def test_every_clause_of_the_port_has_a_test() -> None:
    assert written_clauses(septet.ports.blobs, "blobs") == suite.ids()


class KeepsNothing(FileBlobs):
    async def put(self, chunks: AsyncIterator[bytes], limit: int = 0) -> str:
        return named(await whole(chunks))


class NeverSyncs(FileBlobs):
    def _keep(self, file: Any, part: Path, digest: str) -> str:
        file.flush()
        (self._root / digest[:2]).mkdir(exist_ok=True)
        part.replace(self._root / digest[:2] / digest)
        return f"sha256:{digest}"


class HasNoLimit(FileBlobs):
    async def put(self, chunks: AsyncIterator[bytes], limit: int = 0) -> str:
        return await super().put(chunks)


class LeavesItsParts(FileBlobs):
    async def put(self, chunks: AsyncIterator[bytes], limit: int = 0) -> str:
        left = self._incoming / "left"
        left.touch()
        made = await super().put(chunks, limit)
        left.unlink()
        return made


class FollowsPaths(FileBlobs):
    def path(self, digest: str) -> Path:
        with contextlib.suppress(NotFound):
            return super().path(digest)
        return self._root / "outside"


class NeverChecks(FileBlobs):
    async def open(self, digest: str) -> AsyncIterator[bytes]:
        yield self.path(digest).read_bytes()


BROKEN: dict[str, type[FileBlobs]] = {
    "what_was_put_is_there": KeepsNothing,
    "what_was_put_is_synced": NeverSyncs,
    "what_is_too_large_leaves_nothing": HasNoLimit,
    "what_broke_off_leaves_nothing": LeavesItsParts,
    "what_is_not_there_is_not_found": FollowsPaths,
    "what_was_altered_is_never_handed_out": NeverChecks,
}


@pytest.mark.parametrize("clause", suite.clauses, ids=lambda clause: clause.name)
async def test_a_broken_driver_fails(clause: Clause, tmp_path: Path) -> None:
    bed = BlobBed(tmp_path, BROKEN[clause.check.__name__])
    with pytest.raises((AssertionError, SeptetError, IndexError)):
        await clause.check(bed)


async def test_reading_all_is_bounded(bed: BlobBed) -> None:
    digest = await bed.blobs.put_bytes(BIG)
    await raises(PayloadTooLarge, bed.blobs.read(digest, limit=len(BIG) - 1))


async def test_equal_uploads_at_once_are_kept_once(bed: BlobBed) -> None:
    assert set(await asyncio.gather(*(bed.blobs.put(pieces(BIG)) for _ in range(8)))) == {named(BIG)}
    assert len(bed.files()) == 1


KILLED = """
import asyncio, sys
from pathlib import Path
from septet.drivers.blobs.files import FileBlobs

async def main():
    blobs = FileBlobs(Path(sys.argv[1]))
    for number in range(100000):
        print(await blobs.put_bytes(b"%d " % number * 20000), flush=True)

asyncio.run(main())
"""


def test_kills_lose_nothing_and_leave_no_part(tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    for count in (1, 4, 9, 16, 25):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "blobs")],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SRC)},
        )
        assert child.stdout is not None
        with child.stdout as lines:
            acknowledged |= {lines.readline().strip() for _ in range(count)}
            child.send_signal(signal.SIGKILL)
        child.wait()
    bed = BlobBed(tmp_path)

    async def check() -> None:
        there = await bed.blobs.digests()
        assert acknowledged <= set(there)
        for digest in there:
            assert named(await bed.blobs.read(digest)) == digest

    asyncio.run(check())
    assert list((bed.root / "incoming").iterdir()) == []


@pytest.mark.root
async def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"tmpfs", os.fsencode(tmp_path), b"tmpfs", 0, b"size=1m") == 0
    try:
        bed = BlobBed(tmp_path)
        digest = await bed.blobs.put_bytes(b"kept")
        error = await raises(Unavailable, bed.blobs.put(pieces(BIG)))
        assert "No space" in error.message
        assert len(bed.files()) == 1
        assert await bed.blobs.read(digest) == b"kept"
        assert await bed.blobs.put_bytes(BIG[:1000]) == named(BIG[:1000])
    finally:
        assert libc.umount2(os.fsencode(tmp_path), 2) == 0


async def test_an_altered_blob_is_corrupt_for_readers_of_parts_too(bed: BlobBed) -> None:
    digest = await bed.blobs.put_bytes(BIG)
    bed.blobs.path(digest).write_bytes(b"x" + BIG[1:])
    await raises(Corrupt, anext(bed.blobs.open(digest)))
