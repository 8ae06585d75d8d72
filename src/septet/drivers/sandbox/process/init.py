"""The first process of an instance: builds the walls around itself, starts the function's process, serves the
platform's requests from inside, and takes everything with it when it ends (it is pid 1 of its namespace).

Over its control socket (SOCK_SEQPACKET, JSON, one message a packet):
platform -> init  {"op": "be"} with descriptors [spec, stdout, stderr, link], to one that said "waiting"
                  `spec.encode_function` to one that said "parked" (`park.py`), no JSON, or, where that is long,
                  {"op": "read"} with a descriptor that holds it
                  {"op": "go"}  {"op": "stop"}  {"op": "connect", "n": number}
init -> platform  {"op": "waiting"}  one of the pool stands behind its walls
                  {"op": "parked"}  its interpreter runs, and waits for a function
                  {"op": "gateway"} with a listening socket
                  {"op": "running"}
                  {"op": "connected", "n": ...} with a socket, or {"op": "refused", "n": ..., "message": ...}
                  {"op": "exit", "status": wait status, "tmp_full": bool}
                  {"op": "failed", "message": ...}  before "running": nothing will run
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
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

from septet.drivers.sandbox.process import keeper, mounts, park, rights
from septet.drivers.sandbox.process import syscalls as sys_
from septet.drivers.sandbox.process.process import Function, start
from septet.drivers.sandbox.process.spec import Mount, Spec, decode, read

_HOST_NAME = "septet"
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_BACKLOG = 128


def write(path: str, text: str) -> None:
    """One write(2), as the kernel's own files want it."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def main(descriptors: list[int], sync: int, program: bytes) -> NoReturn:
    """Runs in the cloned child and never returns. `descriptors`: spec, control, stdout, stderr, link.

    In the process of a function that is not exec'ed it raises `Function`.
    """
    spec_file, control_file, *streams = descriptors
    code = 70
    try:
        # The class behind `socket`: that looks its kind up, and makes members of enumerations of it.
        control = _socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, control_file)
        sys_.close_all_but([0, *descriptors, sync])
        spec = decode(read(spec_file))
        try:
            spec = _prepare(spec, control, sync, streams)
            if spec.keeps:
                os.close(sync)
                keeper.Keeper(socket.socket(fileno=control.detach()), program).run()
                os._exit(0)
            if spec.parked:
                spec, child = park.wait(spec, control, streams, sync, program, _listen)
            else:
                child = start(spec, streams, program)
        except Exception as error:
            _say(control, op="failed", message=str(error)[:4000] or type(error).__name__)
            os._exit(code)
        # They may hold secrets, and this process lives on.
        spec.files.clear()
        spec.env.clear()
        for descriptor in streams:
            os.close(descriptor)
        control.send(b'{"op":"running"}')
        code = Init(control, child, spec.walls, spec.port).run()
    except Function:
        control.detach()
        raise
    except BaseException:  # noqa: S110 - the control socket is gone, so nobody is left to tell
        pass
    os._exit(code)


def _say(control: _socket.socket, **message: object) -> None:
    control.send(json.dumps(message).encode())


def _hand_over(control: _socket.socket, descriptor: int, message: bytes) -> None:
    control.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))])


def _prepare(spec: Spec, control: _socket.socket, sync: int, streams: list[int]) -> Spec:
    """Until nothing but the function's process is missing; returns the function's spec."""
    if spec.walls:
        os.umask(0o022)  # not the platform's: what is made for mounts is for the function's uid
        sys_.prctl(sys_.PR_SET_PDEATHSIG, signal.SIGKILL)
    if spec.walls and spec.rootless:
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"{rights.SANDBOX_ID} {spec.uid} 1")
        write("/proc/self/gid_map", f"{rights.SANDBOX_ID} {spec.gid} 1")
    for path in spec.cgroups:
        write(path, "0")
    if not spec.walls:
        sys_.prctl(sys_.PR_SET_CHILD_SUBREAPER, 1)
        _listen(spec, control)
        return spec
    sys_.unshare(sys_.CLONE_NEWCGROUP)
    socket.sethostname(_HOST_NAME)
    _loopback_up()
    mounts.build(spec)
    if spec.keeps:
        mounts.keep(spec)
        _listen(spec, control)
        return spec
    own: list[Mount] = []
    if spec.pooled:
        generic, spec = spec, _await_function(control, streams)
        own = spec.mounts[len(generic.mounts) :]
    mounts.enter(spec, own)
    if spec.parked:
        # The function's process, which has our uid in the end, must never trace us or read our memory.
        sys_.prctl(sys_.PR_SET_DUMPABLE, 0)
        sys_.drop_bounding_set()
        return spec
    _listen(spec, control)
    # The platform's tools have to enter our namespaces, which they no longer can once we are closed up.
    _await_go(spec, control)
    if not spec.rootless:
        rights.leave_root(sync)
    rights.drop()
    return spec


def _await_function(control: _socket.socket, streams: list[int]) -> Spec:
    """For one of the pool: its function's spec, with the descriptors of its streams."""
    _say(control, op="waiting")
    data, descriptors = sys_.receive(control, 4096, 4)
    if not data or json.loads(data)["op"] != "be":
        raise OSError(errno.ECANCELED, "no function came")
    spec_file, *streams[:] = descriptors
    return decode(read(spec_file))


def _loopback_up() -> None:
    lo = _socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    fcntl.ioctl(lo.fileno(), _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
    lo.close()


def _listen(spec: Spec, control: _socket.socket) -> None:
    """The inner gateway's socket is made inside, and served by the platform: whoever connects is this instance."""
    if not spec.gateway:
        return
    listener = _socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", spec.gateway))
    listener.listen(_BACKLOG)
    _hand_over(control, listener.fileno(), b'{"op":"gateway"}')
    listener.close()


def _await_go(spec: Spec, control: _socket.socket) -> None:
    if not spec.wait:
        return
    data = control.recv(4096)
    if not data or json.loads(data)["op"] != "go":
        raise OSError(errno.ECANCELED, "it was stopped before it was started")


def _nothing(number: int, frame: object) -> None:
    """A signal that wakes, and no more."""


class Init:
    """What the first process does while the function runs."""

    def __init__(self, control: _socket.socket, child: int, walls: bool, port: int) -> None:
        self._control = control
        self._child = child
        self._walls = walls
        self._port = port
        self._poller = select.poll()
        self._opening: dict[int, tuple[socket.socket, int, bool]] = {}
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        _signal.signal(_signal.SIGCHLD, _nothing)
        _signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

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
                _hand_over(self._control, sock.fileno(), json.dumps({"op": "connected", "n": number}).encode())
                return
        if six:
            _say(self._control, op="refused", n=number, message=os.strerror(error))
        else:
            self._connect(number, True)  # a server that listens on localhost's other address only
