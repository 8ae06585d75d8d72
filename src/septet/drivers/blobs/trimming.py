"""Keeps a tree that strangers wrote within its bytes: the files that were changed longest ago go first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_DEPTH = 16
_ENTRIES = 200_000
_ENTRY = 4096
"""An entry takes room of its own, so that a million empty files count too."""


class _Unruly(Exception):
    """The tree is shaped as no tool's cache is."""


def shrink(root: Path, limit: int) -> int | None:
    """Removes files until the rest takes at most `limit` bytes of disk, and returns those. None when it had better
    go as a whole: it is nested too deeply, has too many entries, or is shut. OSError."""
    try:
        found = sorted(_files(root))
        left = sum(size for _, size, _ in found)
        for _, size, path in found:
            if left > limit and path:
                os.unlink(path)  # noqa: PTH108 - a string from scandir
                left -= size
    except (_Unruly, PermissionError):
        return None
    return left if left <= limit else None


def _files(root: Path) -> Iterator[tuple[float, int, str]]:
    """(time, bytes, path) of each; a folder's path is empty, for only what is in it goes."""
    pending, entries = [(str(root), 0)], 0
    while pending:
        folder, depth = pending.pop()
        if depth > _DEPTH:
            raise _Unruly
        with os.scandir(folder) as inside:
            for entry in inside:
                entries += 1
                if entries > _ENTRIES:
                    raise _Unruly
                facts = entry.stat(follow_symlinks=False)
                size = facts.st_blocks * 512 + _ENTRY
                if entry.is_dir(follow_symlinks=False):
                    pending.append((entry.path, depth + 1))
                    yield facts.st_mtime, size, ""
                else:
                    yield facts.st_mtime, size, entry.path
