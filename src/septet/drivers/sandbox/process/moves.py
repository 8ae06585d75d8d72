"""Makes a process's move into a control group quick, for as long as this process lives.

Otherwise each move waits until every processor has passed a quiet state, about ten milliseconds of a first call. The
kernel leaves that wait out while any hierarchy is mounted with `favordynmods` (cgroups(7)); forks and exits, on the
whole host, take a few microseconds more instead. So we hold such a hierarchy: a named one without controllers, never
mounted anywhere, gone with its descriptor. It shows as a line `name=septet` in /proc/PID/cgroup.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

from septet.drivers.sandbox.process import syscalls as sys_

_NAME = b"septet"
_FLAG, _STRING, _CREATE = 0, 1, 6  # enum fsconfig_command


def hold() -> int:
    """A descriptor to keep open; -1 where the kernel or our rights do not allow it."""
    with contextlib.suppress(OSError):
        context = sys_.fsopen(b"cgroup")
        try:
            sys_.fsconfig(context, _FLAG, b"none", None)
            sys_.fsconfig(context, _STRING, b"name", ctypes.c_char_p(_NAME))
            sys_.fsconfig(context, _FLAG, b"favordynmods", None)
            sys_.fsconfig(context, _CREATE, None, None)
            return sys_.fsmount(context)
        finally:
            os.close(context)
    return -1


def release(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)
