"""One HTTP/1.1 connection to a process, and the one call on it at a time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

from septet.model.errors import BadReply, FunctionCrashed, SeptetError
from septet.ports.contract import Reply, ReplyHead, RequestHead
from septet.wire.chunked import LAST_CHUNK, ChunkedDecoder, encode_chunk
from septet.wire.http1 import MAX_REPLY_HEAD, ReplyHeadFacts, parse_reply_head

_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
_WITH_LENGTH = frozenset({b"POST", b"PUT", b"PATCH"})


class Keeper(Protocol):
    """Who owns connections."""

    def free(self, connection: Connection) -> None:
        """Its call is over, and it may carry another."""
        ...

    def gone(self, connection: Connection, suspect: bool) -> None:
        """It is closed; called once. `suspect`: by the process, and not because a reply was over."""
        ...


class Connection(asyncio.Protocol):
    """Connects a transport with the call that uses it. Without a call nothing may arrive."""

    def __init__(self, keeper: Keeper) -> None:
        self.transport: asyncio.Transport | None = None
        self.used = False
        self.idle_since = 0.0
        self.closed = False
        self._dropped = False
        self._keeper = keeper
        self._call: Transfer | None = None

    def carry(self, call: Transfer) -> None:
        self._call = call

    def release(self, reuse: bool) -> None:
        """The call is done with it."""
        self._call = None
        self.used = True
        if reuse and not self.closed:
            self._keeper.free(self)
        else:
            self.abort()

    def abort(self) -> None:
        self._dropped = True
        if self.transport is not None:
            self.transport.abort()

    def acknowledge(self) -> None:
        """Many servers write head and body apart, and wait for the first to be acknowledged: some 40 ms, unless
        that is done at once."""
        if self.transport is not None and _QUICK_ACK is not None:
            peer = self.transport.get_extra_info("socket")
            if peer is not None and peer.family in (socket.AF_INET, socket.AF_INET6):
                with contextlib.suppress(OSError):
                    peer.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)

    def hold_reading(self, hold: bool) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if hold:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._call is not None:
            self._call.received(data)
        else:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        suspect = not self._dropped
        call, self._call = self._call, None
        if call is not None and call.lost(clean=exc is None):
            suspect = False
        self._keeper.gone(self, suspect)

    def pause_writing(self) -> None:
        if self._call is not None:
            self._call.hold_upload(True)

    def resume_writing(self) -> None:
        if self._call is not None:
            self._call.hold_upload(False)


class Transfer:
    """Sends one request over a connection and reads its reply.

    `on_over(answered)` is called once, before the reply's last call, with whether anything was received.
    """

    __slots__ = (
        "_acknowledged",
        "_answered",
        "_chunks",
        "_connection",
        "_decoder",
        "_facts",
        "_held",
        "_inbox",
        "_left",
        "_lost",
        "_on_over",
        "_paused",
        "_reply",
        "_request",
        "_sent_all",
        "_tunnel",
        "_upload_left",
        "_waiting",
        "ended",
        "over",
    )

    def __init__(
        self, connection: Connection, request: RequestHead, reply: Reply, on_over: Callable[[bool], bool]
    ) -> None:
        self._connection = connection
        self._request = request
        self._reply = reply
        self._on_over = on_over
        self._inbox = b""
        self._chunks: deque[bytes] = deque()
        self._facts: ReplyHeadFacts | None = None
        self._decoder: ChunkedDecoder | None = None
        self._left: int | None = None
        self._lost: bool | None = None
        self._answered = False
        self._acknowledged = False
        self._paused = False
        self._held = False
        self._waiting: list[bytes] = []
        self._tunnel = False
        self._upload_left = request.length
        self._sent_all = request.length == 0 and not request.upgrade
        self.over = False
        self.ended = False

    # -- the request

    def begin(self) -> None:
        self._connection.carry(self)
        self._send(request_head(self._request))

    def write(self, chunk: bytes) -> None:
        if self._sent_all or self.over:
            return
        if self._request.upgrade:
            # Before the switch these bytes would be read as another request.
            if self._tunnel:
                self._send(chunk)
            else:
                self._waiting.append(chunk)
                self.hold_upload(True)
        elif self._upload_left is None:
            self._send(encode_chunk(chunk) if chunk else b"")
        else:
            self._upload_left -= len(chunk)
            self._send(chunk if self._upload_left >= 0 else b"")

    def end(self) -> None:
        if self._sent_all or self.over:
            return
        self._sent_all = True
        if self._request.upgrade:
            if self._tunnel:
                self._send_eof()
        elif self._upload_left is None:
            self._send(LAST_CHUNK)
        elif self._upload_left:
            # Less, or more, than was announced: the process would take the next request for the rest.
            self._connection.abort()

    def hold_upload(self, hold: bool) -> None:
        if self.over or hold == self._held:
            return
        self._held = hold
        if hold:
            self._reply.pause_upload()
        else:
            self._reply.resume_upload()

    def pause(self) -> None:
        self._paused = True
        if not self.over:
            self._connection.hold_reading(True)

    def resume(self) -> None:
        self._paused = False
        if not self.over:
            self._connection.hold_reading(False)
            self._read()

    def cancel(self) -> None:
        """The reply gets no further call. Closing the connection is how HTTP tells the process."""
        if not self.over:
            self.over = True
            self._connection.release(reuse=False)

    # -- the reply

    def received(self, data: bytes) -> None:
        self._answered = True
        self._inbox = self._inbox + data if self._inbox else data
        self._read()
        if not self.over and not self._acknowledged:
            self._acknowledged = True
            self._connection.acknowledge()

    def lost(self, clean: bool) -> bool:
        """The connection is closed; what it brought before is delivered first. True when the reply was whole."""
        self._lost = clean
        self._read()
        return self.ended

    def _read(self) -> None:
        """Takes in what is here, as far as the reader allows."""
        try:
            while not self._paused and not self.over and self._step():
                pass
        except BadReply as error:
            self._fail(error)
        if self._lost is not None and not self._paused and not self.over:
            self._after_the_last_byte(self._lost)

    def _step(self) -> bool:
        """One piece of progress; False when more bytes are needed."""
        if self._chunks:
            self._reply.data(self._chunks.popleft())
            return True
        if self._facts is None:
            return self._read_head()
        if self._decoder is not None:
            return self._read_chunked(self._decoder)
        if self._left == 0:
            self._finish()
            return False
        if not self._inbox:
            return False
        data, self._inbox = self._inbox, b""
        if self._left is not None:
            data, self._inbox = data[: self._left], data[self._left :]
            self._left -= len(data)
        self._reply.data(data)
        return True

    def _read_head(self) -> bool:
        end = self._inbox.find(b"\r\n\r\n")
        if end < 0:
            if len(self._inbox) > MAX_REPLY_HEAD or not b"HTTP/1.".startswith(self._inbox[:7]):
                parse_reply_head(self._inbox, self._request.method)
                raise BadReply("the head of the reply does not end", hint="end it with an empty line")
            return False
        facts = parse_reply_head(self._inbox[: end + 2], self._request.method)
        self._inbox = self._inbox[end + 4 :]
        if facts.status == 101:
            self._switch(facts)
        elif facts.status < 200:
            if facts.status != 100:
                self._reply.informational(facts.status, facts.lines)
        else:
            self._take_head(facts)
        return True

    def _take_head(self, facts: ReplyHeadFacts) -> None:
        self._facts = facts
        self._left = facts.length
        if facts.chunked:
            self._decoder = ChunkedDecoder(BadReply)
        bodiless = self._request.method == b"HEAD" or facts.status == 304
        self._reply.head(ReplyHead(facts.status, facts.lines, facts.declared if bodiless else facts.length))

    def _switch(self, facts: ReplyHeadFacts) -> None:
        if not self._request.upgrade:
            raise BadReply("the function switched protocols, which nobody asked for", hint="answer with another status")
        self._facts = facts
        self._tunnel = True
        self._left = None
        self._reply.head(ReplyHead(101, facts.lines, None, facts.upgrade or self._request.upgrade))
        if self.over:
            return
        waiting, self._waiting = self._waiting, []
        for chunk in waiting:
            self._send(chunk)
        if self._sent_all:
            self._send_eof()
        self.hold_upload(False)

    def _read_chunked(self, decoder: ChunkedDecoder) -> bool:
        if self._inbox and not decoder.done:
            data, self._inbox = self._inbox, b""
            self._chunks.extend(decoder.feed(data))
            if decoder.done:
                self._inbox = decoder.rest
            return bool(self._chunks) or decoder.done
        if decoder.done:
            self._finish()
        return False

    def _after_the_last_byte(self, clean: bool) -> None:
        ends_here = self._tunnel or (self._facts is not None and self._facts.until_close and self._decoder is None)
        if ends_here and clean:
            self._finish()
        else:
            self._fail(_closed_early(self._answered))

    def _finish(self) -> None:
        facts = self._facts
        reuse = facts is not None and facts.keep_alive and self._sent_all and not self._inbox and not self._tunnel
        self.ended = True
        self._close(reuse)
        self._reply.end()

    def _fail(self, error: SeptetError) -> None:
        if not self._close(False):
            self._reply.failed(error)

    def _close(self, reuse: bool) -> bool:
        """Leaves the connection; True when somebody takes the call over."""
        self.over = True
        taken = self._on_over(self._answered)
        self._connection.release(reuse)
        return taken

    def _send(self, data: bytes) -> None:
        if data and self._connection.transport is not None and not self._connection.transport.is_closing():
            self._connection.transport.write(data)

    def _send_eof(self) -> None:
        transport = self._connection.transport
        if transport is not None and transport.can_write_eof() and not transport.is_closing():
            transport.write_eof()


def request_head(request: RequestHead) -> bytes:
    """The head with the framing of this connection and the empty line."""
    if request.upgrade:
        framing = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % request.upgrade
    elif request.length is None:
        framing = b"Transfer-Encoding: chunked\r\n"
    elif request.length or request.method in _WITH_LENGTH:
        framing = b"Content-Length: %d\r\n" % request.length
    else:
        framing = b""
    return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (request.method, request.target, request.lines, framing)


def _closed_early(answered: bool) -> FunctionCrashed:
    if answered:
        return FunctionCrashed("the function closed its connection before its reply was complete")
    return FunctionCrashed("the function closed its connection without a reply")
