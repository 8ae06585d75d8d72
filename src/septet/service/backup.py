"""Everything that is kept, as one tar stream.

Layout: `septet-backup` (format and time), `store.db`, `blobs/<digest>`, `trees/<digest>/...`, `vault.key` when it
was asked for, and `complete` as the last member, so that a stream that broke off is not taken for a backup.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from septet.model.errors import InvalidInput, NotFound, Unavailable
from septet.service.commands import Backup
from septet.service.context import Context

FORMAT = 1
CHUNK = 256 * 1024
_PAD = tarfile.BLOCKSIZE


async def backup(context: Context, command: Backup) -> AsyncIterator[bytes]:
    """Takes the store's copy first, so that everything it names is there when it is read after that.

    Raises InvalidInput when the key was asked for and stands elsewhere.
    """
    key = context.settings.key_file
    if command.key and (key is None or not key.is_file()):
        raise InvalidInput("key: the vault's key is not kept in a file here, so no backup can hold it")
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="septet-backup-", dir=context.settings.temporary))
    try:
        await context.ports.store.backup(folder / "store.db")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return _stream(context, folder, key if command.key else None)


async def _stream(context: Context, folder: Path, key: Path | None) -> AsyncIterator[bytes]:
    try:
        facts = {"format": FORMAT, "at": context.ports.clock.wall(), "key": key is not None}
        yield _text("septet-backup", json.dumps(facts))
        async for chunk in _file("store.db", folder / "store.db"):
            yield chunk
        if key is not None:
            async for chunk in _file("vault.key", key):
                yield chunk
        for digest in await context.ports.blobs.digests():
            try:
                path = context.ports.blobs.path(digest)
                async for chunk in _file(f"blobs/{digest}", path):
                    yield chunk
            except (NotFound, FileNotFoundError):
                continue
        for digest in await context.ports.trees.digests():
            try:
                root = context.ports.trees.path(digest)
            except NotFound:
                continue
            async for chunk in _tree(f"trees/{digest}", root):
                yield chunk
        yield _text("complete", "")
        yield bytes(2 * _PAD)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _text(name: str, text: str) -> bytes:
    data = text.encode()
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o600
    return _header(info) + data + bytes(-len(data) % _PAD)


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


async def _file(name: str, path: Path) -> AsyncIterator[bytes]:
    """One regular file; FileNotFoundError before anything was sent of it."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        info = tarfile.TarInfo(name)
        info.size = status.st_size
        info.mode = 0o700 if status.st_mode & 0o100 else 0o600
        yield _header(info)
        left = info.size
        while left:
            chunk = await asyncio.to_thread(file.read, min(CHUNK, left))
            if not chunk:
                raise Unavailable(f"{name} became shorter while it was read", hint="make the backup again")
            left -= len(chunk)
            yield chunk
        if info.size % _PAD:
            yield bytes(_PAD - info.size % _PAD)


async def _tree(name: str, root: Path) -> AsyncIterator[bytes]:
    """A frozen tree; nothing when it was collected before it was reached."""
    entries = await asyncio.to_thread(lambda: list(_walk(root)))
    for path, kind in entries:
        relative = path.relative_to(root)
        member = f"{name}/{relative}" if str(relative) != "." else name
        if kind == "file":
            async for chunk in _file(member, path):
                yield chunk
            continue
        info = tarfile.TarInfo(member)
        info.type = tarfile.SYMTYPE if kind == "link" else tarfile.DIRTYPE
        info.mode = 0o700
        info.linkname = str(path.readlink()) if kind == "link" else ""
        yield _header(info)


def _walk(root: Path) -> Iterator[tuple[Path, str]]:
    yield root, "directory"
    with os.scandir(root) as found:
        for entry in sorted(found, key=lambda e: e.name):
            path = Path(entry.path)
            if entry.is_symlink():
                yield path, "link"
            elif entry.is_dir():
                yield from _walk(path)
            else:
                yield path, "file"
