"""The first process of a namespace set: it starts one tenant's instances, and sees each to its end alone.

All of them live in its network, pid and host-name namespaces; each has a user namespace with a uid of its own, ipc, a
mount namespace with its own tree, secrets and scratch space, and its own control groups. The keeper runs our code
alone and keeps root's rights; what it forks gives them up before a word of the tenant's is read.

It speaks as the launcher does (`launcher.py`), with {"op": "gateway"} and a listening socket before all else. To each
instance's own control socket it is what a first process is (`init.py`): "stop" comes in, "running", "failed" and
"exit" go out.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import struct
from typing import Any

from septet.drivers.sandbox.process import mounts, rights
from septet.drivers.sandbox.process import syscalls as sys_
from septet.drivers.sandbox.process.process import become
from septet.drivers.sandbox.process.spec import decode

_PACKET = 65536
_NESTED = "function"
"""The group below an instance's own one that freezing makes (`freeze.py`)."""
_CREDENTIALS = struct.Struct("iII")
_LOOKS = 40
"""Looks after which nobody waits any more for how a fork ended."""
_LOOK = 50
"""Milliseconds between looks at a group that is being emptied; each death in it wakes the keeper as well."""


class _Entry:
    """One instance: its first function process, and what is known of its end."""

    def __init__(self, id: str, uid: int, gid: int, control: socket.socket) -> None:
        self.id = id
        self.uid = uid
        self.gid = gid
        self.control = control
        self.pid = 0
        self.sync: socket.socket | None = None
        self.tmp = -1
        self.failure = ""
        self.status: int | None = None
        self.ahead: socket.socket | None = None
        """A function's zygote hears of us here."""
        self.source: _Entry | None = None
        """The function's zygote that this is a fork of."""
        self.ended = -1
        """Readable when a fork's process has ended."""
        self.looks = 0
        self.closed = False


class Keeper:
    """`program` is the filter of the runtime's family."""

    def __init__(self, control: socket.socket, program: bytes) -> None:
        self._control = control
        self._program = program
        self._groups = 0
        self._poller = select.poll()
        self._entries: dict[str, _Entry] = {}
        self._by_pid: dict[int, _Entry] = {}
        self._by_descriptor: dict[int, _Entry] = {}
        self._ending: dict[str, _Entry] = {}
        self._unreaped: dict[str, _Entry] = {}
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def run(self) -> None:
        """Until the platform closes its end; our own end is then everybody's."""
        self._poller.register(self._control, select.POLLIN)
        self._poller.register(self._wake, select.POLLIN)
        while True:
            for descriptor, _ in self._poller.poll(_LOOK if self._ending or self._unreaped else None):
                if descriptor == self._wake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake, 4096)
                elif descriptor == self._control.fileno():
                    if not self._command():
                        return
                elif (entry := self._by_descriptor.get(descriptor)) is not None:
                    self._heard(entry, descriptor)
            self._reap()

    def _say(self, **message: object) -> None:
        self._control.send(json.dumps(message).encode())

    # -- start ------------------------------------------------------------------------------------------------

    def _command(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._control, _PACKET, 8, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return False
        message: dict[str, Any] = json.loads(data)
        if message["op"] == "kill":
            if (entry := self._entries.get(message["id"])) is not None:
                self._kill(entry)
            return True
        if message["op"] == "fork":
            self._fork(message, descriptors)
        else:
            self._launch(message, descriptors)
        return True

    def _launch(self, message: dict[str, Any], descriptors: list[int]) -> None:
        """Closes the descriptors; nothing that does so may stand in the way of a function, which leaves by raising."""
        spec_file, control, *streams = descriptors
        entry = _Entry(message["id"], message["uid"], message["gid"], socket.socket(fileno=control))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if message["ahead"]:
            entry.ahead, link = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            entry.ahead.setblocking(False)
            streams.append(link.detach())
        try:
            entry.pid = sys_.fork_into(sys_.CLONE_NEWNS | sys_.CLONE_NEWIPC)
        except OSError as error:
            self._say(op="refused", id=entry.id, message=str(error))
            entry.control.close()
            ours.close()
            theirs.close()
        else:
            if entry.pid == 0:
                self._let_go(entry, ours)
                self._start(spec_file, streams, theirs.detach())
            theirs.close()
            entry.sync = ours
            self._entries[entry.id] = self._by_pid[entry.pid] = entry
            self._watch(entry)
            self._say(op="started", id=entry.id, pid=0)
        for descriptor in (spec_file, *streams):
            os.close(descriptor)

    def _watch(self, entry: _Entry) -> None:
        for sock in (entry.sync, entry.control, entry.ahead):
            if sock is not None:
                self._by_descriptor[sock.fileno()] = entry
                self._poller.register(sock, select.POLLIN)

    def _fork(self, message: dict[str, Any], descriptors: list[int]) -> None:
        """Asks a function's zygote for an instance, which comes to its gate by itself. Closes the descriptors."""
        control, *streams = descriptors
        entry = _Entry(message["id"], 0, 0, socket.socket(fileno=control))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Before it can write: only what is sent from then on says who sent it.
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        entry.source = self._entries.get(message["from"])
        try:
            if entry.source is None or entry.source.ahead is None:
                raise OSError(errno.ESRCH, "the function's zygote has just ended")
            for number, limits in enumerate(message["limits"]):
                group(f"{mounts.SHELF}/{number}/{entry.id}", limits)
            order = json.dumps({"op": "fork", "id": entry.id, "env": message["env"]}).encode()
            socket.send_fds(entry.source.ahead, [order], [*streams, theirs.fileno()])
        except OSError as error:
            self._say(op="refused", id=entry.id, message=str(error))
            entry.control.close()
            ours.close()
        else:
            entry.sync = ours
            self._groups = len(message["limits"])
            self._entries[entry.id] = entry
            self._watch(entry)
            self._say(op="started", id=entry.id, pid=0)
        theirs.close()
        for descriptor in streams:
            os.close(descriptor)

    def _let_go(self, entry: _Entry, sync: socket.socket) -> None:
        """In the child: no descriptor is held by an object, whose end would close whatever has its number by then."""
        for other in (entry, *self._entries.values()):
            for held in (other.control, other.sync, other.ahead):
                if held is not None:
                    held.detach()
        for held in (self._control, sync):
            held.detach()
        for known in (self._entries, self._by_pid, self._by_descriptor, self._ending, self._unreaped):
            known.clear()

    def _start(self, spec_file: int, streams: list[int], sync: int) -> None:
        """In the child, which never returns: it raises `Function`, or execs, or ends."""
        step = "read its spec"
        try:
            with open(spec_file, "rb", closefd=False) as file:
                spec = decode(file.read())
            step = "make its control groups"
            for number, limits in enumerate(spec.limits):
                group(f"{mounts.SHELF}/{number}/{spec.id}", limits)
                write(f"{mounts.SHELF}/{number}/{spec.id}/cgroup.procs", "0")
            sys_.unshare(sys_.CLONE_NEWCGROUP)
            step = "mount what is its own"
            mounts.settle(spec)
            step = "give up its rights"
            rights.leave_root(os.dup(sync))
            rights.drop()
            _tell_tmp(sync)
        except BaseException as error:
            os.write(sync, f"cannot {step}: {error}".encode()[:4000])
            os._exit(71)
        become(spec, streams, self._program, sync, None)

    def _heard(self, entry: _Entry, descriptor: int) -> None:
        if entry.ahead is not None and descriptor == entry.ahead.fileno():
            self._told(entry, entry.ahead)
            return
        if descriptor == entry.ended:
            self._died(entry)
            return
        if entry.sync is None or descriptor != entry.sync.fileno():
            self._asked(entry)
            return
        if entry.source is not None and not entry.pid:
            self._arrived(entry, entry.sync)
            return
        try:
            data, descriptors, _, _ = socket.recv_fds(entry.sync, 4096, 1, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            data, descriptors = b"", []
        if data == b"u" and entry.source is None:
            self._map(entry)
        elif data == b"t" and descriptors and entry.source is None and entry.tmp < 0:
            entry.tmp = descriptors.pop()
        elif data:
            entry.failure = data.decode("utf-8", "replace")
        else:
            self._forget(entry.sync)
            entry.sync = None
            if entry.failure:
                self._answer(entry, op="failed", message=entry.failure)
            elif entry.status is None and entry.ahead is None:
                self._answer(entry, op="running")
        for descriptor in descriptors:
            os.close(descriptor)

    def _map(self, entry: _Entry) -> None:
        """It stands in its new user namespace: only a privileged process outside may map its id."""
        assert entry.sync is not None
        # It may be dead already; alive, it sees that no answer comes when we close.
        with contextlib.suppress(OSError):
            write(f"/proc/{entry.pid}/uid_map", f"{rights.SANDBOX_ID} {entry.uid} 1")
            write(f"/proc/{entry.pid}/gid_map", f"{rights.SANDBOX_ID} {entry.gid} 1")
            entry.sync.send(b"k")

    # -- a function's zygote and its forks --------------------------------------------------------------------

    def _told(self, zygote: _Entry, sock: socket.socket) -> None:
        """It runs a tenant's code: what it says is believed of its own instances alone."""
        try:
            data = sock.recv(_PACKET)
            message = json.loads(data) if data else {"op": ""}
            operation = message["op"]
            if operation == "able":
                self._answer(zygote, op="running")
            elif operation == "unable":
                self._answer(zygote, op="failed", message=f"no zygote of this function: {str(message['why'])[:2000]}")
                self._kill(zygote)
            elif operation == "ended":
                entry = self._by_pid.get(int(message["pid"]))
                if entry is not None and entry.source is zygote and entry.id in self._unreaped:
                    status = int(message["status"]) & 0xFFFF
                    self._ends(entry, status if os.WIFEXITED(status) or os.WIFSIGNALED(status) else signal.SIGKILL)
        except BlockingIOError:
            return
        except (OSError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError):
            data = b""
        if not data:
            self._forget(sock)
            zygote.ahead = None
            self._kill(zygote)

    def _arrived(self, entry: _Entry, sync: socket.socket) -> None:
        """A fork stands at its gate: the kernel says which process it is."""
        try:
            data, credentials, _, _ = sync.recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size))
        except OSError:
            data, credentials = b"", []
        kernel = (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
        pid = next((_CREDENTIALS.unpack(item)[0] for *kind, item in credentials if tuple(kind) == kernel), 0)
        try:
            if data != b"u" or pid <= 1 or pid in self._by_pid:
                raise OSError(errno.ESRCH, "the function's zygote did not fork")
            entry.ended = os.pidfd_open(pid)
            entry.pid = pid
            self._by_pid[pid] = self._by_descriptor[entry.ended] = entry
            self._poller.register(entry.ended, select.POLLIN)
            for number in range(self._groups):
                write(f"{mounts.SHELF}/{number}/{entry.id}/cgroup.procs", str(pid))
            sync.send(b"k")
        except OSError as error:
            entry.failure = str(error)
            self._answer(entry, op="failed", message=entry.failure)
            self._kill(entry)

    def _died(self, entry: _Entry) -> None:
        """Whose child it was knows how: the zygote, or we when that is gone."""
        self._poller.unregister(entry.ended)
        del self._by_descriptor[entry.ended]
        os.close(entry.ended)
        entry.ended = -1
        if entry.status is None:
            self._unreaped[entry.id] = entry
            source = entry.source
            if source is not None and source.ahead is not None:
                with contextlib.suppress(OSError):
                    source.ahead.send(json.dumps({"op": "reap", "pid": entry.pid, "id": entry.id}).encode())

    def _ends(self, entry: _Entry, status: int) -> None:
        entry.status = status
        self._by_pid.pop(entry.pid, None)
        self._unreaped.pop(entry.id, None)
        self._ending[entry.id] = entry

    def _kill(self, entry: _Entry) -> None:
        if entry.status is not None:
            return
        if entry.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(entry.pid, signal.SIGKILL)
            return
        # A fork that never came: at the closed gate it ends by itself.
        if entry.sync is not None:
            self._forget(entry.sync)
            entry.sync = None
        self._ends(entry, signal.SIGKILL)

    def _asked(self, entry: _Entry) -> None:
        """The platform speaks to the instance."""
        try:
            data = entry.control.recv(4096)
        except OSError:
            data = b""
        if not data:
            self._poller.unregister(entry.control)
            entry.closed = True
        if not data or not entry.pid:
            self._kill(entry)
        elif entry.status is None and json.loads(data)["op"] == "stop":
            with contextlib.suppress(ProcessLookupError):
                os.kill(entry.pid, signal.SIGTERM)

    def _answer(self, entry: _Entry, **message: object) -> None:
        with contextlib.suppress(OSError):
            entry.control.send(json.dumps(message).encode())

    def _forget(self, sock: socket.socket) -> None:
        self._by_descriptor.pop(sock.fileno(), None)
        with contextlib.suppress(KeyError):
            self._poller.unregister(sock)
        sock.close()

    # -- end --------------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
                if (entry := self._by_pid.get(reaped[0])) is not None:
                    self._ends(entry, reaped[1])
        for entry in list(self._unreaped.values()):
            entry.looks += 1
            if entry.looks > _LOOKS:
                self._ends(entry, signal.SIGKILL)  # its zygote does not tell
        for entry in list(self._ending.values()):
            left = self._left(entry)
            if left:
                self._end(entry, left)
            else:
                self._gone(entry)

    def _left(self, entry: _Entry) -> list[int]:
        """Processes that are still in its group."""
        found: list[int] = []
        for name in (entry.id, f"{entry.id}/{_NESTED}"):
            with contextlib.suppress(OSError), open(f"{mounts.SHELF}/0/{name}/cgroup.procs") as file:
                found += [int(word) for word in file.read().split()]
        return [pid for pid in found if pid > 0]

    def _end(self, entry: _Entry, left: list[int]) -> None:
        """Its first process has ended, so the others have to: no more are made, and those that are there die."""
        with contextlib.suppress(OSError):
            write(f"{mounts.SHELF}/0/{entry.id}/pids.max", "0")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _gone(self, entry: _Entry) -> None:
        while entry.sync is not None and entry.source is None:
            self._heard(entry, entry.sync.fileno())  # what it said last, up to its end
        if entry.sync is not None:
            self._forget(entry.sync)  # its zygote may hold the other end for ever
        full = False
        if entry.tmp >= 0:
            space = os.fstatvfs(entry.tmp)
            full = space.f_bavail == 0 or space.f_favail == 0
            os.close(entry.tmp)
        self._answer(entry, op="exit", status=entry.status, tmp_full=full)
        for sock in (entry.control, entry.ahead):
            if sock is not None:
                self._forget(sock)
        entry.ahead = None
        if entry.ended >= 0:
            self._died(entry)
        del self._ending[entry.id], self._entries[entry.id]
        self._say(op="gone", id=entry.id, status=entry.status)


def group(folder: str, limits: dict[str, str]) -> None:
    """Makes a control group."""
    os.mkdir(folder)  # noqa: PTH102
    for name, value in limits.items():
        # Swap accounting, and killing a group as one, are not in every kernel.
        with contextlib.suppress(FileNotFoundError):
            write(f"{folder}/{name}", value)


def _tell_tmp(sync: int) -> None:
    """The scratch space is to be looked at when all who could are dead."""
    folder = os.open("/tmp", os.O_PATH | os.O_CLOEXEC)  # noqa: S108
    told = socket.socket(fileno=sync)
    socket.send_fds(told, [b"t"], [folder])
    told.detach()
    os.close(folder)


def write(path: str, text: str) -> None:
    """One write(2), as the kernel's own files want it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
