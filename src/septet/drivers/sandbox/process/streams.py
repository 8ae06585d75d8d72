"""The descriptors between the platform and a function's process: its output, and the link."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Literal, NamedTuple

from septet.drivers.sandbox.process.output import OutputPipe
from septet.drivers.sandbox.process.spec import Spec

Name = Literal["stdout", "stderr"]


class Streams(NamedTuple):
    """`child` are the process's ends: stdout, stderr, and the link if any; the others are ours."""

    child: list[int]
    pipes: list[tuple[int, OutputPipe]]
    link: socket.socket | None


def make(spec: Spec, pipe: Callable[[Name], OutputPipe]) -> Streams:
    """OSError when there are no descriptors left."""
    child: list[int] = []
    pipes: list[tuple[int, OutputPipe]] = []
    names: tuple[Name, ...] = ("stdout", "stderr")
    for name in names:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        if spec.walls and not spec.rootless:
            # /dev/stdout opens the pipe anew, as whoever the function runs as.
            os.fchown(writer, spec.uid, spec.gid)
        child.append(writer)
        pipes.append((reader, pipe(name)))
    if not spec.link or spec.ahead:
        return Streams(child, pipes, None)
    link, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Streams([*child, far.detach()], pipes, link)
