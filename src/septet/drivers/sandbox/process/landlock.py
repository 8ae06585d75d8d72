"""The file-system wall that the process carries itself: Landlock, where the kernel has it. Standard library only.

It repeats what the mounts already say, so that a mistake there (or a mount that appears later) opens nothing.
"""

from __future__ import annotations

import ctypes
import functools
import os
import stat
import struct

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on x86_64 and aarch64
_GET_VERSION = 1
_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_FOR_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
# Highest access right that each version of the interface knows; later ones have them all.
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_ALL_RIGHTS = (1 << 16) - 1
# Version 6: no abstract unix socket and no signal across the wall.
_SCOPES = 0b11

_libc = ctypes.CDLL(None, use_errno=True)


# struct landlock_ruleset_attr (files, network, scopes) and the packed struct landlock_path_beneath_attr.
_RULESET = struct.Struct("=QQQ")
_PATH_BENEATH_ATTR = struct.Struct("=Qi")


def _call(*arguments: object) -> int:
    result = int(_libc.syscall(*arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"landlock: {os.strerror(number)}")
    return result


@functools.cache
def available() -> int:
    """The version of the kernel's Landlock interface, 0 when it has none or it is switched off."""
    try:
        return _call(_CREATE_RULESET, None, ctypes.c_size_t(0), _GET_VERSION)
    except OSError:
        return 0


def restrict(read_only: list[str], read_write: list[str]) -> bool:
    """From now on the calling thread and its children reach only these paths and what lies below.

    `read_only` may be read and executed; `read_write` everything but making devices. Paths that do not exist are
    passed over. False when the kernel has no Landlock (then nothing changed); OSError when it has and refuses.
    """
    version = available()
    if version == 0:
        return False
    rights = _RIGHTS.get(version, _ALL_RIGHTS)
    ruleset = _RULESET.pack(rights, 0, _SCOPES)[: _RULESET.size if version >= 6 else 8]
    descriptor = _call(_CREATE_RULESET, ruleset, ctypes.c_size_t(len(ruleset)), 0)
    try:
        for path in read_only:
            _allow(descriptor, path, rights & _READ)
        for path in read_write:
            _allow(descriptor, path, rights & ~(_MAKE_CHAR | _MAKE_BLOCK))
        zero = ctypes.c_ulong(0)
        if _libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero) != 0:
            raise OSError(ctypes.get_errno(), "no-new-privs was refused")
        _call(_RESTRICT_SELF, descriptor, 0)
    finally:
        os.close(descriptor)
    return True


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            access &= _FOR_FILES
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, _PATH_BENEATH_ATTR.pack(access, descriptor), 0)
    finally:
        os.close(descriptor)
