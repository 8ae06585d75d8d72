"""Writing below a directory, and nowhere else: the kernel resolves each path, not a comparison of strings."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from septet.model.errors import InvalidInput, Unavailable

_SYS_OPENAT2 = 437
_RESOLVE = 0x08 | 0x04 | 0x02  # BENEATH, NO_SYMLINKS, NO_MAGICLINKS: see openat2(2)
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(directory: int, path: str, flags: int, mode: int = 0) -> int:
    """A descriptor of `path` below the directory descriptor, following no link; raises OSError."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode if flags & os.O_CREAT else 0, _RESOLVE)
    fd = _libc.syscall(_SYS_OPENAT2, directory, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return int(fd)


def available() -> bool:
    """Whether this kernel has openat2."""
    try:
        os.close(open_beneath(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), ".", os.O_PATH))
    except OSError:
        return False
    return True


class ConfinedDirectory:
    """A directory that files are written into by member path ("a/b.txt"), parents made as needed."""

    def __init__(self, root: Path) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._known: set[str] = {""}

    def close(self) -> None:
        os.close(self._root)

    def directory(self, path: str) -> None:
        """Makes a directory with its parents; InvalidInput when something else stands there."""
        if path in self._known:
            return
        parent, _, name = path.rpartition("/")
        self.directory(parent)
        try:
            at = self._open(parent or ".", os.O_PATH | os.O_DIRECTORY, path)
            try:
                os.mkdir(name, 0o755, dir_fd=at)
            finally:
                os.close(at)
        except FileExistsError:
            os.close(self._open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, path))
        self._known.add(path)

    def create(self, path: str, executable: bool) -> int:
        """A new file open for writing; InvalidInput when anything stands there already."""
        self.directory(path.rpartition("/")[0])
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        return self._open(path, flags, path, 0o755 if executable else 0o644)

    def read(self, path: str) -> int:
        """A regular file written earlier, open for reading."""
        return self._open(path, os.O_RDONLY | os.O_NOFOLLOW, path)

    def link(self, path: str, target: str) -> None:
        """A symbolic link; the caller has checked that `target` stays inside."""
        parent, _, name = path.rpartition("/")
        self.directory(parent)
        at = self._open(parent or ".", os.O_PATH | os.O_DIRECTORY, path)
        try:
            os.symlink(target, name, dir_fd=at)
        except FileExistsError as error:
            raise InvalidInput(f"the archive has {path!r} twice") from error
        finally:
            os.close(at)

    def _open(self, path: str, flags: int, member: str, mode: int = 0) -> int:
        try:
            return open_beneath(self._root, path, flags, mode)
        except FileExistsError as error:
            if flags & os.O_CREAT:
                raise InvalidInput(f"the archive has {member!r} twice") from error
            raise
        except OSError as error:
            if error.errno == 38:
                raise Unavailable(
                    "this kernel has no openat2, so archives cannot be unpacked safely",
                    hint="Linux 5.6 or newer is needed",
                ) from error
            if error.errno in (28, 122):
                raise Unavailable("the disk is full", hint="free space in the data directory") from error
            raise InvalidInput(f"the archive's member {member!r} cannot be written: {error.strerror}") from error
