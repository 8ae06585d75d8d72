"""The first process of an instance: builds the walls around itself, starts the function's process, serves the
platform's requests from inside, and takes everything with it when it ends (it is pid 1 of its namespace).

Over its control socket (SOCK_SEQPACKET, JSON, one message a packet):
platform -> init  {"op": "go"}  {"op": "stop"}  {"op": "connect", "n": number}
init -> platform  {"op": "gateway"} with a listening socket
                  {"op": "running"}
                  {"op": "connected", "n": ...} with a socket, or {"op": "refused", "n": ..., "message": ...}
                  {"op": "exit", "status": wait status, "tmp_full": bool}
                  {"op": "failed", "message": ...}  before "running": nothing will run
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import socket
import struct
from typing import NoReturn

from septet.drivers.sandbox.process import mounts
from septet.drivers.sandbox.process import syscalls as sys_
from septet.drivers.sandbox.process.process import start
from septet.drivers.sandbox.process.spec import Spec, decode

SANDBOX_ID = 1000
_HOST_NAME = "septet"
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1


def write(path: str, text: str) -> None:
    """One write(2), as the kernel's own files want it."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def main(descriptors: list[int], sync: int, program: bytes) -> NoReturn:
    """Runs in the cloned child and never returns. `descriptors`: spec, control, stdout, stderr, link."""
    spec_file, control_file, *streams = descriptors
    code = 70
    try:
        control = socket.socket(fileno=control_file)
        sys_.close_all_but([0, *descriptors, sync])
        with open(spec_file, "rb") as file:
            spec = decode(file.read())
        try:
            _prepare(spec, control, sync)
            child = start(spec, streams, program)
        except Exception as error:
            _say(control, op="failed", message=str(error)[:4000] or type(error).__name__)
            os._exit(code)
        walls, port = spec.walls, spec.port
        del spec  # it may hold secrets, and this process lives on
        for descriptor in streams:
            os.close(descriptor)
        _say(control, op="running")
        code = Init(control, child, walls, port).run()
    except BaseException:  # noqa: S110 - the control socket is gone, so nobody is left to tell
        pass
    os._exit(code)


def _say(control: socket.socket, descriptors: tuple[int, ...] = (), **message: object) -> None:
    socket.send_fds(control, [json.dumps(message).encode()], list(descriptors))


def _prepare(spec: Spec, control: socket.socket, sync: int) -> None:
    if spec.walls:
        os.umask(0o022)  # not the platform's: what is made for mounts is for the function's uid
        sys_.prctl(sys_.PR_SET_PDEATHSIG, signal.SIGKILL)
    if spec.walls and spec.rootless:
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"{SANDBOX_ID} {spec.uid} 1")
        write("/proc/self/gid_map", f"{SANDBOX_ID} {spec.gid} 1")
    for path in spec.cgroups:
        write(path, "0")
    if not spec.walls:
        sys_.prctl(sys_.PR_SET_CHILD_SUBREAPER, 1)
        _listen(spec, control)
        return
    sys_.unshare(sys_.CLONE_NEWCGROUP)
    socket.sethostname(_HOST_NAME)
    _loopback_up()
    mounts.enter(spec)
    _listen(spec, control)
    # The platform's tools have to enter our namespaces, which they no longer can once we are closed up.
    _await_go(spec, control)
    if not spec.rootless:
        _leave_root(sync)
    _drop()


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as lo:
        fcntl.ioctl(lo, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def _listen(spec: Spec, control: socket.socket) -> None:
    """The inner gateway's socket is made inside, and served by the platform: whoever connects is this instance."""
    if not spec.gateway:
        return
    with socket.create_server(("127.0.0.1", spec.gateway), backlog=128) as listener:
        _say(control, (listener.fileno(),), op="gateway")


def _leave_root(sync: int) -> None:
    """Into a user namespace of our own, where the launcher maps us to an id that nobody else on the host has.

    The mount and network namespaces stay owned by the outer one, so no right regained in here reaches them.
    """
    os.setgroups([])
    sys_.unshare(sys_.CLONE_NEWUSER)
    with socket.socket(fileno=sync) as launcher:
        launcher.send(b"u")
        if not launcher.recv(1):
            raise OSError(errno.EPERM, "the launcher could not map the user")
    os.setresgid(SANDBOX_ID, SANDBOX_ID, SANDBOX_ID)
    sys_.drop_bounding_set()
    os.setresuid(SANDBOX_ID, SANDBOX_ID, SANDBOX_ID)


def _drop() -> None:
    with contextlib.suppress(PermissionError):  # root's was dropped while it was root
        sys_.drop_bounding_set()
    sys_.prctl(sys_.PR_SET_NO_NEW_PRIVS, 1)
    sys_.drop_capabilities()
    # The function has our uid: it must not read our memory, where its spec was, nor trace us.
    sys_.prctl(sys_.PR_SET_DUMPABLE, 0)
    # The kernel forgets it when credentials change.
    sys_.prctl(sys_.PR_SET_PDEATHSIG, signal.SIGKILL)


def _await_go(spec: Spec, control: socket.socket) -> None:
    if not spec.wait:
        return
    data = control.recv(4096)
    if not data or json.loads(data)["op"] != "go":
        raise OSError(errno.ECANCELED, "it was stopped before it was started")


class Init:
    """What the first process does while the function runs."""

    def __init__(self, control: socket.socket, child: int, walls: bool, port: int) -> None:
        self._control = control
        self._child = child
        self._walls = walls
        self._port = port
        self._poller = select.poll()
        self._opening: dict[int, tuple[socket.socket, int, bool]] = {}
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def run(self) -> int:
        """Until the function's process ends or the platform closes the control socket; returns the exit code."""
        self._poller.register(self._control, select.POLLIN)
        self._poller.register(self._wake, select.POLLIN)
        while True:
            if (status := self._reap()) is not None:
                self._end()
                _say(self._control, op="exit", status=status, tmp_full=self._tmp_full())
                return 0
            for descriptor, _ in self._poller.poll():
                if descriptor == self._wake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake, 4096)
                elif descriptor in self._opening:
                    self._opened(descriptor)
                elif not self._command():
                    self._end()
                    return 0

    def _reap(self) -> int | None:
        found = None
        with contextlib.suppress(ChildProcessError):
            while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
                if reaped[0] == self._child:
                    found = reaped[1]
        return found

    def _end(self) -> None:
        """With a pid namespace the kernel ends the rest; without one, whoever is left has become our child."""
        if self._walls:
            return
        children = f"/proc/self/task/{os.getpid()}/children"
        with contextlib.suppress(ChildProcessError):
            while True:
                with open(children) as file:
                    for pid in file.read().split():
                        os.kill(int(pid), signal.SIGKILL)
                os.waitpid(-1, 0)

    def _tmp_full(self) -> bool:
        if not self._walls:
            return False
        space = os.statvfs("/tmp")  # noqa: S108
        return space.f_bavail == 0 or space.f_favail == 0

    def _command(self) -> bool:
        data = self._control.recv(4096)
        if not data:
            return False
        message = json.loads(data)
        if message["op"] == "stop":
            os.kill(self._child, signal.SIGTERM)
        elif message["op"] == "connect":
            self._connect(message["n"], False)
        return True

    def _connect(self, number: int, six: bool) -> None:
        sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        error = sock.connect_ex(("::1" if six else "127.0.0.1", self._port))
        if error == errno.EINPROGRESS:
            self._opening[sock.fileno()] = (sock, number, six)
            self._poller.register(sock, select.POLLOUT)
        else:
            self._answer(sock, number, six, error)

    def _opened(self, descriptor: int) -> None:
        sock, number, six = self._opening.pop(descriptor)
        self._poller.unregister(sock)
        self._answer(sock, number, six, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _answer(self, sock: socket.socket, number: int, six: bool, error: int) -> None:
        with sock:
            if not error:
                _say(self._control, (sock.fileno(),), op="connected", n=number)
                return
        if six:
            _say(self._control, op="refused", n=number, message=os.strerror(error))
        else:
            self._connect(number, True)  # a server that listens on localhost's other address only
