"""How a process inside the walls gives up what it could do while it built them."""

from __future__ import annotations

import contextlib
import errno
import os
import signal

from septet.drivers.sandbox.process import syscalls as sys_

SANDBOX_ID = 1000


def leave_root(sync: int) -> None:
    """Into a user namespace of our own, where the launcher maps us to an id that nobody else on the host has.

    The mount and network namespaces stay owned by the outer one, so no right regained in here reaches them.
    """
    os.setgroups([])
    sys_.unshare(sys_.CLONE_NEWUSER)
    os.write(sync, b"u")
    if not os.read(sync, 1):
        raise OSError(errno.EPERM, "the launcher could not map the user")
    os.close(sync)
    os.setresgid(SANDBOX_ID, SANDBOX_ID, SANDBOX_ID)
    sys_.drop_bounding_set()
    os.setresuid(SANDBOX_ID, SANDBOX_ID, SANDBOX_ID)


def drop(bounding: bool = True) -> None:
    """For good. The bounding set can be dropped only while there are rights, so it may be dropped already."""
    if bounding:
        with contextlib.suppress(PermissionError):  # root's was dropped while it was root
            sys_.drop_bounding_set()
    sys_.prctl(sys_.PR_SET_NO_NEW_PRIVS, 1)
    sys_.drop_capabilities()
    # The function has our uid: it must not read our memory, where its spec was, nor trace us.
    sys_.prctl(sys_.PR_SET_DUMPABLE, 0)
    # The kernel forgets it when credentials change.
    sys_.prctl(sys_.PR_SET_PDEATHSIG, signal.SIGKILL)


def become(uid: int, gid: int) -> None:
    """From root to an ordinary user of the host, for a first process whose function has its own user namespace."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
