"""The chunked transfer coding (RFC 9112 section 7.1), read strictly and written plainly."""

from __future__ import annotations

import re

from septet.model.errors import MalformedRequest, SeptetError
from septet.wire.fields import lines_are_valid

MAX_EXTENSION = 256
"""Bytes of extensions on one chunk's size line."""
MAX_TRAILER_LINES = 64
MAX_TRAILERS = 8 * 1024
MAX_OVERHEAD = 16 * 1024
"""Bytes of framing beyond what the data explains: endless one-byte chunks with long extensions end here."""

LAST_CHUNK = b"0\r\n\r\n"

_SIZE = re.compile(rb"([0-9a-fA-F]{1,16})([ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?)")
_SIZE_ROOM = 16 + MAX_EXTENSION + 2


def encode_chunk(data: bytes) -> bytes:
    """One chunk; `data` is not empty (that would end the body)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class ChunkedDecoder:
    """Takes bytes as they come and gives the body's bytes back.

    `feed` returns the pieces of the body in what it was given. When the body is complete, `done` is True and
    `rest` has the bytes after it. It holds no more than one incomplete line or the trailers. Raises `error`.
    """

    __slots__ = ("_error", "_held", "_left", "_overhead", "_trailers", "_want", "done", "rest")

    def __init__(self, error: type[SeptetError] = MalformedRequest) -> None:
        self._error = error
        self._held = b""
        self._want = self._size
        self._left = 0
        self._overhead = 0
        self._trailers = 0
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        pieces: list[bytes] = []
        if self._held:
            data = self._held + data
            self._held = b""
        at = 0
        while not self.done:
            then = self._want(data, at, pieces)
            if then is None:
                if self._want != self._data:
                    self._held = data[at:]
                return pieces
            at = then
        self.rest = data[at:]
        return pieces

    # Each step reads from `at` on and returns where the next one begins, or None when it needs more bytes.

    def _size(self, data: bytes, at: int, pieces: list[bytes]) -> int | None:
        end = self._line_end(data, at, _SIZE_ROOM)
        if end is None:
            return None
        line = _SIZE.fullmatch(data, at, end)
        if line is None:
            raise self._error("a chunk's size is not 1 to 16 hexadecimal digits", hint="send the size in hexadecimal")
        if len(line[2]) > MAX_EXTENSION:
            raise self._too_much("a chunk's extensions are too long", f"chunk_extension {MAX_EXTENSION} bytes")
        self._left = int(line[1], 16)
        self._overhead = max(0, self._overhead + (end - at) - 16 - 2 * self._left)
        if self._overhead > MAX_OVERHEAD:
            raise self._too_much("the chunks are mostly framing", f"chunk_overhead {MAX_OVERHEAD} bytes")
        self._want = self._data if self._left else self._trailer
        return end + 2

    def _data(self, data: bytes, at: int, pieces: list[bytes]) -> int | None:
        end = at + self._left
        if len(data) < end:
            if at < len(data):
                pieces.append(data[at:])
                self._left = end - len(data)
            return None
        pieces.append(data[at:end])
        self._want = self._data_end
        return end

    def _data_end(self, data: bytes, at: int, pieces: list[bytes]) -> int | None:
        found = data[at : at + 2]
        if not b"\r\n".startswith(found):
            raise self._error("a chunk's data does not end in CRLF where its size says", hint="count the bytes")
        if len(found) < 2:
            return None
        self._want = self._size
        return at + 2

    def _trailer(self, data: bytes, at: int, pieces: list[bytes]) -> int | None:
        """Trailers are checked and dropped: nothing that comes after the body may change what the head said."""
        if data[at : at + 2] == b"\r\n":
            self.done = True
            return at + 2
        end = data.find(b"\r\n\r\n", at)
        have = (end + 2 if end >= 0 else len(data)) - at
        if have > MAX_TRAILERS:
            raise self._too_much("the trailers are too long", f"trailers {MAX_TRAILERS} bytes")
        last = end if end >= 0 else data.rfind(b"\r\n", at)
        whole = data[at : last + 2] if last >= at else b""
        if not lines_are_valid(whole):
            raise self._error("a trailer is not a valid header line", hint="send name: value, ending in CRLF")
        if whole.count(b"\r\n") > MAX_TRAILER_LINES:
            raise self._too_much("there are too many trailers", f"trailer_lines {MAX_TRAILER_LINES}")
        if end < 0:
            self._refuse_bare(data, at)
            return None
        self.done = True
        return end + 4

    def _line_end(self, data: bytes, at: int, room: int) -> int | None:
        end = data.find(b"\r\n", at, at + room + 2)
        if end < 0:
            self._refuse_bare(data, at, at + room)
            if len(data) - at >= room:
                raise self._too_much("a chunk's size line is too long", f"chunk_extension {MAX_EXTENSION} bytes")
            return None
        return end

    def _refuse_bare(self, data: bytes, at: int, end: int | None = None) -> None:
        last = data.rfind(b"\n", at, end)
        if last >= at and data[last - 1 : last] != b"\r":
            raise self._error("a line of the chunked body ends in a bare LF", hint="end every line with CRLF")

    def _too_much(self, message: str, limit: str) -> SeptetError:
        return self._error(message, hint="send plain chunks of some kilobytes", limit=limit)
