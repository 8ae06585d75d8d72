"""The frame codec of the link to our own runtimes (docs/frames.md)."""

from __future__ import annotations

import struct
from typing import NamedTuple

REQUEST, DATA, REPLY, CANCEL, WINDOW, LOG, READY, ERROR, STARTED, GONE, DRAIN, SPECIALISE, AHEAD, RECALL = range(1, 15)
END = 1
NEVER_STARTED = 2

FRAME_MAX = 1024 * 1024
HEAD_MAX = 64 * 1024 - 1
WINDOW_SIZE = 256 * 1024
"""Body bytes that each direction of each stream may send before credit comes back."""

_HEADER = struct.Struct(">IIBBH")
HEADER_SIZE = _HEADER.size
_CREDIT = struct.Struct(">I")


parse_header = _HEADER.unpack_from
"""(buffer, offset) -> (length, stream, type, flags, head): of a whole header that is there."""


class Frame(NamedTuple):
    type: int
    flags: int
    stream: int
    head: bytes
    body: bytes


class FrameError(ValueError):
    """The other side broke the format; the link ends."""


def encode(type_: int, stream: int, head: bytes = b"", body: bytes = b"", flags: int = 0) -> bytes:
    """One frame. ValueError when head or body are over their limits."""
    if len(head) > HEAD_MAX or len(head) + len(body) > FRAME_MAX:
        raise ValueError("the frame is too large")
    return _HEADER.pack(len(head) + len(body), stream, type_, flags, len(head)) + head + body


def encode_window(stream: int, credit: int) -> bytes:
    return _HEADER.pack(4, stream, WINDOW, 0, 0) + _CREDIT.pack(credit)


def decode_window(body: bytes) -> int:
    """The credit in a WINDOW frame; FrameError."""
    if len(body) != 4:
        raise FrameError("a WINDOW frame has four bytes")
    return int(_CREDIT.unpack(body)[0])


class FrameDecoder:
    """Bytes in any pieces -> frames. After a FrameError it is not used again."""

    def __init__(self) -> None:
        self.rest = b""
        """What came of a frame whose end is still missing."""

    def feed(self, data: bytes) -> list[Frame]:
        buffer = self.rest + data if self.rest else data
        frames: list[Frame] = []
        at, size = 0, len(buffer)
        while size - at >= HEADER_SIZE:
            length, stream, type_, flags, head = _HEADER.unpack_from(buffer, at)
            if length > FRAME_MAX or head > length:
                raise FrameError(f"a frame of {length} bytes with a head of {head}")
            if not REQUEST <= type_ <= RECALL:
                raise FrameError(f"a frame of unknown type {type_}")
            begin = at + HEADER_SIZE
            if size - begin < length:
                break
            frames.append(
                Frame(type_, flags, stream, buffer[begin : begin + head], buffer[begin + head : begin + length])
            )
            at = begin + length
        self.rest = buffer[at:] if at else buffer
        return frames
