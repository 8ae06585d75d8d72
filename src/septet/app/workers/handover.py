"""Byte streams that change hands: a protocol that begins late, and a copier where no descriptor can be given."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import cast


class Starter(asyncio.Protocol):
    """Puts `protocol` onto a stream of which `early` was read elsewhere."""

    def __init__(self, protocol: asyncio.Protocol, early: bytes) -> None:
        self._protocol = protocol
        self._early = early

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).set_protocol(self._protocol)
        self._protocol.connection_made(transport)
        if self._early:
            self._protocol.data_received(self._early)


class Copy(asyncio.Protocol):
    """One side of a pair of streams: what arrives here is written there, with backpressure."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: Copy | None = None
        self.early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.other is None or self.other.transport is None:
            self.early += data
        else:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        there = self.other.transport if self.other else None
        if there is not None and there.can_write_eof() and not there.is_closing():
            there.write_eof()
            return True
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def pause_writing(self) -> None:
        self._read_there(False)

    def resume_writing(self) -> None:
        self._read_there(True)

    def _read_there(self, on: bool) -> None:
        there = self.other.transport if self.other else None
        if there is not None and not there.is_closing():
            if on:
                there.resume_reading()
            else:
                there.pause_reading()


def join(one: Copy, two: Copy) -> None:
    """From now on they copy to each other; what came before goes first."""
    one.other, two.other = two, one
    for here, there in ((one, two), (two, one)):
        early, here.early = here.early, b""
        if early and there.transport is not None:
            there.transport.write(early)


def descriptor(transport: asyncio.Transport) -> int | None:
    """A copy of the transport's own descriptor; None when its bytes are not those on the descriptor."""
    if transport.get_extra_info("ssl_object") is not None:
        return None
    held = transport.get_extra_info("socket")
    number = held.fileno() if held is not None else -1
    return os.dup(number) if number >= 0 else None


async def attach(sock: socket.socket, protocol: asyncio.Protocol, early: bytes = b"") -> asyncio.Transport:
    """A connected stream socket of any family, served by `protocol`."""
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_accepted_socket(lambda: Starter(protocol, early), sock)
    return transport
