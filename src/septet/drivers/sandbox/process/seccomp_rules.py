"""Which system calls a runtime family may make, and with which arguments. What is not named here is refused."""

from __future__ import annotations

import errno
from typing import NamedTuple

from septet.drivers.sandbox.process import seccomp_lists as traced

FAMILIES = ("python", "node", "ruby", "go", "wide")

# The same need under its newer name: aarch64 has only the right-hand side, and libraries move from left to right.
SUCCESSORS = {
    "access": "faccessat",
    "alarm": "setitimer",
    "chmod": "fchmodat",
    "dup2": "dup3",
    "epoll_create": "epoll_create1",
    "epoll_wait": "epoll_pwait",
    "eventfd": "eventfd2",
    "fork": "clone",
    "getdents": "getdents64",
    "getpgrp": "getpgid",
    "inotify_init": "inotify_init1",
    "link": "linkat",
    "mkdir": "mkdirat",
    "mknod": "mknodat",
    "open": "openat",
    "pause": "ppoll",
    "pipe": "pipe2",
    "poll": "ppoll",
    "readlink": "readlinkat",
    "rename": "renameat",
    "rmdir": "unlinkat",
    "select": "pselect6",
    "signalfd": "signalfd4",
    "symlink": "symlinkat",
    "unlink": "unlinkat",
    "utime": "utimensat",
    "utimes": "utimensat",
    "vfork": "clone",
}

# Python's list is held to 90. Left out although traced: what has a fallback (the libc's, or the caller's own), and
# what functions hardly call; a function that needs these runs under the wide list.
_PYTHON_LESS = """
alarm close_range faccessat2 fadvise64 fchown link open pidfd_open rseq sendfile statx symlink sysinfo
"""
# The libc's resolver sends its two questions with sendmmsg, and has no other way. The clocks are read without a system
# call only where the kernel's clock source allows that: a trace does not show them, and another machine calls them.
_PYTHON_MORE = "clock_gettime restart_syscall sendmmsg"

# Reached by other versions and libraries than those that were traced; all of them work on the caller's own
# descriptors, memory, files or processes.
_COMMON_MORE = """
accept alarm clock_getres clock_gettime dup dup3 epoll_pwait epoll_wait eventfd2 exit faccessat faccessat2 fallocate
fchdir fchmod fchmodat fork getgroups getitimer getpeername getpgid getpgrp getpriority getresgid getresuid getrlimit
getsid gettimeofday linkat lstat membarrier mkdirat mremap msync nanosleep newfstatat open pause pipe poll ppoll prctl
preadv pselect6 pwritev readv recvfrom recvmmsg renameat renameat2 restart_syscall rt_sigpending rt_sigqueueinfo
rt_sigsuspend rt_sigtimedwait sched_yield select sendfile sendmmsg sendto setitimer setpgid setrlimit setsid
sigaltstack splice stat symlinkat tgkill time times tkill umask unlinkat vfork waitid writev
"""

_WIDE_MORE = """
cachestat chown close_range copy_file_range creat epoll_create epoll_pwait2 eventfd fchmodat2 fchown fchownat
fdatasync flock futex_requeue futex_wait futex_waitv futex_wake get_robust_list getcpu getdents inotify_add_watch
inotify_init inotify_init1 inotify_rm_watch ioprio_get lchown memfd_create mknod mknodat mlock mlock2 mlockall mseal
msgctl msgget msgrcv msgsnd munlock munlockall openat2 personality pidfd_open pidfd_send_signal pkey_alloc pkey_free
pkey_mprotect preadv2 process_madvise pwritev2 readahead rt_tgsigqueueinfo sched_get_priority_max
sched_get_priority_min sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity
sched_setattr sched_setparam sched_setscheduler semctl semget semop semtimedop setpriority shmat shmctl shmdt shmget
signalfd signalfd4 sync sync_file_range syncfs tee timer_create timer_delete timer_getoverrun timer_gettime
timer_settime timerfd_create timerfd_gettime timerfd_settime truncate ustat utime utimes vmsplice
"""

# Whatever a trace shows: these have an answer of their own below, or stay shut.
_NEVER = {"clone3", "getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr", "capget", "ptrace"}


def names(family: str) -> frozenset[str]:
    """The allow-list of a family, before architecture is considered; KeyError for an unknown family."""
    python = set(traced.PYTHON.split()) - set(_PYTHON_LESS.split()) | set(_PYTHON_MORE.split())
    common = set(_COMMON_MORE.split()) | set(traced.SHELL.split()) | set(traced.PYTHON.split())
    lists = {
        "python": python,
        "node": common | set(traced.NODE.split()),
        "ruby": common | set(traced.RUBY.split()),
        "go": common | set(traced.GO.split()),
    }
    lists["wide"] = set().union(*lists.values(), _WIDE_MORE.split())
    return frozenset(lists[family] - _NEVER)


class Test(NamedTuple):
    """Holds when `argument & mask` is among `values` (or, `inverted`, is not)."""

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF
    inverted: bool = False


class Refusal(NamedTuple):
    """An allowed call gets `error` when all tests hold."""

    error: int
    tests: tuple[Test, ...]


def _unless(argument: int, *values: int, error: int = errno.EPERM, mask: int = 0xFFFFFFFF) -> Refusal:
    return Refusal(error, (Test(argument, values, mask, inverted=True),))


# clone(2): NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. NEWTIME exists for unshare and clone3 only.
_NEW_NAMESPACE = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_STREAM, _DGRAM, _SEQPACKET = 1, 2, 5
_TIOCSTI, _TIOCLINUX, _TIOCSETD, _TIOCCONS = 0x5412, 0x541C, 0x5423, 0x541D
# PDEATHSIG, DUMPABLE, KEEPCAPS (get), NAME, SECCOMP (get), CAPBSET_READ, TIMERSLACK, CHILD_SUBREAPER, NO_NEW_PRIVS,
# THP_DISABLE, SPECULATION_CTRL (get), MDWE, and naming of anonymous memory.
_PRCTL = (1, 2, 3, 4, 7, 15, 16, 21, 23, 29, 30, 36, 37, 38, 39, 40, 41, 42, 52, 65, 66, 0x53564D41)
# GS/FS, CPUID (get), the state components of AVX-512 and AMX, and the shadow stack.
_ARCH_PRCTL = (0x1001, 0x1002, 0x1003, 0x1004, 0x1011, 0x1021, 0x1022, 0x1023, 0x3001, *range(0x5001, 0x5006))

REFUSALS: dict[str, tuple[Refusal, ...]] = {
    "clone": (Refusal(errno.EPERM, (Test(0, (0,), _NEW_NAMESPACE, inverted=True),)),),
    "socket": (
        _unless(0, _AF_UNIX, _AF_INET, _AF_INET6, error=errno.EAFNOSUPPORT),
        _unless(1, _STREAM, _DGRAM, _SEQPACKET, mask=0xF),
        # TCP and UDP only: SCTP, DCCP, UDP-Lite, MPTCP would load modules on demand.
        _unless(2, 0, 6, 17, error=errno.EPROTONOSUPPORT),
    ),
    "socketpair": (_unless(0, _AF_UNIX, error=errno.EAFNOSUPPORT),),
    "setsockopt": (
        # SOL_SOCKET: ATTACH_FILTER, ATTACH_BPF, ATTACH_REUSEPORT_CBPF/EBPF; SOL_TCP: ULP (kernel TLS).
        Refusal(errno.EPERM, (Test(1, (1,)), Test(2, (26, 50, 51, 52)))),
        Refusal(errno.ENOENT, (Test(1, (6,)), Test(2, (31,)))),
    ),
    "ioctl": (Refusal(errno.EPERM, (Test(1, (_TIOCSTI, _TIOCLINUX, _TIOCSETD, _TIOCCONS)),)),),
    "prctl": (_unless(0, *_PRCTL),),
    "arch_prctl": (_unless(0, *_ARCH_PRCTL, error=errno.EINVAL),),
    "personality": (_unless(0, 0, 0xFFFFFFFF),),
    # Regular files, FIFOs and sockets; never a device.
    "mknod": (_unless(1, 0, 0x1000, 0x8000, 0xC000, mask=0xF000),),
    "mknodat": (_unless(2, 0, 0x1000, 0x8000, 0xC000, mask=0xF000),),
}

# How a refused call answers. ENOSYS where the libc or the caller has an older way; EPERM otherwise.
ANSWERS = {
    "clone3": errno.ENOSYS,
    **dict.fromkeys(("close_range", "faccessat2", "openat2", "pidfd_open", "fchmodat2", "epoll_pwait2"), errno.ENOSYS),
    **dict.fromkeys(("statx", "rseq", "preadv2", "pwritev2", "copy_file_range", "membarrier"), errno.ENOSYS),
    # Programs that copy files take ENOTSUP for "no attributes here", and give up on EPERM.
    **dict.fromkeys(("getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr"), errno.ENOTSUP),
    **dict.fromkeys(("setxattr", "lsetxattr", "fsetxattr"), errno.ENOTSUP),
}
FIRST_NEW = 424  # numbers from here on came with Linux 5.1 and later: programs expect that they may be missing
