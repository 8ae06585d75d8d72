"""Starts the function's own process inside the finished walls: the last steps before exec."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import fcntl
import os
import resource
from typing import NoReturn

from septet.drivers.sandbox.process import landlock, rights, seccomp
from septet.drivers.sandbox.process import syscalls as sys_
from septet.drivers.sandbox.process.spec import Spec, read

_LINK = 3
handled: tuple[int, ...] = ()
"""What a function's process must not inherit, as the launcher found it."""
_READ_ONLY = ["/"]
_READ_WRITE = ["/tmp", "/dev"]  # noqa: S108


class Function(BaseException):
    """Raised in a function's process that is not exec'ed: unwinds all our frames, so that none shows in there."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        super().__init__()
        self.command = command
        self.env = env


def start(spec: Spec, streams: list[int], program: bytes, sync: int | None = None) -> int:
    """Forks, and returns the pid once the exec has succeeded. `streams`: stdout, stderr, and the link if any.

    The process of a parked instance gives up its rights itself: with `sync` it asks the launcher for its uid.

    With `spec.fork` nothing is exec'ed: the child leaves by `Function`. OSError with a sentence when a step failed.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = sys_.fork_into(0)
    if pid == 0:
        become(spec, streams, program, writer, sync)
    os.close(writer)
    if failure := read(reader):
        os.waitpid(pid, 0)
        raise OSError(failure.decode("utf-8", "replace"))
    return pid


def become(spec: Spec, streams: list[int], program: bytes, writer: int, sync: int | None) -> NoReturn:
    """In the forked child. A failure is one sentence written to `writer`, success that it closes."""
    step = "prepare the process"
    try:
        os.setsid()
        if spec.parked:
            step = "give up its rights"
            if not spec.rootless and sync is not None:
                rights.leave_root(sync)
            rights.drop()
            step = "prepare the process"
        _default_signals()
        writer = _descriptors(streams, writer)
        os.umask(0o022)
        step = f"enter {spec.working_directory}"
        os.chdir(spec.working_directory or "/")
        step = f"start {spec.command[0]}"
        _yield()
        _limit(spec.rlimits)
        if spec.walls:
            writable = [item.target for item in spec.mounts if item.writable]
            landlock.restrict(_READ_ONLY, [*_READ_WRITE, *writable])
        if spec.fork:
            # What an exec would do: our first process hides its memory, which a fork inherits.
            sys_.close_all_but([*range((_LINK + 1 if spec.link else _LINK) + spec.parked), writer])
            sys_.prctl(sys_.PR_SET_DUMPABLE, 1)
        if spec.walls:
            seccomp.install(program)
        if not spec.fork:
            os.execvpe(spec.command[0], spec.command, spec.env)  # noqa: S606 - no shell is the point
    except BaseException as error:
        os.write(writer, f"cannot {step}: {error}".encode()[:4000])
        os._exit(71)
    os.close(writer)
    raise Function(spec.command, spec.env)


def _yield() -> None:
    """A function never pushes the platform off a core: waking up waits for the next turn, and no priority is ours."""
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    if os.getpriority(os.PRIO_PROCESS, 0) < 0:
        os.setpriority(os.PRIO_PROCESS, 0, 0)


def handled_signals() -> tuple[int, ...]:
    """Those that this process handles or ignores, if only because it was started so."""
    # None is one that the C library keeps for itself.
    return tuple(n for n in range(1, _signal.NSIG) if _signal.getsignal(n) not in (_signal.SIG_DFL, None))


def _default_signals() -> None:
    _signal.set_wakeup_fd(-1)
    # The module behind `signal`: that makes an enumeration's member of every number, in memory of this process alone.
    for number in handled:
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _descriptors(streams: list[int], writer: int) -> int:
    """0 to 2, the link at 3, and nothing else after the exec; returns where the error pipe went."""
    # High copies first, as any of the originals may stand where another has to go.
    high = [_above(descriptor) for descriptor in [os.open("/dev/null", os.O_RDONLY), *streams, writer]]
    *wanted, writer = high
    for target, descriptor in enumerate(wanted):
        os.dup2(descriptor, target)
    sys_.close_from(len(wanted))
    return writer


def _above(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _LINK + 16)


def _limit(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        # Raising a hard limit takes a capability that root itself may lack.
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(kind, (value, value))
