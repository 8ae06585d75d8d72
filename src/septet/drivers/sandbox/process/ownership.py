"""Gives a writable tree to the uid of an instance, and takes it back: links are not followed."""

from __future__ import annotations

import os


def give(path: str, uid: int, gid: int) -> None:
    """Changes the owner of everything in the tree. OSError."""
    for _, folders, files, descriptor in os.fwalk(path, follow_symlinks=False):
        for name in (*folders, *files):
            os.chown(name, uid, gid, dir_fd=descriptor, follow_symlinks=False)
    os.chown(path, uid, gid, follow_symlinks=False)
