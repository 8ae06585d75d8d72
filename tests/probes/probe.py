"""Forty doors out of a sandbox, tried from inside. One file, standard library only: deploy it as a function
(`handle`), or run it (`python3 probe.py '{"only": [11]}'`) and read JSON: {number: {name, walls, verdict, detail}}.

A verdict is "closed", "open" or "n/a". A door that would do harm is recognised (the error that comes after the
permission check) and not walked through. `walls` names what has to be taken away for the probe to come out open;
"a+b" means both together, where either alone still holds.

Options (all optional): only [numbers], canaries [paths outside], net ["address:port"], resolver "address:port",
abstract [names], host_port number, ipc_key number, host {"name", "machine_id"}, witness pid, linger true,
forks, memory_mib, tmp_mib, files, descriptors (bounds of the exhausting probes: take them above the limits).
"""

import contextlib
import ctypes
import errno
import glob
import json
import mmap
import os
import platform
import resource
import select
import signal
import socket
import stat
import struct
import sys
import time

X86 = platform.machine() == "x86_64"
LIBC = ctypes.CDLL(None, use_errno=True)
SHUT = {errno.EPERM, errno.ENOSYS, errno.EACCES}
BAD = -1
# name -> number on x86_64, on aarch64
CALLS = {
    "acct": (163, 89), "add_key": (248, 217), "bpf": (321, 280), "chroot": (161, 51), "clock_adjtime": (305, 266),
    "clone": (56, 220), "clone3": (435, 435), "fsopen": (430, 430), "init_module": (175, 105),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "io_uring_setup": (425, 425), "ioctl": (16, 29),
    "iopl": (172, None), "ioperm": (173, None), "kcmp": (312, 272), "kexec_load": (246, 104), "keyctl": (250, 219),
    "mbind": (237, 235), "memfd_secret": (447, 447), "mincore": (27, 232), "modify_ldt": (154, None),
    "mount": (165, 40), "mount_setattr": (442, 442), "move_mount": (429, 429), "move_pages": (279, 239),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "open_tree": (428, 428),
    "perf_event_open": (298, 241), "personality": (135, 92), "pidfd_getfd": (438, 438), "pivot_root": (155, 41),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "ptrace": (101, 117), "quotactl_fd": (443, 443),
    "reboot": (169, 142), "request_key": (249, 218), "setns": (308, 268), "settimeofday": (164, 170),
    "shmget": (29, 194), "swapon": (167, 224), "syslog": (103, 116), "umount2": (166, 39), "unshare": (272, 97),
    "userfaultfd": (323, 282),
}  # fmt: skip
# Blocks, ends or splits the caller whatever its arguments: pause, rt_sigreturn, exit, fork and their like.
UNTRIED = {15, 34, 56, 57, 58, 60, 130, 231, 435} if X86 else {93, 94, 133, 139, 220, 435}
NEW = {
    "ns": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000, "pid": 0x20000000,
    "net": 0x40000000,
}  # fmt: skip
PROBES = {}


def probe(number, name, *walls):
    """Registers a probe: a function of the options that yields (door, is it open) pairs, or ("n/a", reason)."""

    def register(function):
        PROBES[number] = (name, walls, function)
        return function

    return register


def call(name, *arguments):
    """The errno of a system call (0 when it succeeded, and ENOSYS where the machine has none)."""
    number = CALLS[name][0 if X86 else 1] if isinstance(name, str) else name
    if number is None:
        return errno.ENOSYS
    ctypes.set_errno(0)
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return ctypes.get_errno() if LIBC.syscall(ctypes.c_long(number), *wide) < 0 else 0


def attempt(function, *arguments):
    """The errno of a Python call, 0 when it succeeded."""
    try:
        function(*arguments)
    except OSError as error:
        return error.errno or errno.EIO
    except ValueError:
        return errno.EPERM
    return 0


def in_child(function, seconds=10.0):
    """What a forked child's function returned (JSON), and the child's wait status; None when it did not answer."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.close(reader)
            os.write(writer, json.dumps(function()).encode())
        os._exit(0)
    os.close(writer)
    data, deadline = b"", time.monotonic() + seconds
    while select.select([reader], [], [], max(0, deadline - time.monotonic()))[0]:
        piece = os.read(reader, 65536)
        if not piece:
            break
        data += piece
    else:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    os.close(reader)
    status = os.waitpid(pid, 0)[1]
    return (json.loads(data) if data else None), status


def child_call(name, *arguments):
    """`call` in a child; a child that the kernel killed counts as shut."""
    found, _ = in_child(lambda: call(name, *arguments))
    return errno.EPERM if found is None else found


def read(path, size=65536):
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except OSError:
        return b""


def opens(path, flags=os.O_RDONLY):
    try:
        os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError:
        return False
    return True


def connects(family, address):
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as sock:
        sock.settimeout(1)
        return attempt(sock.connect, address) == 0


def status_fields():
    lines = read("/proc/self/status").decode().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


# -- files ------------------------------------------------------------------------------------------------------


@probe(1, "files of the host", "mount")
def p1(options):
    yield "/etc/shadow", bool(read("/etc/shadow"))
    for path in ("/root", "/home", "/var/lib/septet"):
        with contextlib.suppress(OSError):
            yield path, bool(os.listdir(path))
    for path in options.get("canaries", ()):
        yield path, bool(read(path))


@probe(2, "writes outside /tmp", "mount+landlock")
def p2(options):
    here = os.path.dirname(os.path.abspath(__file__))
    for folder in ("/", "/usr", "/etc", "/function", here, "/opt/septet/runtime", "/run"):
        path = os.path.join(folder, f".probe-{os.getpid()}")
        if opens(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL):
            os.unlink(path)
            yield f"creates in {folder}", True
    for path in ("/proc/sys/kernel/hostname", "/proc/sys/kernel/core_pattern", "/sys/kernel/uevent_helper"):
        yield f"opens {path} for writing", opens(path, os.O_WRONLY)


@probe(3, "other processes through /proc", "pid")
def p3(options):
    def parent(pid):
        text = read(f"/proc/{pid}/stat").decode("utf-8", "replace")
        return int(text.rpartition(")")[2].split()[1]) if text else 0

    mine, pid = {os.getpid()}, os.getpid()
    while pid > 1:
        pid = parent(pid)
        mine.add(pid)
    others = [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and int(entry) not in mine]
    for pid in others[:200]:
        line = [pid]
        while line[-1] > 1 and line[-1] not in mine:
            line.append(parent(line[-1]))
        yield f"sees process {pid}", os.getpid() not in line
    if os.getpid() != 1 and os.getppid() != 1:
        for name in ("environ", "mem"):
            yield f"opens /proc/1/{name}", opens(f"/proc/1/{name}")
        for name in ("root", "cwd", "exe"):
            yield f"follows /proc/1/{name}", attempt(os.readlink, f"/proc/1/{name}") == 0


@probe(4, "kernel tables in /proc", "mount")
def p4(options):
    names = "kcore kallsyms keys key-users timer_list sched_debug latency_stats kmsg interrupts modules iomem cmdline"
    for name in names.split():
        if opens(f"/proc/{name}"):
            blocking = name in ("kcore", "kmsg")
            yield f"/proc/{name}", _not_null(f"/proc/{name}") if blocking else bool(read(f"/proc/{name}", 64))
    yield "/proc/sysrq-trigger", opens("/proc/sysrq-trigger", os.O_WRONLY) and _not_null("/proc/sysrq-trigger")
    for name in ("acpi", "scsi", "bus"):
        with contextlib.suppress(OSError):
            yield f"/proc/{name}", bool(os.listdir(f"/proc/{name}"))


def _not_null(path):
    return not stat.S_ISCHR(os.stat(path).st_mode)


@probe(5, "/sys and cgroups", "mount")
def p5(options):
    for name in ("firmware", "kernel/debug", "kernel/security", "class/powercap", "fs/bpf", "block", "kernel"):
        with contextlib.suppress(OSError):
            yield f"/sys/{name}", bool(os.listdir(f"/sys/{name}"))
    for path in glob.glob("/sys/fs/cgroup/**/cgroup.procs", recursive=True)[:50]:
        yield f"writes {path}", opens(path, os.O_WRONLY)


@probe(6, "setuid and file capabilities", "no-new-privs+landlock+seccomp")
def p6(options):
    yield "no-new-privs is off", status_fields().get("NoNewPrivs") != "1"
    for folder in ("/usr/bin", "/usr/sbin", "/usr/lib", "/usr/libexec", "/bin", "/sbin"):
        for path in glob.glob(folder + "/*"):
            with contextlib.suppress(OSError):
                info = os.stat(path)
                special = stat.S_ISREG(info.st_mode) and info.st_mode & (stat.S_ISUID | stat.S_ISGID)
                if special and os.access(path, os.X_OK):
                    yield f"{path} keeps its set-id bit", not os.statvfs(path).f_flag & os.ST_NOSUID
    made = f"/tmp/.probe-{os.getpid()}"
    with contextlib.suppress(OSError):
        with open(made, "wb"):
            os.chmod(made, 0o4755)
        yield "makes a set-id file that counts", not os.statvfs(made).f_flag & os.ST_NOSUID
        os.unlink(made)


@probe(7, "identity and capabilities", "seccomp", "capabilities", "user")
def p7(options):
    fields = status_fields()
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        yield f"{name} {fields.get(name)}", int(fields.get(name, "1"), 16) != 0
    yield "no seccomp filter", fields.get("Seccomp") != "2"
    identity = fields["Uid"].split() + fields["Gid"].split()
    yield "is root", "0" in identity
    # As an ordinary user the groups cannot be dropped, and show as the overflow group.
    yield f"groups {fields['Groups']}", bool(set(fields["Groups"].split()) - {fields["Gid"].split()[0], "65534"})
    yield "all of the host's users are mapped", read("/proc/self/uid_map").split()[2:3] == [b"4294967295"]


@probe(8, "descriptors and terminals", "seccomp")
def p8(options):
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            mode, target = os.fstat(int(entry)).st_mode, os.readlink(f"/proc/self/fd/{entry}")
            listing = target.startswith("/proc/")
            yield f"descriptor {entry} is the folder {target}", stat.S_ISDIR(mode) and not listing
            yield f"descriptor {entry} is a device {target}", stat.S_ISBLK(mode) or os.isatty(int(entry))
    yield "has a terminal", opens("/dev/tty")
    for name, request in (("TIOCSTI", 0x5412), ("TIOCLINUX", 0x541C)):
        yield f"{name} reaches the kernel", call("ioctl", BAD, request, 0) not in SHUT


# -- system calls -----------------------------------------------------------------------------------------------


@probe(9, "every system call", "seccomp")
def p9(options):
    denied = []
    for number in sorted(set(range(601)) - UNTRIED):
        answer, _ = in_child(lambda number=number: call(number, *[BAD] * 6), 2)
        if answer in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, None):
            denied.append(number)
    yield f"denied={ranges(denied)}", len(denied) < 300


def ranges(numbers):
    """1 2 3 7 -> "1-3,7"."""
    parts = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


@probe(10, "32-bit and x32 entry", "seccomp")
def p10(options):
    if not X86:
        yield "n/a", "only x86_64 has them"
        return

    def int80():
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20 (getpid of i386); int 0x80; ret
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        return ctypes.CFUNCTYPE(ctypes.c_int)(address)() == os.getpid()

    yield "int 0x80 answers", in_child(int80)[0] is True
    yield "x32 answers", child_call(0x40000000 + 39) not in SHUT


@probe(11, "io_uring", "seccomp")
def p11(options):
    for name in ("io_uring_setup", "io_uring_enter", "io_uring_register"):
        yield name, child_call(name, BAD, BAD, BAD, BAD) not in SHUT


@probe(12, "userfaultfd", "seccomp")
def p12(options):
    yield "userfaultfd", child_call("userfaultfd", 1) not in SHUT  # 1: user faults only, which anybody may
    yield "/dev/userfaultfd", opens("/dev/userfaultfd")


@probe(13, "bpf", "seccomp")
def p13(options):
    yield "bpf", any(child_call("bpf", command, BAD, BAD) not in SHUT for command in (0, 5, 16, 36))


@probe(14, "perf", "seccomp")
def p14(options):
    yield "perf_event_open", child_call("perf_event_open", BAD, 0, BAD, BAD, 0) not in SHUT


@probe(15, "other processes' memory", "seccomp")
def p15(options):
    yield "ptrace(TRACEME)", child_call("ptrace", 0, 0, 0, 0) not in SHUT
    for name in ("process_vm_readv", "process_vm_writev"):
        yield name, child_call(name, os.getpid(), 0, 0, 0, 0, 0) not in SHUT
    yield "pidfd_getfd", child_call("pidfd_getfd", BAD, 0, 0) not in SHUT
    yield "kcmp", child_call("kcmp", os.getpid(), os.getpid(), 0, 0, 0) not in SHUT


@probe(16, "keyrings", "seccomp")
def p16(options):
    yield "add_key", child_call("add_key", 0, 0, 0, 0, 0) not in SHUT
    yield "request_key", child_call("request_key", 0, 0, 0, 0) not in SHUT
    yield "keyctl", child_call("keyctl", 0, -3, 0) not in SHUT


@probe(17, "new namespaces", "seccomp")
def p17(options):
    def cloned(flag):
        parent = os.getpid()
        answer = call("clone", flag | signal.SIGCHLD, 0, 0, 0, 0)
        if os.getpid() != parent or (flag == NEW["pid"] and os.getpid() == 1):
            os._exit(0)
        return answer

    for name, flag in NEW.items():
        yield f"unshare {name}", child_call("unshare", flag) == 0
        yield f"clone {name}", in_child(lambda flag=flag: cloned(flag))[0] == 0
    yield "clone3", child_call("clone3", 0, 0) != errno.ENOSYS
    yield "setns", child_call("setns", BAD, 0) not in SHUT


@probe(18, "mounts", "seccomp")
def p18(options):
    yield "mount", child_call("mount", b"x", b"/", b"no-such-file-system", 0, 0) not in SHUT
    yield "umount2", child_call("umount2", b"/proc/self", 0) not in SHUT
    yield "fsopen", child_call("fsopen", b"no-such-file-system", 0) not in SHUT
    yield "open_tree", child_call("open_tree", -100, b"/", 0) not in SHUT
    yield "open_tree(CLONE)", child_call("open_tree", -100, b"/", 1) not in SHUT
    yield "move_mount", child_call("move_mount", BAD, b"", BAD, b"", 0) not in SHUT
    yield "mount_setattr", child_call("mount_setattr", -100, b"/", 0, b"\0" * 32, 32) not in SHUT
    yield "pivot_root", child_call("pivot_root", b"/", b"/") not in SHUT
    yield "chroot", child_call("chroot", b"/") not in SHUT


@probe(19, "files by handle", "seccomp")
def p19(options):
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0), 200)
    yield (
        "name_to_handle_at",
        call("name_to_handle_at", -100, b"/", handle, ctypes.byref(ctypes.c_int()), 0) not in SHUT,
    )
    yield "open_by_handle_at", child_call("open_by_handle_at", -100, handle, 0) not in SHUT


@probe(20, "the machine", "seccomp")
def p20(options):
    yield "init_module", child_call("init_module", 0, 0, 0) not in SHUT
    yield "kexec_load", child_call("kexec_load", 0, 0, 0, BAD) not in SHUT  # flags that no kernel takes
    yield "reboot", child_call("reboot", 0, 0, 0, 0) not in SHUT  # wrong magic numbers
    yield "swapon", child_call("swapon", b"/no/such/file", 0) not in SHUT
    yield "acct", child_call("acct", b"/no/such/file") not in SHUT
    yield "quotactl_fd", child_call("quotactl_fd", BAD, 0, 0, 0) not in SHUT
    yield "iopl", child_call("iopl", 3) not in SHUT
    yield "ioperm", child_call("ioperm", 0x80, 1, 1) not in SHUT
    yield "clock_adjtime", child_call("clock_adjtime", BAD, 0) not in SHUT
    yield "syslog", child_call("syslog", 10, 0, 0) not in SHUT


@probe(21, "devices", "mount")
def p21(options):
    for kind, name in ((stat.S_IFCHR, "character"), (stat.S_IFBLK, "block")):
        path = f"/tmp/.probe-{os.getpid()}"
        if attempt(os.mknod, path, kind | 0o600, os.makedev(1, 3)) == 0:
            works = opens(path)
            os.unlink(path)
            yield f"makes a {name} device", works
    names = "mem port kmsg kvm fuse net/tun vsock vhost-net vhost-vsock loop-control mapper/control uinput"
    for name in names.split():
        yield f"/dev/{name}", opens(f"/dev/{name}")
    for pattern in ("loop[0-9]*", "vd*", "sd*", "nvme*", "dm-*"):
        for path in glob.glob(f"/dev/{pattern}"):
            yield path, opens(path)


@probe(22, "socket families", "seccomp")
def p22(options):
    kinds = {
        "AF_PACKET": (17, 3, 0), "raw": (2, 3, 1), "AF_XDP": (44, 3, 0), "AF_ALG": (38, 5, 0), "AF_KEY": (15, 3, 2),
        "AF_VSOCK": (40, 1, 0), "AF_BLUETOOTH": (31, 3, 1), "AF_TIPC": (30, 1, 0), "AF_CAN": (29, 3, 1),
        "netlink route": (16, 3, 0), "netlink audit": (16, 3, 9), "nfnetlink": (16, 3, 12), "AF_SMC": (43, 1, 0),
    }  # fmt: skip
    for name, (family, kind, protocol) in kinds.items():
        yield name, attempt(lambda *a: socket.socket(*a).close(), family, kind, protocol) == 0


# -- network and neighbours -------------------------------------------------------------------------------------


@probe(23, "metadata and local networks", "net")
def p23(options):
    if not options.get("net"):
        yield "n/a", "runs only where the test made the network and named its stand-ins"
    for target in options.get("net", ()):
        address, _, port = target.rpartition(":")
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        yield target, connects(family, (address, int(port)))


@probe(24, "unix sockets outside", "mount", "net+landlock")
def p24(options):
    listed = [line.split()[-1] for line in read("/proc/net/unix").decode("utf-8", "replace").splitlines()[1:]]
    names = {name[1:] for name in listed if name.startswith("@")} | set(options.get("abstract", ()))
    for name in sorted(names)[:50]:
        yield f"@{name}", connects(socket.AF_UNIX, "\0" + name)
    for pattern in ("/run/*.sock", "/run/*/*.sock", "/var/run/docker.sock", "/run/dbus/system_bus_socket"):
        for path in glob.glob(pattern):
            yield path, connects(socket.AF_UNIX, path)


@probe(25, "neighbours", "ipc", "pid+landlock")
def p25(options):
    if witness := options.get("witness"):
        yield f"signals process {witness}", _is_witness(witness) and attempt(os.kill, witness, 0) == 0
    if key := options.get("ipc_key"):
        yield "shared memory of another", call("shmget", key, 0, 0) == 0
    for name in os.listdir("/dev/shm") if os.path.isdir("/dev/shm") else ():
        yield f"/dev/shm/{name}", True


def _is_witness(pid):
    return read(f"/proc/{pid}/comm") == b"witness\n"


@probe(26, "the host's ports", "net", "capabilities+user")
def p26(options):
    with contextlib.closing(socket.socket()) as sock:
        yield "binds port 81", attempt(sock.bind, ("127.0.0.1", 81)) == 0
    if port := options.get("host_port"):
        with contextlib.closing(socket.socket()) as sock:
            taken = attempt(sock.bind, ("127.0.0.1", port)) == errno.EADDRINUSE
            yield f"shares the host's port {port}", taken
        yield f"connects to the host's port {port}", connects(socket.AF_INET, ("127.0.0.1", port))


@probe(27, "names", "net")
def p27(options):
    if not options.get("resolver"):
        yield "n/a", "runs only where the test named a stand-in resolver"
        return
    address, _, port = options["resolver"].rpartition(":")
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.settimeout(1)
        query = b"\x12\x34\x01\x00\x00\x01" + bytes(6) + b"\x06septet\x08internal\x00\x00\x01\x00\x01"

        def ask():
            sock.connect((address, int(port)))
            sock.send(query)
            sock.recv(512)

        yield f"{options['resolver']} answers", attempt(ask) == 0


# -- exhaustion -------------------------------------------------------------------------------------------------


@probe(28, "fork bomb", "cgroup")
def p28(options):
    bound, pids = options.get("forks", 300), []

    def bomb():
        try:
            for _ in range(bound):
                pid = os.fork()
                if pid == 0:
                    signal.pause() if hasattr(signal, "pause") else time.sleep(60)
                    os._exit(0)
                pids.append(pid)
        except OSError:
            pass
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            os.waitpid(pid, 0)
        return len(pids)

    made, _ = in_child(bomb, 30)
    yield f"{made} of {bound} processes", made == bound


@probe(29, "memory", "cgroup")
def p29(options):
    bound = options.get("memory_mib", 256)

    def private():
        return len([b"x" * (8 << 20) for _ in range(bound // 8)]) * 8

    def shared():
        area = mmap.mmap(-1, bound << 20)
        for offset in range(0, bound << 20, 4096):
            area[offset] = 1
        return bound

    def in_file():
        descriptor = os.memfd_create("probe")
        for _ in range(bound):
            os.write(descriptor, b"x" * (1 << 20))
        return bound

    for function in (private, shared, in_file):
        got, _ = in_child(lambda function=function: (_first_to_die(), function())[1], 60)
        yield f"{function.__name__}: {got} of {bound} MiB", got == bound


def _first_to_die():
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


@probe(30, "processor", "capabilities+user")
def p30(options):
    def real_time():
        return attempt(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1))

    yield "SCHED_FIFO", in_child(real_time)[0] == 0
    yield "nice -20", in_child(lambda: attempt(os.nice, -20))[0] == 0

    def raised():
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        return attempt(resource.setrlimit, resource.RLIMIT_NOFILE, (hard + 1, hard + 1))

    yield "raises a hard limit", in_child(raised)[0] == 0


@probe(31, "disk", "mount")
def p31(options):
    folder = f"/tmp/.probe-{os.getpid()}"
    bound, inodes = options.get("tmp_mib", 128), options.get("files", 30000)
    os.mkdir(folder)

    def fill():
        with open(f"{folder}/big", "wb", buffering=0) as file:
            for count in range(bound):
                if attempt(lambda: file.write(b"x" * (1 << 20))):
                    return count
        return bound

    def crowd():
        for count in range(inodes):
            if attempt(lambda count=count: os.close(os.open(f"{folder}/{count}", os.O_CREAT | os.O_WRONLY))):
                return count
        return inodes

    written = in_child(fill, 60)[0]
    with contextlib.suppress(OSError):
        os.unlink(f"{folder}/big")
    made = in_child(crowd, 60)[0]
    for name in os.listdir(folder):
        os.unlink(f"{folder}/{name}")
    os.rmdir(folder)
    yield f"{written} of {bound} MiB", written == bound
    yield f"{made} of {inodes} files", made == inodes


@probe(32, "descriptors", "rlimits")
def p32(options):
    bound = options.get("descriptors", 70000)

    def many():
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        held = []
        with contextlib.suppress(OSError):
            while len(held) < bound:
                held.append(os.open("/dev/null", os.O_RDONLY))
        return len(held)

    got = in_child(many, 30)[0]
    yield f"{got} of {bound} descriptors", got == bound
    yield "a terminal of its own", opens("/dev/ptmx", os.O_RDWR)


@probe(33, "log flood")
def p33(options):
    for line in (
        "\x1b[2J\x1b]0;x\x07",
        '{"level":"error","message":"forged"}',
        "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX",
    ):
        print(line, file=sys.stderr)
    sys.stderr.flush()
    os.write(2, b"\xff\xfe not utf-8\n")
    yield "n/a", "written to standard error; what becomes of it is seen in the platform's log only"


@probe(34, "reply abuse")
def p34(options):
    yield "n/a", "a reply is judged by the front, which has its own tests for hostile replies"


@probe(35, "outlives its call", "pid")
def p35(options):
    if not options.get("linger"):
        yield "n/a", "asked for with linger; then look outside for a process named probe35"
        return
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            null = os.open("/dev/null", os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            LIBC.prctl(15, b"probe35", 0, 0, 0)
            time.sleep(120)
        os._exit(0)
    yield "n/a", "left a process named probe35 behind: look outside"


@probe(36, "core dumps", "rlimits")
def p36(options):
    def die():
        os.chdir("/tmp")
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
        os.kill(os.getpid(), signal.SIGABRT)
        time.sleep(5)

    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    _, status = in_child(die)
    left = glob.glob("/tmp/core*")
    for path in left:
        os.unlink(path)
    yield "dumped core", os.WCOREDUMP(status) or bool(left)


@probe(37, "odd memory and personality", "seccomp")
def p37(options):
    yield "no address randomisation", child_call("personality", 0x0040000) not in SHUT
    yield "modify_ldt", child_call("modify_ldt", 0, ctypes.create_string_buffer(64), 64) not in SHUT
    yield "mbind", child_call("mbind", 0, 0, BAD, 0, 0, 0) not in SHUT
    yield "move_pages", child_call("move_pages", 0, 0, 0, 0, 0, 0) not in SHUT
    yield "memfd_secret", child_call("memfd_secret", 0) not in SHUT
    fixed, anonymous = 0x10, 0x20
    LIBC.mmap.restype = ctypes.c_void_p
    got = LIBC.mmap(ctypes.c_void_p(0), ctypes.c_size_t(4096), 3, fixed | anonymous | 2, -1, ctypes.c_long(0))
    yield "maps address 0", got is None


@probe(38, "side channels", "seccomp", "mount")
def p38(options):
    for path in ("/proc/interrupts", "/proc/softirqs", "/proc/timer_list", "/proc/schedstat", "/proc/vmstat"):
        yield path, bool(read(path, 16))
    yield "power meter", bool(glob.glob("/sys/class/powercap/*"))
    yield "mincore", child_call("mincore", 0, 0, 0) not in SHUT


@probe(39, "the clock", "seccomp+capabilities+user")
def p39(options):
    yield "settimeofday", child_call("settimeofday", 0, 0) not in SHUT  # sets nothing, after the permission check


@probe(40, "identity of the host", "uts", "mount", "cgroup-namespace")
def p40(options):
    host = options.get("host", {})
    yield f"host name {platform.node()}", platform.node() == host.get("name")
    yield "machine id", bool(read("/etc/machine-id").strip())
    yield "boot id", bool(read("/proc/sys/kernel/random/boot_id", 36).strip())
    yield "serial number", bool(read("/sys/class/dmi/id/product_serial") or read("/sys/class/dmi/id/product_uuid"))
    for line in read("/proc/self/cgroup").decode().splitlines():
        yield f"cgroup {line}", line.split(":", 2)[2] != "/"
    for line in read("/proc/self/mountinfo", 1 << 20).decode().splitlines():
        root = line.split()[3]
        yield f"mount source {root}", any(part in root for part in ("/home/", "/root/", "/var/lib/", "/tenants/"))


def run(options):
    """{number: {name, walls, verdict, detail}} of the probes asked for."""
    found = {}
    for number in options.get("only") or sorted(PROBES):
        name, walls, function = PROBES[int(number)]
        verdict, detail = "closed", []
        try:
            for door, state in function(options):
                if door == "n/a":
                    verdict, detail = "n/a", [state]
                elif state:
                    verdict = "open"
                    detail.append(door)
                elif door.startswith("denied="):
                    detail.append(door)
        except Exception as error:
            verdict = "open"  # a probe that breaks proves nothing, and must not pass for a shut door
            detail.append(f"{type(error).__name__}: {error}")
        found[str(number)] = {
            "name": name,
            "walls": list(walls),
            "verdict": verdict,
            "detail": "; ".join(detail)[:4000],
        }
    return found


def handle(request, context):
    """A Septet function: the options as a JSON body."""
    body = getattr(request, "body", b"") or b"{}"
    return run(json.loads(body if isinstance(body, (bytes, str)) else bytes(body)))


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {})))
