"""Ends pasta when the platform is gone.

The kernel's own tie (PR_SET_PDEATHSIG) is forgotten when pasta enters its user namespace. So one tiny process per
platform holds a descriptor of each pasta, and kills them all when the platform's end of its socket closes. It needs
neither the platform nor the launcher alive, and in a session of its own it outlives a signal to their group.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys

_HOLD = """
import os, select, signal, socket
platform = socket.socket(fileno=0)
held, poller = set(), select.poll()
poller.register(0, select.POLLIN)
while True:
    for number, _ in poller.poll():
        if number:
            poller.unregister(number)
            held.discard(number)
            os.close(number)
            continue
        data, found, *_ = socket.recv_fds(platform, 1, 1)
        for one in found:
            held.add(one)
            poller.register(one, select.POLLIN)
        if not data:
            for one in held:
                try:
                    signal.pidfd_send_signal(one, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            os._exit(0)
"""


class Leash:
    """Processes that must not outlive this one."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def tie(self, pid: int) -> None:
        """From now on the child `pid` dies when this process does. OSError when that cannot be had, or it is gone."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._open()
        assert self._socket is not None
        descriptor = os.pidfd_open(pid)
        try:
            socket.send_fds(self._socket, [b"+"], [descriptor])
        finally:
            os.close(descriptor)

    def _open(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _HOLD],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={},
                start_new_session=True,
            )
        self._socket = ours

    def close(self) -> None:
        """Kills whatever is still tied."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self._process = None
