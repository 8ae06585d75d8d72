"""Tries every wall in a process of its own, and prints what failed as JSON: {wall: "" or why not}."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Callable

from septet.drivers.sandbox.process import landlock, seccomp
from septet.drivers.sandbox.process import syscalls as sys_

_NOBODY = 65534
_NAMESPACES = {
    "user namespace": sys_.CLONE_NEWUSER,
    "mount namespace": sys_.CLONE_NEWNS,
    "pid namespace": sys_.CLONE_NEWPID,
    "network namespace": sys_.CLONE_NEWNET,
    "ipc namespace": sys_.CLONE_NEWIPC,
    "uts namespace": sys_.CLONE_NEWUTS,
    "cgroup namespace": sys_.CLONE_NEWCGROUP,
}


def main() -> None:
    results = {name: _in_child(flag, _nothing) for name, flag in _NAMESPACES.items()}
    with tempfile.TemporaryDirectory() as folder:
        results["mounts"] = _in_child(sys_.CLONE_NEWNS | sys_.CLONE_NEWPID, lambda: _mounts(folder))
        results["overlay"] = _in_child(sys_.CLONE_NEWNS, lambda: _overlay(folder))
    results["seccomp"] = _in_child(0, _seccomp)
    results["landlock"] = "" if landlock.available() else "the kernel has none, or it is switched off"
    print(json.dumps(results))


def _in_child(namespaces: int, work: Callable[[], None]) -> str:
    """Runs `work` in a child in new namespaces; the error's text, or nothing."""
    reader, writer = os.pipe()
    mapped, go = os.pipe()
    uid, gid = os.getuid(), os.getgid()
    if uid != 0 and namespaces:
        namespaces |= sys_.CLONE_NEWUSER
    try:
        pid = sys_.fork_into(namespaces)
    except OSError as error:
        for end in (reader, writer, mapped, go):
            os.close(end)
        return str(error.strerror)
    if pid == 0:
        try:
            os.close(go)
            os.read(mapped, 1)  # ends when the parent is through
            if namespaces & sys_.CLONE_NEWUSER and uid != 0:
                _write("self/setgroups", "deny")
                _write("self/uid_map", f"0 {uid} 1")
                _write("self/gid_map", f"0 {gid} 1")
            work()
        except Exception as error:
            os.write(writer, str(error).encode()[:1000] or b"failed")
        os._exit(0)
    os.close(writer)
    os.close(mapped)
    failed = ""
    if namespaces & sys_.CLONE_NEWUSER and uid == 0:
        # As for an instance: root maps another's id, from outside. (Its own would need CAP_SETFCAP.)
        try:
            _write(f"{pid}/uid_map", f"0 {_NOBODY} 1")
            _write(f"{pid}/gid_map", f"0 {_NOBODY} 1")
        except OSError as error:
            failed = str(error)
    os.close(go)
    with open(reader, "rb") as file:
        text = failed or file.read().decode("utf-8", "replace")
    _, status = os.waitpid(pid, 0)
    return text or ("" if status == 0 else f"the trial ended with status {status}")


def _write(name: str, text: str) -> None:
    with open(f"/proc/{name}", "w") as file:
        file.write(text)


def _nothing() -> None:
    pass


def _mounts(folder: str) -> None:
    sys_.mount("none", "/", "", sys_.MS_REC | sys_.MS_PRIVATE)
    sys_.mount("tmpfs", folder, "tmpfs", sys_.MS_NOSUID | sys_.MS_NODEV, "size=65536")
    for name in ("usr", "proc"):
        os.mkdir(f"{folder}/{name}")  # noqa: PTH102
    sys_.bind("/usr", f"{folder}/usr", sys_.ATTR_RDONLY | sys_.ATTR_NOSUID | sys_.ATTR_NODEV)
    sys_.mount("proc", f"{folder}/proc", "proc", sys_.MS_NOSUID | sys_.MS_NODEV | sys_.MS_NOEXEC)
    sys_.pivot_into(folder)


def _overlay(folder: str) -> None:
    sys_.mount("none", "/", "", sys_.MS_REC | sys_.MS_PRIVATE)
    layers = [f"{folder}/lower", f"{folder}/upper"]
    for path in (*layers, f"{folder}/merged"):
        os.makedirs(path, exist_ok=True)  # noqa: PTH103
    sys_.mount("septet", f"{folder}/merged", "overlay", sys_.MS_RDONLY, f"lowerdir={layers[0]}:{layers[1]}")


def _seccomp() -> None:
    seccomp.install(seccomp.program("wide"))
    # A call that the filter refuses and an unfiltered kernel would take (io_uring_setup with bad arguments: EFAULT).
    try:
        os.chroot("/")
    except PermissionError:
        return
    raise OSError(f"the filter for {platform.machine()} does not hold")
