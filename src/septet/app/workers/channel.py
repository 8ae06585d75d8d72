"""Messages and descriptors between two processes of the platform, over a unix stream socket."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from septet.app.workers.messages import Message

_HEADER = struct.Struct(">IB")
_READ = 256 * 1024
_FDS = 64

_encoder = msgspec.msgpack.Encoder(enc_hook=str)
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


class Channel:
    """Sends never block: what the socket does not take waits here. Descriptors that are sent are closed here, those
    that arrive belong to `receive`. `gone` is called once, when the other side is."""

    def __init__(
        self, sock: socket.socket, receive: Callable[[Message, list[int]], None], gone: Callable[[], None]
    ) -> None:
        self._sock = sock
        self._receive = receive
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._out: deque[tuple[bytes, list[int]]] = deque()
        self._in = bytearray()
        self._fds: deque[int] = deque()
        self._writing = False
        self._broken = False
        self.closed = False
        self.backlog = 0
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(self, message: Message, fds: Sequence[int] = ()) -> bool:
        """In order, and whole. False when nobody is there any more, so that it was not sent."""
        if self.closed or self._broken:
            for fd in fds:
                os.close(fd)
            return False
        body = _encoder.encode(message)
        data = _HEADER.pack(len(body), len(fds)) + body
        self._out.append((data, list(fds)))
        self.backlog += len(data)
        if not self._writing:
            self._write()
        return not self._broken

    def close(self) -> None:
        """Without a word to `gone`."""
        self._end()

    # -- inside

    def _write(self) -> None:
        while self._out and not self.closed:
            data, fds = self._out[0]
            extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self._sock.sendmsg([data], extra)
            except BlockingIOError:
                if not self._writing:
                    self._writing = True
                    self._loop.add_writer(self._sock.fileno(), self._write)
                return
            except OSError:
                # Reading finds the end, after what the other side said last.
                self._broken = True
                self._drop_output()
                return
            for fd in fds:
                os.close(fd)
            self.backlog -= sent
            if sent < len(data):
                self._out[0] = (data[sent:], [])
            else:
                self._out.popleft()
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, _READ, _FDS, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        self._fds.extend(fds)
        if not data:
            self._end()
            self._gone()
            return
        self._in += data
        at = 0
        while len(self._in) - at >= _HEADER.size and not self.closed:
            size, count = _HEADER.unpack_from(self._in, at)
            end = at + _HEADER.size + size
            if len(self._in) < end:
                break
            message = _decoder.decode(bytes(self._in[at + _HEADER.size : end]))
            at = end
            try:
                self._receive(message, [self._fds.popleft() for _ in range(count)])
            except Exception as error:
                # One message that cannot be carried out must not cost those that came with it.
                told = f"a {type(message).__name__} between processes failed"
                self._loop.call_exception_handler({"message": told, "exception": error})
        del self._in[:at]

    def _drop_output(self) -> None:
        for _, fds in self._out:
            for fd in fds:
                os.close(fd)
        self._out.clear()
        self.backlog = 0
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._sock.fileno())

    def _end(self) -> None:
        if self.closed:
            return
        self._drop_output()
        self.closed = True
        self._loop.remove_reader(self._sock.fileno())
        for fd in self._fds:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._fds.clear()
        self._sock.close()


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
