"""A parked instance: walls built and interpreter started before it is known whose function it will run.

Until it is told, nothing but our own code has run in it. The function's process has given up its rights before its
interpreter starts; the first process keeps its own a while longer, to mount the function's tree and its secrets,
and gives them up before it says a word to the interpreter. That waits on descriptor 4 for
`working directory NUL (name=value NUL)*`, up to the end of the stream (docs/add-a-runtime.md).
"""

from __future__ import annotations

import _socket
import errno
import os
import resource
import select
from collections.abc import Callable

from septet.drivers.sandbox.process import mounts, process, rights
from septet.drivers.sandbox.process import syscalls as sys_
from septet.drivers.sandbox.process.spec import PACKET, Spec, decode_function, is_function, read

PARK = 4
VARIABLE = "SEPTET_PARK_FD"


def wait(
    parked: Spec,
    control: _socket.socket,
    streams: list[int],
    sync: int,
    program: bytes,
    listen: Callable[[Spec, _socket.socket], None],
) -> tuple[Spec, int]:
    """Starts the interpreter, waits, and makes the instance the function's; returns its spec and the process's pid.

    Ends this process, with the instance, when the platform lets go of it.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = process.start(parked, [*streams, reader], program, sync)
    os.close(reader)
    os.close(sync)
    listen(parked, control)
    control.send(b'{"op":"parked"}')
    spec = _told(control, child, parked)
    mounts.furnish(spec, parked)
    if spec.gateway != parked.gateway:
        listen(spec, control)
    for name, value in spec.rlimits.items():
        if name == "RLIMIT_NPROC":
            resource.prlimit(child, resource.RLIMIT_NPROC, (value, value))
    if not parked.rootless:
        rights.become(parked.uid, parked.gid)
    rights.drop(bounding=False)
    words = [spec.working_directory or "/", *(f"{name}={value}" for name, value in spec.env.items())]
    data = memoryview(b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in words))
    while data:
        data = data[os.write(writer, data) :]
    os.close(writer)
    return spec, child


def _told(control: _socket.socket, child: int, parked: Spec) -> Spec:
    """Waits for the spec; ends when nobody will send one, or when there is no process that could take it."""
    descriptor = os.pidfd_open(child)
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    poller.register(control, select.POLLIN)
    ready = [number for number, _ in poller.poll()]
    os.close(descriptor)
    if descriptor in ready:
        raise OSError(errno.ESRCH, "the interpreter ended while it waited for a function")
    data, descriptors = sys_.receive(control, PACKET, 1)
    if not data:
        os._exit(0)
    if descriptors:
        data = read(descriptors[0])
    if not is_function(data):
        raise OSError(errno.ECANCELED, "it was stopped before it was started")
    return decode_function(data, parked)
