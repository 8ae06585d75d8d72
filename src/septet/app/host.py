"""What the composition root asks of the host: descriptors, memory, a data directory of its own."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from septet.model.errors import Unavailable

_PRIORITY = -10
_M_ARENA_MAX = -8


def many_files() -> None:
    """As many descriptors as we may have: every waiting call is a connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def before_functions() -> None:
    """Calls pass through us to every function: whoever started us without a priority of our own gets one here.

    What is started from us inherits it; a function's process gives it back (`process.py` of the sandbox).
    """
    if os.getpriority(os.PRIO_PROCESS, 0) == 0:
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)


def one_heap() -> None:
    """Our threads take turns anyway: a heap for each would only keep what it once needed. Elsewhere than in glibc,
    nothing happens."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def host_memory() -> int:
    """MiB of this host."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1024 * 1024)


def available_memory() -> int:
    """MiB that could be used now without swapping, as the kernel reckons."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) // 1024
    return host_memory()


@contextlib.contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """The data directory, private, and ours alone while we run."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(
            f"the data directory {data_dir} cannot be used: {error.strerror}", hint="choose another: --data-dir"
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise Unavailable(
            f"another septet runs on {data_dir}", hint="stop it, or choose another directory: --data-dir"
        ) from error
    try:
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="septet-doctor-") as name:
        yield Path(name)
