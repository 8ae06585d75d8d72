"""The frame codec (docs/frames.md)."""

import struct

REQUEST, DATA, REPLY, CANCEL, WINDOW, LOG, READY, ERROR, STARTED, GONE, DRAIN, SPECIALISE, AHEAD, RECALL = range(1, 15)
END = 1
NEVER_STARTED = 2
WINDOW_SIZE = 256 * 1024
FRAME_MAX = 1024 * 1024
HEAD_MAX = 64 * 1024 - 1
PIECE = 64 * 1024
"""Bytes of a body in one frame. Reads above this size cost several times as much for each byte."""

_HEADER = struct.Struct(">IIBBH")
_CREDIT = struct.Struct(">I")


def encode(type_, stream, head=b"", body=b"", flags=0):
    if len(head) > HEAD_MAX:
        raise ValueError(f"a head of {len(head)} bytes is over the limit of {HEAD_MAX}")
    return _HEADER.pack(len(head) + len(body), stream, type_, flags, len(head)) + head + body


def encode_window(stream, credit):
    return encode(WINDOW, stream, b"", _CREDIT.pack(credit))


def decode_window(body):
    return _CREDIT.unpack(body)[0]


class Decoder:
    """Bytes in any pieces -> (type, flags, stream, head, body)."""

    def __init__(self):
        self._buffer = b""

    def feed(self, data):
        buffer = self._buffer + data if self._buffer else data
        frames = []
        at, size = 0, len(buffer)
        while size - at >= 12:
            length, stream, type_, flags, head = _HEADER.unpack_from(buffer, at)
            if length > FRAME_MAX or head > length or not REQUEST <= type_ <= RECALL:
                raise ValueError("the platform broke the frame protocol")
            begin = at + 12
            if size - begin < length:
                break
            at = begin + length
            frames.append((type_, flags, stream, buffer[begin : begin + head], buffer[begin + head : at]))
        self._buffer = buffer[at:] if at else buffer
        return frames
