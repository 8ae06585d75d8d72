"""The few system calls that the standard library has not, by number and by name.

Functions raise OSError with the kernel's errno. Calls are made while holding the interpreter's lock, so that a
clone() inside a single-threaded process is as safe as os.fork().
"""

from __future__ import annotations

import _socket
import ctypes
import errno
import os
import platform
import signal
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MNT_DETACH = 2

ATTR_RDONLY = 0x1
ATTR_NOSUID = 0x2
ATTR_NODEV = 0x4
ATTR_NOEXEC = 0x8

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

# No root for uid 0, no ambient capabilities, each with its lock (linux/securebits.h).
SECUREBITS = 0x01 | 0x02 | 0x40 | 0x80

_CLOSE_RANGE_CLOEXEC = 4
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 63

# The new ones have the same number everywhere.
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_FS_CLOEXEC = 1
# clone, pivot_root, mount_setattr, close_range (arch/*/entry/syscalls).
_NUMBERS = {"x86_64": (56, 155, 442, 436), "aarch64": (220, 41, 442, 436)}
_CLONE, _PIVOT_ROOT, _MOUNT_SETATTR, _CLOSE_RANGE = _NUMBERS.get(platform.machine(), _NUMBERS["x86_64"])

_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(what: str, number: int, *arguments: object) -> int:
    return int(_check(_libc.syscall(ctypes.c_long(number), *arguments), what))


def fork_into(namespaces: int) -> int:
    """As os.fork(), but the child lives in new namespaces (CLONE_NEW* flags), and no module is told of the fork.

    Only in a process with a single thread, where no lock can be held by another: what the hooks of `threading`,
    `logging` and `random` put right costs hundreds of page faults. Whoever goes on to run other code than ours has to
    see to it (`zygote.py` of a runtime).
    """
    zero = ctypes.c_ulong(0)
    flags = ctypes.c_ulong(namespaces | signal.SIGCHLD)
    return _syscall("clone", _CLONE, flags, zero, zero, zero, zero)


def fsopen(kind: bytes) -> int:
    """A descriptor to set up a file system with."""
    return _syscall("fsopen", _FSOPEN, ctypes.c_char_p(kind), ctypes.c_uint(_FS_CLOEXEC))


def fsconfig(context: int, command: int, key: bytes | None, value: object) -> None:
    _syscall("fsconfig", _FSCONFIG, ctypes.c_int(context), ctypes.c_uint(command), key, value, ctypes.c_int(0))


def fsmount(context: int) -> int:
    """The file system as a mount that is nowhere in the tree, and goes with the descriptor."""
    return _syscall("fsmount", _FSMOUNT, ctypes.c_int(context), ctypes.c_uint(_FS_CLOEXEC), ctypes.c_uint(0))


def unshare(namespaces: int) -> None:
    _check(_libc.unshare(ctypes.c_int(namespaces)), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    result = _libc.mount(
        source.encode(),
        os.fsencode(target),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    _check(result, f"mount {kind or 'bind'} {target}")


def bind(source: str, target: str, attributes: int, recursive: bool = True) -> None:
    """Binds a file or folder and sets mount attributes (ATTR_*) on it, and on what is mounted below it."""
    mount(source, target, "", MS_BIND | (MS_REC if recursive else 0))
    set_attributes(target, attributes)


def bind_each(source: str, targets: list[str]) -> None:
    """Binds one file or folder over many, passing over those that are not there."""
    place, flags = os.fsencode(source), ctypes.c_ulong(MS_BIND)
    for target in targets:
        if _libc.mount(place, target.encode("utf-8", "surrogateescape"), None, flags, None) < 0:
            number = ctypes.get_errno()
            if number != errno.ENOENT:
                raise OSError(number, f"mount bind {target}: {os.strerror(number)}")


def set_attributes(target: str, attributes: int) -> None:
    """mount_setattr(2), recursively; it only adds restrictions, so locked flags never get in its way."""
    data = struct.pack("QQQQ", attributes, 0, 0, 0)
    _syscall(
        f"mount_setattr {target}",
        _MOUNT_SETATTR,
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(target)),
        ctypes.c_uint(_AT_RECURSIVE),
        ctypes.c_char_p(data),
        ctypes.c_size_t(len(data)),
    )


def pivot_into(root: str) -> None:
    """Makes `root` (a mount point) the root directory and lets go of the old one."""
    os.chdir(root)
    here = ctypes.c_char_p(b".")
    # The old root is stacked below the new one, so no folder for it is needed (pivot_root(2)).
    _syscall("pivot_root", _PIVOT_ROOT, here, here)
    _check(_libc.umount2(b".", ctypes.c_int(MNT_DETACH)), "umount the old root")
    os.chdir("/")


def unmount(target: str) -> None:
    """Takes away a mount and what is mounted below it, at once for everybody who looks."""
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(MNT_DETACH)), f"umount {target}")


def prctl(option: int, value: int = 0) -> None:
    zero = ctypes.c_ulong(0)
    _check(
        _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero),
        f"prctl {option}",
    )


def drop_bounding_set() -> None:
    """Takes every capability out of the bounding set, and nails that down; needs CAP_SETPCAP."""
    zero = ctypes.c_ulong(0)
    for capability in range(_LAST_CAPABILITY + 1):
        if _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), zero, zero, zero) < 0:
            break  # past the last one this kernel knows
    prctl(PR_SET_SECUREBITS, SECUREBITS)


def drop_capabilities() -> None:
    """Empties the ambient, permitted, effective and inheritable sets of this thread."""
    zero = ctypes.c_ulong(0)
    _check(_libc.prctl(PR_CAP_AMBIENT, ctypes.c_ulong(PR_CAP_AMBIENT_CLEAR_ALL), zero, zero, zero), "prctl ambient")
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(ctypes.c_char_p(header), ctypes.c_char_p(bytes(24))), "capset")


def receive(sock: _socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """A packet, and the descriptors that came with it."""
    data, ancillary, _, _ = sock.recvmsg(size, _socket.CMSG_LEN(most * 4), _socket.MSG_CMSG_CLOEXEC)
    return data, [number for *_, item in ancillary for (number,) in struct.iter_unpack("i", item[: len(item) // 4 * 4])]


def close_from(first: int) -> None:
    """Marks every descriptor from `first` on close-on-exec."""
    _syscall(
        "close_range",
        _CLOSE_RANGE,
        ctypes.c_uint(first),
        ctypes.c_uint(0xFFFFFFFF),
        ctypes.c_uint(_CLOSE_RANGE_CLOEXEC),
    )


def close_all_but(keep: list[int]) -> None:
    """Closes every descriptor that is not in `keep`."""
    low = 0
    for number in sorted(set(keep)):
        if low < number:  # an empty range at 0 would close everything (CPython passes -1 on)
            os.closerange(low, number)
        low = number + 1
    _syscall("close_range", _CLOSE_RANGE, ctypes.c_uint(low), ctypes.c_uint(0xFFFFFFFF), ctypes.c_uint(0))
