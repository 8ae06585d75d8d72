"""Trees of files as directories: writable ones while they are made, frozen ones under their digest."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from septet.drivers.blobs.durable import disk_errors, sync_directory
from septet.drivers.blobs.trimming import shrink
from septet.model.errors import InvalidInput, NotFound

_DIGEST = re.compile(r"tree:([0-9a-f]{64})")
_WORK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
DEPTH = 256
PATH = 3500
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class DirectoryTrees:
    """`<root>/frozen/<digest>`, `<root>/work/<name>` and `<root>/kept/<name>`; what is being removed stands in
    `<root>/gone`.

    What an earlier process left in the making is removed when this is made: nobody goes on with it.
    """

    def __init__(self, root: Path) -> None:
        self._frozen = root / "frozen"
        self._work = root / "work"
        self._kept = root / "kept"
        self._gone = root / "gone"
        with disk_errors("making the tree directory"):
            for folder in (root, self._frozen, self._work, self._kept, self._gone):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for left in self._work.iterdir():
                self._discard(left)
            for left in self._gone.iterdir():
                _remove(left)
            sync_directory(root)
            sync_directory(root.parent)

    async def create(self, work: str) -> Path:
        await self.discard(work)
        path = self._place(work)
        with disk_errors("making a tree"):
            path.mkdir(mode=0o700)
        return path

    def working(self, work: str) -> Path:
        path = self._place(work)
        for found in (path, self._kept / work):
            if found.is_dir():
                return found
        raise NotFound(f"there is no tree in the making named {work!r}")

    async def freeze(self, work: str) -> str:
        path = self._place(work)
        if not path.is_dir():
            raise NotFound(f"there is no tree in the making named {work!r}")
        with disk_errors("freezing a tree"):
            return await asyncio.to_thread(self._freeze, path)

    async def discard(self, work: str) -> None:
        with disk_errors("removing a tree"):
            await asyncio.to_thread(self._discard, self._place(work))

    async def keep(self, name: str) -> Path:
        path = self._kept / self._place(name).name
        with disk_errors("making a tree"):
            path.mkdir(mode=0o700, exist_ok=True)
        return path

    async def trim(self, name: str, limit: int) -> int:
        path = self._kept / self._place(name).name
        with disk_errors("trimming a tree"):
            return await asyncio.to_thread(self._trim, path, limit)

    async def kept(self) -> list[str]:
        return await asyncio.to_thread(lambda: [path.name for path in self._kept.iterdir()])

    def path(self, digest: str) -> Path:
        found = _DIGEST.fullmatch(digest)
        path = self._frozen / found[1] if found else None
        if path is None or not path.is_dir():
            raise NotFound(f"there is no tree {digest[:80]!r}", details={"kind": "Tree", "name": digest[:80]})
        return path

    def folder(self) -> Path:
        return self._frozen

    async def delete(self, digest: str) -> None:
        with contextlib.suppress(NotFound), disk_errors("removing a tree"):
            await asyncio.to_thread(self._discard, self.path(digest))

    async def digests(self) -> list[str]:
        return await asyncio.to_thread(lambda: [f"tree:{path.name}" for path in self._frozen.iterdir()])

    def _place(self, work: str) -> Path:
        if not _WORK.fullmatch(work):
            raise InvalidInput(f"{work!r} is no name for a tree")
        return self._work / work

    def _freeze(self, path: Path) -> str:
        digest = _seal(path)
        target = self._frozen / digest
        if target.exists():
            self._discard(path)
            return f"tree:{digest}"
        # An ordinary user may move a directory only while it may write into it.
        path.chmod(0o755)
        try:
            path.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            self._discard(path)  # an equal tree came first
        else:
            target.chmod(0o555)
            sync_directory(self._frozen)
        return f"tree:{digest}"

    def _trim(self, path: Path, limit: int) -> int:
        if limit and path.is_dir() and (left := shrink(path, limit)) is not None:
            return left
        self._discard(path)
        return 0

    def _discard(self, path: Path) -> None:
        """Out of sight in one step, then away: a crash in between leaves nothing that counts."""
        if path.exists():
            gone = self._gone / f"{path.name[:64]}.{os.urandom(6).hex()}"
            path.chmod(0o700)
            path.rename(gone)
            _remove(gone)


def _walk(root: Path, depth: int = DEPTH) -> Iterator[os.DirEntry[str]]:
    """Everything below, each directory before what is in it, in the order of names."""
    if depth < 0 or len(os.fsencode(root)) > PATH:
        raise InvalidInput(
            "the tree is nested too deeply",
            hint="remove it from the build",
            limit=f"tree {DEPTH} levels, paths of {PATH} bytes",
        )
    _let_in(root)
    with os.scandir(root) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        yield entry
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), depth - 1)


def _seal(root: Path) -> str:
    """Takes away write permission, syncs every file, and returns the digest of names, kinds and contents."""
    seen = hashlib.sha256()
    folders = [root]
    for entry in _walk(root):
        name = os.fsencode(os.path.relpath(entry.path, root))
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            _note(seen, b"link", name, os.fsencode(Path(entry.path).readlink()))
        elif stat.S_ISDIR(mode):
            folders.append(Path(entry.path))
            _note(seen, b"folder", name, b"")
        elif stat.S_ISREG(mode):
            executable = bool(mode & 0o111)
            _note(seen, b"program" if executable else b"file", name, _file(entry.path, executable))
        else:
            raise InvalidInput(f"{os.fsdecode(name)!r} is no file, folder or link", hint="remove it from the build")
    for folder in reversed(folders):
        # Instances run as other users: they may read what they can reach, and only their mount reaches it.
        folder.chmod(0o555)
        sync_directory(folder)
    return seen.hexdigest()


def _let_in(folder: Path) -> None:
    """A build may have shut a directory even from its owner, whom no capability lets in."""
    if folder.stat().st_mode & 0o700 != 0o700:
        folder.chmod(0o700)


def _file(path: str, executable: bool) -> bytes:
    seen = hashlib.sha256()
    mode = 0o555 if executable else 0o444
    try:
        fd = os.open(path, _READ)
    except PermissionError:
        os.chmod(path, mode)  # noqa: PTH101 (a string from scandir); it is a file, and nobody else changes the tree now
        fd = os.open(path, _READ)
    with os.fdopen(fd, "rb") as file:
        os.fchmod(fd, mode)
        # File capabilities are the setuid bits' other form.
        with contextlib.suppress(OSError):
            os.removexattr(fd, "security.capability")
        while chunk := file.read(1024 * 1024):
            seen.update(chunk)
        os.fsync(fd)
    return seen.digest()


def _note(seen: hashlib._Hash, *parts: bytes) -> None:
    for part in parts:
        seen.update(b"%d:" % len(part) + part)


def _remove(path: Path) -> None:
    """Removes a tree in `gone`, also one with shut directories, or nested deeper than any path may be long.

    A directory that is too far down moves up beside the tree first, so that neither paths nor calls grow.
    """
    pending = [path]
    while pending:
        _clear(pending.pop(), DEPTH // 4, pending, path)


def _clear(folder: Path, depth: int, pending: list[Path], path: Path) -> None:
    folder.chmod(0o700)
    with os.scandir(folder) as entries:
        for entry in entries:
            inner = Path(entry.path)
            if not entry.is_dir(follow_symlinks=False):
                inner.unlink()
            elif depth and len(entry.path) < PATH // 4:
                _clear(inner, depth - 1, pending, path)
            else:
                inner.chmod(0o700)
                pending.append(inner.rename(path.with_name(os.urandom(12).hex())))
    folder.rmdir()
