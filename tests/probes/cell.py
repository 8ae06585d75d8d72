"""A throw-away host with a sandbox in it, to take walls away one by one. As root, in namespaces of its own
(test_probes_control.py has the command): cell.py '{"runs": [[walls to leave out]...]}' prints one JSON line a run,
{"without": ..., "probes": {...}, "lingers": bool}.

The "host" is a tmpfs root with stand-ins for what a host would have: files, device names, sockets, addresses. So
the doors that are walked through lead into this process's own namespaces, and those that would do harm are only
recognised by the probes.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from septet.drivers.sandbox.process import landlock, seccomp

LIBC = ctypes.CDLL(None, use_errno=True)
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
NAMESPACES = {"mount": 0x20000, "pid": 0x20000000, "net": 0x40000000, "ipc": 0x8000000, "uts": 0x4000000}
CGROUP_NAMESPACE, USER = 0x2000000, 0x10000000
PROBE = Path(__file__).with_name("probe.py").read_text()
PYTHON = "/usr/bin/python3"
MASKED = "kcore kallsyms keys key-users timer_list sched_debug latency_stats kmsg interrupts softirqs modules iomem"
MASKED += " cmdline schedstat vmstat sysrq-trigger sys/kernel/random/boot_id"
STAND_INS = ("169.254.169.254", "100.100.100.200", "10.9.8.7")
TOKEN = os.urandom(4).hex()
PORT, RESOLVER, KEY, ID = 8100, 5300, 0x5E97E7, 60000


def check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    check(LIBC.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()), target)


def bind(source: str, target: str, flags: int = 0) -> None:
    mount(source, target, "", BIND | REC)
    if flags:
        mount("none", target, "", BIND | REMOUNT | flags)


def pivot(root: str) -> None:
    os.chdir(root)
    check(LIBC.syscall(155 if os.uname().machine == "x86_64" else 41, b".", b"."), "pivot_root")
    check(LIBC.umount2(b".", 2), "umount")
    os.chdir("/")


def system(root: str) -> None:
    """/usr and what makes its programs run."""
    for name in ("usr", "proc", "dev", "tmp", "etc", "run"):
        Path(root, name).mkdir(exist_ok=True)
    bind("/usr", f"{root}/usr", RDONLY | NOSUID | NODEV)
    for name in ("bin", "sbin", "lib", "lib64"):
        if Path("/", name).is_symlink():
            Path(root, name).symlink_to(os.readlink(f"/{name}"))
    for name in ("ld.so.cache", "passwd", "hosts", "nsswitch.conf"):
        if Path("/etc", name).exists():
            shutil.copy(f"/etc/{name}", f"{root}/etc/{name}")
    for name in ("null", "zero", "full", "random", "urandom"):
        Path(root, "dev", name).touch()
        bind(f"/dev/{name}", f"{root}/dev/{name}")


def build_host() -> None:
    """The stand-in host, and this process moved into it."""
    mount("none", "/", "", REC | PRIVATE)
    mount("host", "/mnt", "tmpfs", 0, "mode=755")
    system("/mnt")
    mount("proc", "/mnt/proc", "proc")
    mount("tmp", "/mnt/tmp", "tmpfs", 0, "mode=1777,size=400m")
    Path("/mnt/sys").mkdir()
    mount("sys", "/mnt/sys", "sysfs", RDONLY)
    files = {"etc/shadow": "root:*:1::::::\n", "etc/machine-id": "0" * 32 + "\n", "tmp/canary": "canary"}
    files |= {"root/notes": "x", "home/someone/notes": "x", "var/lib/septet/state": "x", "probe.py": PROBE}
    for name, text in files.items():
        path = Path("/mnt", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in ("kmsg", "fuse", "loop-control"):
        Path("/mnt/dev", name).touch()
        Path("/mnt/dev", name).chmod(0o666)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for address in STAND_INS:
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    socket.sethostname("the-host")
    Path("/mnt/cell").mkdir()
    pivot("/mnt")
    for folder in ("/etc", "/"):  # a careless host
        Path(folder).chmod(0o777)


def witness() -> int:
    """A neighbour: a process with sockets, ports, a resolver and shared memory of its own."""
    ready, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        os.read(ready, 1)
        return pid
    check(LIBC.shmget(KEY, 4096, 0o1000 | 0o666), "shmget")
    listeners = [socket.create_server(("", PORT)), socket.create_server(("", 80))]
    for name in ("\0witness", "/run/host.sock"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(name)
        listener.listen(64)
        listeners.append(listener)
    Path("/run/host.sock").chmod(0o777)
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    names.bind(("127.0.0.1", RESOLVER))

    def accept(listener: socket.socket) -> None:
        while True:
            listener.accept()[0].close()

    for listener in listeners:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
    LIBC.prctl(15, b"witness", 0, 0, 0)
    os.setresgid(ID, ID, ID)  # the id that instances have on the host
    os.setresuid(ID, ID, ID)
    os.write(write, b"x")
    while True:
        query, peer = names.recvfrom(512)
        names.sendto(query, peer)


def cgroups(index: int) -> list[str]:
    """Groups with limits on processes and memory for one run (one each: what a run left charged must not matter)."""
    made = []
    for controller, limits in {
        "pids": {"pids.max": "100"},
        "memory": {"memory.limit_in_bytes": str(96 << 20), "memory.swappiness": "0"},
    }.items():
        group = Path(f"/sys/fs/cgroup/{controller}/septet-cell-{TOKEN}-{index}")
        if not group.parent.is_dir():
            break
        group.mkdir()
        made.append(str(group))
        for name, value in limits.items():
            if (group / name).exists():
                (group / name).write_text(value)
    if made:
        return made
    group = Path(f"/sys/fs/cgroup/septet-cell-{TOKEN}-{index}")
    group.mkdir()
    made.append(str(group))
    for name, value in {"pids.max": "100", "memory.max": str(96 << 20), "memory.swap.max": "0"}.items():
        if (group / name).exists():
            (group / name).write_text(value)
    return made


def cell_root() -> str:
    """The sandbox's root, as the `process` driver has it."""
    root = "/cell"
    mount("cell", root, "tmpfs", NOSUID | NODEV, "mode=755,size=8m")
    system(root)
    code = Path(root, "function/code")
    code.mkdir(parents=True)
    (code / "probe.py").write_text(PROBE)
    mount("proc", f"{root}/proc", "proc", NOSUID | NODEV | NOEXEC)
    for name in MASKED.split():
        if Path(root, "proc", name).exists():
            bind("/dev/null", f"{root}/proc/{name}")
    bind(f"{root}/proc/sys", f"{root}/proc/sys", RDONLY)
    for name in ("acpi", "scsi", "bus"):
        if Path(root, "proc", name).is_dir():
            mount("none", f"{root}/proc/{name}", "tmpfs", RDONLY, "size=4k")
    mount("tmp", f"{root}/tmp", "tmpfs", NOSUID | NODEV, "mode=1777,size=32m,nr_inodes=4096")
    mount("none", root, "", REMOUNT | BIND | RDONLY | NOSUID | NODEV)
    return root


def become(without: set[str]) -> None:
    """Rights go, in the order of the driver; what is in `without` stays."""
    prctl = LIBC.prctl
    if "rlimits" not in without:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.setgroups([])
    if "user" not in without:
        os.setresgid(ID, ID, ID)
        os.setresuid(ID, ID, ID)
        check(prctl(4, 1, 0, 0, 0), "dumpable")
        check(LIBC.unshare(USER), "unshare user")
        inside = 0 if "capabilities" in without else 1000
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{inside} {ID} 1")
        Path("/proc/self/gid_map").write_text(f"{inside} {ID} 1")
    if "capabilities" not in without:
        for number in range(64):
            prctl(24, number, 0, 0, 0)
        if "user" in without:
            os.setresgid(ID, ID, ID)
            os.setresuid(ID, ID, ID)
        header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        check(LIBC.capset(header, data), "capset")
    if "no-new-privs" not in without:
        prctl(38, 1, 0, 0, 0)
    if "landlock" not in without:
        landlock.restrict(["/"], ["/tmp", "/dev", "/proc"])
    if "seccomp" not in without:
        seccomp.install(seccomp.program("wide"))


def function(without: set[str], options: dict[str, object], out: int) -> None:
    """The sandbox's first process: the walls that a namespace needs, then the probes as its child."""
    if "uts" not in without:
        socket.sethostname("cell")
    if "net" not in without:
        subprocess.run(["/usr/sbin/ip", "link", "set", "lo", "up"], check=True)
    if "mount" not in without:
        pivot(cell_root())
    child = os.fork()
    if child == 0:
        try:
            os.dup2(out, 1)
            os.dup2(os.open("/dev/null", os.O_RDWR), 0)
            os.dup2(0, 2)
            os.closerange(3, 100)
            path = "/probe.py" if "mount" in without else "/function/code/probe.py"
            become(without)
            os.execve(PYTHON, [PYTHON, "-I", path, json.dumps(options)], {"PATH": "/usr/bin", "HOME": "/tmp"})
        except BaseException as error:
            os.write(out, json.dumps({"error": repr(error)}).encode())
        os._exit(1)
    os.close(out)
    os.waitpid(child, 0)
    os._exit(0)


def run(without: set[str], options: dict[str, object], groups: list[int]) -> dict[str, object]:
    reader, writer = os.pipe()
    outside = os.fork()
    if outside == 0:
        os.close(reader)
        for group in groups if "cgroup" not in without else []:
            os.write(group, b"0")
        flags = sum(flag for name, flag in NAMESPACES.items() if name not in without)
        flags |= 0 if "cgroup-namespace" in without else CGROUP_NAMESPACE
        check(LIBC.unshare(flags), "unshare")
        if os.fork() == 0:
            function(without, options, writer)
        os.close(writer)
        os.wait()
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        data = file.read()
    os.waitpid(outside, 0)
    lingers = [path.parent.name for path in Path("/proc").glob("[0-9]*/comm") if path.read_text() == "probe35\n"]
    for pid in lingers:
        os.kill(int(pid), signal.SIGKILL)
        os.waitpid(int(pid), 0)  # we are pid 1 here
    probes = json.loads(data) if data else {"error": "nothing was answered"}
    return {"without": sorted(without), "probes": probes, "lingers": bool(lingers)}


def main() -> None:
    asked = json.loads(sys.argv[1])
    made = [cgroups(index) for index in range(len(asked["runs"]))]
    groups = [[os.open(f"{path}/cgroup.procs", os.O_WRONLY) for path in paths] for paths in made]
    paths = [path for paths in made for path in paths]
    folders = [os.open(Path(path).parent, os.O_RDONLY) for path in paths]
    try:
        build_host()
        options: dict[str, object] = {
            "canaries": ["/tmp/canary"],
            "net": [f"{address}:80" for address in STAND_INS],
            "resolver": f"127.0.0.1:{RESOLVER}",
            "abstract": ["witness"],
            "host_port": PORT,
            "ipc_key": KEY,
            "host": {"name": "the-host"},
            "linger": True,
            "files": 6000,
            "tmp_mib": 48,
            "descriptors": 2000,
            "witness": witness(),
        }
        for without, joined in zip(asked["runs"], groups, strict=True):
            print(json.dumps(run(set(without), options, joined)), flush=True)
    finally:
        for folder, path in zip(folders, paths, strict=True):
            for _ in range(50):
                try:
                    os.rmdir(Path(path).name, dir_fd=folder)
                    break
                except OSError:
                    signal.sigtimedwait([signal.SIGUSR1], 0.1)


if __name__ == "__main__":
    main()
