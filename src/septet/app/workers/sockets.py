"""Addresses that several processes serve: one listening socket for each, and the kernel deals connections out."""

from __future__ import annotations

import contextlib
import os
import socket

from septet.dataplane.listener import bind_tcp, url_of
from septet.model.errors import Unavailable


class SharedAddress:
    """The sockets of one listener, by worker. They are kept while a worker is away, so that its connections are
    accepted by another one instead of being refused."""

    def __init__(self, address: str, count: int, secure: bool) -> None:
        """Unavailable when the address cannot be had, InvalidInput when it is none."""
        try:
            self._sockets = self._bind(address, count)
        except OSError as error:
            raise Unavailable(
                f"cannot listen on {address}: {os.strerror(error.errno) if error.errno else error}",
                hint="choose another address, or port 0 for a free one",
            ) from error
        self.url = url_of(self._sockets[0], secure)

    def copy(self, slot: int) -> int:
        """A descriptor of the worker's own socket."""
        return os.dup(self._sockets[slot].fileno())

    def close(self) -> None:
        """No new connection from now on, but for those that a worker still accepts."""
        for sock in self._sockets:
            sock.close()

    def _bind(self, address: str, count: int) -> list[socket.socket]:
        host, _, port = address.rpartition(":")
        if port != "0":
            # A port that can be shared could be shared with a stranger, so it must be free first.
            bind_tcp(address).close()
        found = [bind_tcp(address, shared=True)]
        with contextlib.ExitStack() as bound:
            bound.callback(found[0].close)
            for _ in range(count - 1):
                found.append(bind_tcp(f"{host}:{found[0].getsockname()[1]}", shared=True))
                bound.callback(found[-1].close)
            bound.pop_all()
        return found
