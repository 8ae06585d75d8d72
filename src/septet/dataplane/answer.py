"""One response on a client connection: status line, framing, and the rule that what began is never patched up."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate

from septet.wire.callroute import ErrorReply
from septet.wire.chunked import LAST_CHUNK
from septet.wire.http1 import status_line


class DateLine:
    """The Date line, made once a second. Only answers without a Date of their own get it; Server is never added."""

    __slots__ = ("_line", "_second")

    def __init__(self) -> None:
        self._second = 0
        self._line = b""

    def __call__(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._line = b"Date: %b\r\n" % formatdate(second, usegmt=True).encode()
        return self._line


BATCH = 16 * 1024
"""Bytes that are kept until the loop's turn is over, to go out in one system call with what follows."""


class Flusher:
    """Sends, at the end of the loop's turn, what answers kept back in it; one callback for all."""

    __slots__ = ("_answers", "_call_soon")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._call_soon = loop.call_soon
        self._answers: list[Answer] = []

    def add(self, answer: Answer) -> None:
        if not self._answers:
            self._call_soon(self._flush)
        self._answers.append(answer)

    def _flush(self) -> None:
        answers, self._answers = self._answers, []
        for answer in answers:
            answer.flush()


class Answer:
    """Frames one response for one client. Pieces go out at the latest when the loop's turn is over.

    `keep_alive` says whether the connection may serve another request afterwards. `sent` counts body bytes.
    `started` is True from the final head on: from there an error can only cut the connection.
    """

    __slots__ = (
        "_bodiless",
        "_chunked",
        "_flusher",
        "_kept",
        "_left",
        "_minor",
        "_size",
        "_transport",
        "complete",
        "keep_alive",
        "sent",
        "started",
        "status",
        "until_close",
    )

    def __init__(
        self, transport: asyncio.WriteTransport, flusher: Flusher, method: bytes, minor: int, keep_alive: bool
    ) -> None:
        self._transport = transport
        self._flusher = flusher
        self._kept: list[bytes] = []
        self._size = 0
        self._minor = minor
        self._bodiless = method == b"HEAD"
        self._chunked = False
        self._left: int | None = None
        self.keep_alive = keep_alive
        self.status = 0
        self.started = False
        self.complete = False
        self.until_close = False
        self.sent = 0

    def informational(self, status: int, lines: bytes = b"") -> None:
        """A 1xx head; HTTP/1.0 clients know none."""
        if self._minor == 1 and not self.started:
            self._write(b"%b%b\r\n" % (status_line(status), lines))
            self.flush()

    def head(self, status: int, lines: bytes, length: int | None) -> None:
        """The final head. `length` None means unknown: chunked, or until the connection closes for HTTP/1.0.

        `lines` are valid and hold no framing. A 304 or an answer to HEAD may state the length of what it is about.
        """
        self.started = True
        self.status = status
        self._bodiless = self._bodiless or status in (204, 304)
        framing = b""
        if self._bodiless:
            self._left = 0
            # A link gives 0 where it was not told a length; saying nothing is right in both cases.
            if length and status != 204:
                framing = b"Content-Length: %d\r\n" % length
        elif length is not None:
            self._left = length
            framing = b"Content-Length: %d\r\n" % length
        elif self._minor == 1:
            self._chunked = True
            framing = b"Transfer-Encoding: chunked\r\n"
        else:
            self.until_close = True
            self.keep_alive = False
        if not self.keep_alive:
            framing += b"Connection: close\r\n"
        elif self._minor == 0:
            framing += b"Connection: keep-alive\r\n"
        self._write(b"%b%b%b\r\n" % (status_line(status), lines, framing))

    def switch(self, lines: bytes, protocol: bytes) -> None:
        """101: from here on `data` sends bytes as they are, until the connection closes."""
        self.started = True
        self.status = 101
        self.until_close = True
        self.keep_alive = False
        self._write(b"%b%bConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % (status_line(101), lines, protocol))

    def data(self, chunk: bytes) -> bool:
        """Sends a piece at once; False when it is more than the head declared (nothing is sent then)."""
        if not chunk or self._bodiless:
            return True
        size = len(chunk)
        if self._chunked:
            self._write(b"%x\r\n%b\r\n" % (size, chunk))
        else:
            if self._left is not None:
                if size > self._left:
                    return False
                self._left -= size
            self._write(chunk)
        self.sent += size
        return True

    def end(self) -> bool:
        """Completes the body; False when less was sent than the head declared."""
        if self._left:
            return False
        if self._chunked:
            self._write(LAST_CHUNK)
        self.complete = True
        self.flush()
        return True

    def error(self, reply: ErrorReply, lines: bytes) -> None:
        """A whole response; only before `started`."""
        head = b"Content-Type: %b\r\n%b%b" % (reply.content_type, reply.lines, lines)
        self.head(reply.status, head, len(reply.body))
        self.data(reply.body)
        self.end()

    def flush(self) -> None:
        """Hands over what was kept; with that the transport may ask for a pause."""
        kept = self._kept
        if not kept:
            return
        size, self._size = self._size, 0
        self._kept = []
        if len(kept) == 1:
            self._transport.write(kept[0])
        elif size < BATCH:
            self._transport.write(b"".join(kept))
        else:
            self._transport.writelines(kept)

    def discard(self) -> None:
        """The connection is lost: what was kept goes nowhere."""
        self._kept = []
        self._size = 0

    def _write(self, data: bytes) -> None:
        kept = self._kept
        if not kept:
            self._flusher.add(self)
        kept.append(data)
        self._size += len(data)
        if self._size >= BATCH:
            self.flush()
