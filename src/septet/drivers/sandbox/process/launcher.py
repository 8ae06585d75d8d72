"""A small single-threaded process that clones the first process of every instance.

It exists because a big process with threads cannot clone safely, and because its death is every instance's death.
It reads headers only; the spec, which may hold secrets, passes through as a descriptor.

Over a SOCK_SEQPACKET socket (descriptor 3): one JSON message a packet.
platform -> launcher  {"op": "launch", ...Header} with descriptors [spec, control, stdout, stderr, link]
                      {"op": "kill", "id": ...}
launcher -> platform  {"op": "ready"}                             a zygote alone: all is imported
                      {"op": "started", "id": ..., "pid": ...}
                      {"op": "gone", "id": ..., "status": wait status}  no process of the instance is left
                      {"op": "refused", "id": ..., "message": ...}      nothing was started
"""

from __future__ import annotations

import _socket
import contextlib
import gc
import json
import os
import select
import signal
import socket
import struct
from typing import Any

from septet.drivers.sandbox.process import init, landlock, mounts, process, rights, seccomp
from septet.drivers.sandbox.process import syscalls as sys_
from septet.drivers.sandbox.process.process import Function
from septet.drivers.sandbox.process.spec import Header

CONTROL = 3
_PACKET = 65536
_CREDENTIALS = struct.Struct("iII")
_NAMESPACES = (
    sys_.CLONE_NEWNS | sys_.CLONE_NEWPID | sys_.CLONE_NEWNET | sys_.CLONE_NEWIPC | sys_.CLONE_NEWUTS
)  # the cgroup namespace comes when the child stands in its cgroup, root's user namespace after the mounts


class Launcher:
    def __init__(self, platform: socket.socket) -> None:
        self._platform = platform
        self._poller = select.poll()
        self._ids: dict[int, str] = {}
        self._pids: dict[str, int] = {}
        # One without walls is not killed but ends by itself when the platform's socket closes: it has to end others.
        self._walled: set[int] = set()
        self._unmapped: dict[int, tuple[_socket.socket, int, Header]] = {}
        self._filters: dict[str, bytes] = {}
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        # Looked up once: every page that a forked process touches is one more to be copied.
        process.handled = process.handled_signals()
        landlock.available()

    def run(self) -> None:
        """Until the platform closes its end; then every instance is killed."""
        self._poller.register(self._platform, select.POLLIN)
        self._poller.register(self._wake, select.POLLIN)
        while True:
            for descriptor, _ in self._poller.poll():
                if descriptor == self._wake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake, 4096)
                elif descriptor != self._platform.fileno():
                    self._map(descriptor)
                elif not self._command():
                    for pid in self._walled:
                        os.kill(pid, signal.SIGKILL)
                    return
            self._reap()

    def _say(self, **message: object) -> None:
        self._platform.send(json.dumps(message).encode())

    def _command(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._platform, _PACKET, 8, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return False
        message: dict[str, Any] = json.loads(data)
        operation = message.pop("op")
        if operation == "kill":
            pid = self._pids.get(message["id"])
            if pid in self._walled:
                os.kill(pid, signal.SIGKILL)
            return True
        header = Header(**message)
        try:
            self._launch(header, descriptors)
        except Function:
            descriptors.clear()
            raise
        except (OSError, ValueError) as error:
            self._say(op="refused", id=header.id, message=str(error))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _launch(self, header: Header, descriptors: list[int]) -> None:
        program = self._filter(header.family) if header.walls else b""
        ours, theirs = _socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        # Before the child can write: only what is sent from then on says who sent it.
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        flags = 0
        if header.walls:
            flags = _NAMESPACES | (sys_.CLONE_NEWUSER if header.rootless else 0)
        try:
            pid = sys_.fork_into(flags)
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            self._let_go(ours)
            init.main(descriptors, theirs.detach(), program)
        theirs.close()
        self._ids[pid] = header.id
        self._pids[header.id] = pid
        if header.walls:
            self._walled.add(pid)
        if header.walls and not header.rootless:
            self._unmapped[ours.fileno()] = (ours, pid, header)
            self._poller.register(ours, select.POLLIN)
        else:
            ours.close()
        self._say(op="started", id=header.id, pid=pid)

    def _let_go(self, sync: _socket.socket) -> None:
        """In the child: no descriptor is held by an object, whose end would close whatever has its number by then."""
        for held in (self._platform, sync, *(waiting[0] for waiting in self._unmapped.values())):
            held.detach()
        self._ids.clear()
        self._pids.clear()
        self._unmapped.clear()

    def prepare(self, family: str) -> None:
        """Compiles a filter ahead of time."""
        self._filter(family)

    def ready(self) -> None:
        self._say(op="ready")

    def _filter(self, family: str) -> bytes:
        if family not in self._filters:
            self._filters[family] = seccomp.program(family)
        return self._filters[family]

    def _map(self, descriptor: int) -> None:
        """The child stands in its new user namespace: only a privileged process outside may map its id."""
        sync, pid, header = self._unmapped.pop(descriptor)
        self._poller.unregister(sync)
        try:
            data, credentials, _, _ = sync.recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size))
            if not data:
                return
            # The first process asks for itself, or, of a parked instance, the function's for itself.
            pid = next((_CREDENTIALS.unpack(item)[0] for *_, item in credentials), pid)
            init.write(f"/proc/{pid}/uid_map", f"{rights.SANDBOX_ID} {header.uid} 1")
            init.write(f"/proc/{pid}/gid_map", f"{rights.SANDBOX_ID} {header.gid} 1")
            sync.send(b"k")
        except OSError:
            # The child may be dead already; alive, it sees the end of this socket and says so.
            return
        finally:
            sync.close()

    def _reap(self) -> None:
        while self._ids:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if (instance := self._ids.pop(pid, None)) is not None:
                del self._pids[instance]
                self._walled.discard(pid)
                self._say(op="gone", id=instance, status=status)


def serve(family: str, stage: tuple[str, list[str], list[str]] | None = None) -> Function | None:
    """As `main`, in a zygote; returns only in the process of a function, with what to run there."""
    platform = socket.socket(fileno=CONTROL)
    sys_.prctl(sys_.PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    launcher = Launcher(platform)
    launcher.prepare(family)
    if stage is not None:
        mounts.stage(*stage)
    gc.collect()
    gc.freeze()
    try:
        launcher.ready()
        launcher.run()
    except Function as function:
        return Function(function.command, function.env)
    except (BrokenPipeError, ConnectionResetError):
        pass
    os._exit(0)


def main() -> None:
    platform = socket.socket(fileno=CONTROL)
    sys_.prctl(sys_.PR_SET_PDEATHSIG, signal.SIGKILL)
    # A signal at the terminal is for the platform, which ends us in its own time.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        Launcher(platform).run()
