"""The system-call wall: an allow-list per runtime family, compiled to BPF and installed on the calling thread.

`wide` is for any executable; every other family is a subset of it. The filter first checks the architecture (a
32-bit entry kills the process), kills x32 numbers, then finds the number by binary search.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform

from septet.drivers.sandbox.process import bpf
from septet.drivers.sandbox.process.seccomp_rules import ANSWERS, FAMILIES, FIRST_NEW, REFUSALS, SUCCESSORS, Refusal
from septet.drivers.sandbox.process.seccomp_rules import names as _names
from septet.drivers.sandbox.process.seccomp_tables import NUMBERS

ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
ERRNO = 0x00050000

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_MODE_FILTER = 2

_libc = ctypes.CDLL(None, use_errno=True)

# What a number leads to: a plain return value, or tests of arguments before it is allowed.
Verdict = int | tuple[Refusal, ...]


def architecture() -> str:
    """`x86_64` or `aarch64`; OSError (ENOSYS) elsewhere."""
    machine = platform.machine()
    if machine not in NUMBERS:
        raise OSError(errno.ENOSYS, f"no system-call table for {machine}; there are tables for x86_64 and aarch64")
    return machine


def allowed(family: str, arch: str = "") -> frozenset[str]:
    """Names that the family may call on `arch` (this machine's when empty), some only with certain arguments.

    ValueError for an unknown family.
    """
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}: one of {', '.join(FAMILIES)}")
    numbers = NUMBERS[arch or architecture()]
    wanted = _names(family)
    return frozenset(wanted & numbers.keys()) | {
        SUCCESSORS[name] for name in wanted - numbers.keys() if name in SUCCESSORS
    }


def verdicts(family: str, arch: str = "") -> dict[int, Verdict]:
    """What the filter says of every number that has a name; any other is `unknown(number)`."""
    arch = arch or architecture()
    may = allowed(family, arch)
    found: dict[int, Verdict] = {}
    for name, number in NUMBERS[arch].items():
        if name in may:
            found[number] = REFUSALS.get(name, ALLOW)
        elif name in ANSWERS:
            found[number] = ERRNO | ANSWERS[name]
        else:
            found[number] = unknown(number)
    return found


def unknown(number: int) -> int:
    """The answer to a number that no list names: ENOSYS for new ones, so that a libc falls back."""
    return ERRNO | (errno.ENOSYS if number >= FIRST_NEW else errno.EPERM)


@functools.cache
def program(family: str, arch: str = "") -> bytes:
    """The compiled filter, an array of struct sock_filter."""
    arch = arch or architecture()
    table = verdicts(family, arch)
    table.setdefault(FIRST_NEW, unknown(FIRST_NEW))
    search = _search(_segments(table))
    if arch == "x86_64":
        search = bpf.branch(bpf.JUMP_AT_LEAST, _X32_BIT, search, bpf.give(KILL_PROCESS))
    native = bpf.load(0) + search
    return bpf.assemble(bpf.load(4) + bpf.branch(bpf.JUMP_EQUAL, _AUDIT_ARCH[arch], bpf.give(KILL_PROCESS), native))


def _segments(table: dict[int, Verdict]) -> list[tuple[int, Verdict]]:
    """Runs of numbers with one verdict, as (first number, verdict), covering all numbers from 0 on."""
    segments: list[tuple[int, Verdict]] = []
    for number in range(max(table) + 2):
        verdict = table.get(number, unknown(number))
        if not segments or segments[-1][1] != verdict:
            segments.append((number, verdict))
    return segments


def _search(segments: list[tuple[int, Verdict]]) -> bpf.Code:
    if len(segments) == 1:
        verdict = segments[0][1]
        return bpf.give(verdict) if isinstance(verdict, int) else _refusals(verdict)
    middle = len(segments) // 2
    return bpf.branch(bpf.JUMP_AT_LEAST, segments[middle][0], _search(segments[:middle]), _search(segments[middle:]))


def _refusals(refusals: tuple[Refusal, ...]) -> bpf.Code:
    code = bpf.give(ALLOW)
    for refusal in reversed(refusals):
        code = _refusal(refusal, code)
    return code


def _refusal(refusal: Refusal, passed: bpf.Code) -> bpf.Code:
    """The error when all tests hold, else `passed`; which is repeated for each test, as there are few."""
    code = bpf.give(ERRNO | refusal.error)
    for test in reversed(refusal.tests):
        hit, miss = (passed, code) if test.inverted else (code, passed)
        for value in test.values:
            miss = bpf.branch(bpf.JUMP_EQUAL, value, miss, hit)
        # The low half: the kernel itself looks at no more of these arguments.
        code = bpf.load(16 + 8 * test.argument) + (bpf.mask(test.mask) if test.mask != 0xFFFFFFFF else []) + miss
    return code


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install(bpf: bytes) -> None:
    """Puts the filter on the calling thread, its later threads and its children, for good; sets no-new-privs.

    Call it single-threaded, right before exec. Raises OSError.
    """
    loaded = _Program(len(bpf) // 8, bpf)
    zero = ctypes.c_ulong(0)
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero),
        (_PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), ctypes.byref(loaded), zero, zero),
    ):
        if _libc.prctl(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"prctl {arguments[0]}: {os.strerror(number)}")
