"""A backup into an empty data directory, while no platform runs there.

A backup is read as if it came from a stranger: paths are resolved by the kernel inside the directories that the
drivers give, and every blob and tree is checked against its digest by storing it anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from septet.build.confined import ConfinedDirectory
from septet.build.members import ArchiveLimits, Member
from septet.build.tar_reader import read_tar
from septet.model.errors import Conflict, Corrupt, InvalidInput
from septet.ports.blobs import Blobs, Trees
from septet.service.backup import CHUNK, FORMAT

LIMITS = ArchiveLimits(depth=256)


class Restored(NamedTuple):
    """What a backup held. Without `key` the secrets in it open only where the old key file is put back."""

    blobs: int
    trees: int
    key: bool
    at: float


def check_empty(data_dir: Path) -> None:
    """Raises Conflict when anything is in the directory; before the drivers make theirs in it."""
    if data_dir.exists() and any(data_dir.iterdir()):
        raise Conflict(f"{data_dir} is not empty", hint="restore into an empty directory; nothing is overwritten")


async def restore(archive: Path, *, store: Path, key: Path, blobs: Blobs, trees: Trees) -> Restored:
    """Reads a backup; `store` and `key` are where the files go, which must not be there.

    Raises InvalidInput for what is no complete backup, Corrupt for contents that do not match their digest. The
    store's file appears last, so that a restore that failed is never served.
    """
    for path in (store, key):
        if path.exists():
            raise Conflict(f"{path} is there already", hint="restore into an empty directory; nothing is overwritten")
    reader = _Reader(store.with_name(store.name + ".restoring"), key, blobs, trees)
    try:
        with archive.open("rb") as file:
            for member in read_tar(file.read, LIMITS):
                await reader.take(member)
        restored = await reader.finish()
        reader.keep(store)
    except BaseException:
        reader.discard()
        raise
    return restored


class _Reader:
    def __init__(self, store: Path, key: Path, blobs: Blobs, trees: Trees) -> None:
        self.store = store
        self._key = key
        self._blobs = blobs
        self._trees = trees
        self._facts: dict[str, object] | None = None
        self._complete = False
        self._counts = {"blobs": 0, "trees": 0}
        self._tree: _Tree | None = None

    def keep(self, store: Path) -> None:
        self.store.rename(store)

    def discard(self) -> None:
        self.store.unlink(missing_ok=True)
        self._key.unlink(missing_ok=True)

    async def take(self, member: Member) -> None:
        if self._facts is None:
            self._facts = _facts(member)
            return
        room, _, rest = member.path.partition("/")
        digest, _, inner = rest.partition("/")
        if self._tree is not None and (room != "trees" or digest != self._tree.digest):
            await self._end_tree()
        if member.path == "complete":
            self._complete = True
        elif member.path == "store.db" and member.kind == "file":
            _write(self.store, member)
        elif member.path == "vault.key" and member.kind == "file":
            _write(self._key, member)
        elif room == "blobs" and member.kind == "file" and not inner:
            await self._blob(digest, member)
        elif room == "trees" and digest:
            if self._tree is None:
                self._tree = _Tree(digest, await self._trees.create(_work(digest)))
            self._tree.add(member, inner)
        else:
            raise InvalidInput(f"{member.path!r} is nothing that a backup holds", hint="is this a backup?")

    async def finish(self) -> Restored:
        if self._facts is None or not self._complete or not self.store.exists():
            raise InvalidInput("the backup is not complete: its end is missing", hint="make it, or copy it, again")
        at = self._facts.get("at")
        return Restored(
            self._counts["blobs"],
            self._counts["trees"],
            self._facts.get("key") is True,
            float(at) if isinstance(at, int | float) else 0.0,
        )

    async def _blob(self, digest: str, member: Member) -> None:
        got = await self._blobs.put(_chunks(member))
        if got != digest:
            raise Corrupt(f"the backup's {digest} has other contents: {got}", hint="make it, or copy it, again")
        self._counts["blobs"] += 1

    async def _end_tree(self) -> None:
        assert self._tree is not None
        tree, self._tree = self._tree, None
        tree.finish()
        got = await self._trees.freeze(_work(tree.digest))
        if got != tree.digest:
            raise Corrupt(f"the backup's {tree.digest} has other contents: {got}", hint="make it, or copy it, again")
        self._counts["trees"] += 1


class _Tree:
    """One tree in the making. Links are made last, so that nothing is written through one."""

    def __init__(self, digest: str, root: Path) -> None:
        self.digest = digest
        self._directory = ConfinedDirectory(root)
        self._links: list[tuple[str, str]] = []

    def add(self, member: Member, path: str) -> None:
        if member.kind == "symlink":
            self._links.append((path, member.target))
        elif member.kind == "directory":
            self._directory.directory(path)
        elif member.kind == "file":
            with os.fdopen(self._directory.create(path, member.executable), "wb") as file:
                while chunk := member.read(CHUNK):
                    file.write(chunk)
        else:
            raise InvalidInput(f"{member.path!r} is a hard link, which no backup holds")

    def finish(self) -> None:
        for path, target in self._links:
            self._directory.link(path, target)
        self._directory.close()


def _work(digest: str) -> str:
    return "restore-" + digest.partition(":")[2][:32]


def _facts(member: Member) -> dict[str, object]:
    if member.path != "septet-backup" or member.size > CHUNK:
        raise InvalidInput("that is no backup of this platform", hint="`septet backup` makes one")
    try:
        facts = json.loads(b"".join(iter(lambda: member.read(CHUNK), b"")))
    except ValueError as error:
        raise InvalidInput("that is no backup of this platform: its head cannot be read") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise InvalidInput(
            f"the backup has a format that this version does not read (it reads {FORMAT})",
            hint="use the version that made it, or a newer one",
        )
    return facts


def _write(path: Path, member: Member) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        while chunk := member.read(CHUNK):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


async def _chunks(member: Member) -> AsyncIterator[bytes]:
    while chunk := member.read(CHUNK):
        yield chunk
