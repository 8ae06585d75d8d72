"""The filter's program against its rules, number by number, and real programs under it."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from septet.drivers.sandbox.process import bpf, seccomp
from septet.drivers.sandbox.process.seccomp_rules import FAMILIES, REFUSALS
from septet.drivers.sandbox.process.seccomp_tables import NUMBERS

ROOT = Path(__file__).resolve().parents[5]
WORKLOADS = ROOT / "scripts/seccomp_workloads"
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
I386 = 0x40000003
ARCHES = ("x86_64", "aarch64")
EPERM, ENOSYS = seccomp.ERRNO | errno.EPERM, seccomp.ERRNO | errno.ENOSYS


def run(program: bytes, number: int, arch: int, arguments: tuple[int, ...] = ()) -> int:
    """What the kernel would return: an interpreter of the instructions that the assembler knows."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0, *padded)
    at, accumulator = 0, 0
    while True:
        code, yes, no, value = struct.unpack_from("=HBBI", program, at * 8)
        at += 1
        if code == bpf.LOAD_WORD:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == bpf.AND:
            accumulator &= value
        elif code == bpf.JUMP:
            at += value
        elif code == bpf.JUMP_EQUAL:
            at += yes if accumulator == value else no
        elif code == bpf.JUMP_AT_LEAST:
            at += yes if accumulator >= value else no
        elif code == bpf.RETURN:
            return int(value)
        else:
            raise AssertionError(f"instruction {code:#x}")


def naive(family: str, arch: str, number: int, arguments: tuple[int, ...]) -> int:
    """The rules read one after the other, as a person would."""
    if arch == "x86_64" and number >= 0x40000000:
        return seccomp.KILL_PROCESS
    name = next((name for name, value in NUMBERS[arch].items() if value == number), "")
    if name not in seccomp.allowed(family, arch):
        return seccomp.verdicts(family, arch).get(number, seccomp.unknown(number))  # type: ignore[return-value]
    for refusal in REFUSALS.get(name, ()):
        held = [((arguments[t.argument] & t.mask) in t.values) is not t.inverted for t in refusal.tests]
        if all(held):
            return seccomp.ERRNO | refusal.error
    return seccomp.ALLOW


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("family", FAMILIES)
def test_program_decides_as_the_rules_for_every_number(family: str, arch: str) -> None:
    program = seccomp.program(family, arch)
    assert len(program) // 8 <= 600
    patterns = [(0,) * 6, (1,) * 6, (2, 1, 6, 0, 0, 0), (0x7E020000, 0x5412, 0x6000, 0, 0, 0), (0xFFFFFFFF,) * 6]
    for number in [*range(601), 0x3FFFFFFF, 0x40000000, 0x40000001, 0xFFFFFFFF]:
        for arguments in patterns:
            assert run(program, number, AUDIT[arch], arguments) == naive(family, arch, number, arguments), number


@pytest.mark.parametrize("name", sorted(REFUSALS))
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_argument_tests_decide_as_the_rules(name: str, data: st.DataObject) -> None:
    values = {0, 1, 0xFFFFFFFF, *(v for r in REFUSALS[name] for t in r.tests for v in t.values)}
    near = st.sampled_from(sorted(values)).flatmap(lambda v: st.sampled_from([v, v + 1, max(v - 1, 0), v | 1 << 32]))
    arguments = data.draw(st.tuples(*[st.one_of(near, st.integers(0, 2**64 - 1))] * 6))
    number = NUMBERS["x86_64"][name]
    got = run(seccomp.program("wide", "x86_64"), number, AUDIT["x86_64"], arguments)
    assert got == naive("wide", "x86_64", number, arguments)


@pytest.mark.parametrize("arch", ARCHES)
def test_a_foreign_architecture_is_killed(arch: str) -> None:
    for other in (I386, 0x40000028, *(AUDIT[a] for a in ARCHES if a != arch)):
        assert run(seccomp.program("wide", arch), 1, other) == seccomp.KILL_PROCESS


def test_lists_have_the_promised_shape() -> None:
    assert len(seccomp.allowed("python", "x86_64")) <= 90
    for arch in ARCHES:
        for family in FAMILIES:
            assert seccomp.allowed(family, arch) <= seccomp.allowed("wide", arch), family
            assert {"execve", "exit_group", "openat"} <= seccomp.allowed(family, arch)
            # Where the clock source is a slow one, the clocks are system calls.
            assert "clock_gettime" in seccomp.allowed(family, arch)
    with pytest.raises(ValueError, match="unknown family"):
        seccomp.allowed("cobol")


# What no family may reach, by the reason it is dangerous.
SHUT = """
acct add_key adjtimex bpf capset chroot clock_adjtime clock_settime clone3 delete_module fanotify_init finit_module
fsconfig fsmount fsopen fspick init_module io_setup io_submit io_uring_enter io_uring_register io_uring_setup ioperm
iopl kcmp kexec_file_load kexec_load keyctl landlock_create_ruleset listmount lookup_dcookie mbind memfd_secret
migrate_pages mincore modify_ldt mount mount_setattr move_mount move_pages mq_open name_to_handle_at nfsservctl
open_by_handle_at open_tree open_tree_attr perf_event_open pidfd_getfd pivot_root process_mrelease process_vm_readv
process_vm_writev ptrace quotactl quotactl_fd reboot remap_file_pages request_key seccomp set_mempolicy setdomainname
setgid setgroups sethostname setns setresgid setresuid settimeofday setuid statmount swapoff swapon syslog umount2
unshare uselib userfaultfd vhangup
"""


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("family", FAMILIES)
def test_dangerous_calls_are_shut(family: str, arch: str) -> None:
    program = seccomp.program(family, arch)
    for name in SHUT.split():
        if name in NUMBERS[arch]:
            answer = run(program, NUMBERS[arch][name], AUDIT[arch])
            assert answer in (EPERM, ENOSYS), name
            assert name != "clone3" or answer == ENOSYS


def test_argument_rules_refuse_what_they_name() -> None:
    def ask(name: str, *arguments: int) -> int:
        return run(seccomp.program("wide", "x86_64"), NUMBERS["x86_64"][name], AUDIT["x86_64"], arguments)

    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert ask("clone", flag | 17) == EPERM
    assert ask("clone", 0x3D0F00) == seccomp.ALLOW  # a thread
    for family in range(64):
        expected = seccomp.ALLOW if family in (1, 2, 10) else seccomp.ERRNO | errno.EAFNOSUPPORT
        assert ask("socket", family, 1 | 0x80000) == expected
    assert ask("socket", 2, 3) == EPERM
    assert ask("socket", 2, 1, 132) == seccomp.ERRNO | errno.EPROTONOSUPPORT
    assert ask("ioctl", 0, 0x5412) == EPERM
    assert ask("ioctl", 0, 0x5412 | 1 << 32) == EPERM  # the kernel reads 32 bits
    assert ask("ioctl", 0, 0x5401) == seccomp.ALLOW
    assert ask("personality", 0x0040000) == EPERM
    assert ask("prctl", 22, 2) == EPERM
    assert ask("mknodat", 0, 0, 0x2000 | 0o600) == EPERM


# -- real programs under the real filter ------------------------------------------------------------------------

native = pytest.mark.skipif(platform.machine() not in NUMBERS, reason="no system-call table for this machine")
INSTALL = """
import os, sys
sys.path.insert(0, sys.argv[1])
from septet.drivers.sandbox.process import seccomp
seccomp.install(seccomp.program(sys.argv[2]))
os.execv(sys.argv[3], sys.argv[3:])
"""


def under(family: str, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[bytes]:
    launcher = [sys.executable, "-I", "-c", INSTALL, str(ROOT / "src"), family, *command]
    return subprocess.run(launcher, capture_output=True, timeout=timeout)


def interpreter(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@native
@pytest.mark.parametrize("family", ["python", "wide"])
def test_python_works_under_the_filter(family: str) -> None:
    for python in dict.fromkeys(["/usr/bin/python3", os.path.realpath(sys.executable)]):
        if os.path.exists(python):
            result = under(family, python, "-I", str(WORKLOADS / "python.py"))
            assert result.stdout.endswith(b"done\n"), result.stderr.decode()


@native
@pytest.mark.parametrize("name,family", [("node", "node"), ("node", "wide"), ("ruby", "ruby"), ("ruby", "wide")])
def test_interpreters_work_under_the_filter(name: str, family: str) -> None:
    script = WORKLOADS / f"{name}.{'js' if name == 'node' else 'rb'}"
    result = under(family, interpreter(name), str(script))
    assert result.stdout.endswith(b"done\n"), result.stderr.decode()


@native
def test_a_static_go_binary_works_under_the_filter(tmp_path: Path) -> None:
    go = interpreter("go")
    environment = {**os.environ, "CGO_ENABLED": "0", "GO111MODULE": "off"}
    binary = tmp_path / "work"
    subprocess.run([go, "build", "-o", str(binary), str(WORKLOADS / "go.go")], check=True, env=environment)
    for family in ("go", "wide"):
        result = under(family, str(binary))
        assert result.stdout == b"done\n", result.stderr.decode()


@native
@pytest.mark.parametrize("family", FAMILIES)
def test_a_shell_works_under_every_family(family: str) -> None:
    script = "echo b a | tr ' ' '\\n' | sort | head -1; ls / >/dev/null && cd /tmp && test -d . && expr 1 + 1"
    result = under(family, "/bin/sh", "-c", script)
    assert (result.stdout, result.returncode) == (b"a\n2\n", 0), result.stderr.decode()


@native
def test_refused_calls_answer_as_promised() -> None:
    script = (
        "import ctypes, os, socket, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def call(*a): ctypes.set_errno(0); libc.syscall(*a); return ctypes.get_errno()\n"
        "numbers = [int(n) for n in sys.argv[1].split(',')]\n"
        "out = [call(n, -1, -1, -1, -1, -1, -1) for n in numbers]\n"
        "try: socket.socket(16, 3, 0); out.append(0)\n"
        "except OSError as e: out.append(e.errno)\n"
        "print(out, open('/proc/self/status').read().split('Seccomp:')[1].split()[0])\n"
    )
    names = ["ptrace", "unshare", "keyctl", "clone3", "io_uring_setup", "bpf"]
    numbers = ",".join(str(NUMBERS[platform.machine()][name]) for name in names)
    result = under("python", "/usr/bin/python3", "-I", "-c", script, numbers)
    p, s = errno.EPERM, errno.ENOSYS
    assert result.stdout.decode().strip() == f"{[p, p, p, s, s, p, errno.EAFNOSUPPORT]} 2", result.stderr.decode()


@native
@pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 exists on x86_64 only")
def test_an_x32_number_kills() -> None:
    script = "import ctypes; ctypes.CDLL(None).syscall(0x40000000 + 39)"
    assert under("wide", "/usr/bin/python3", "-I", "-c", script).returncode == -31
