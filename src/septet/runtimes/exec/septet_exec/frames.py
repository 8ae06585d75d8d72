"""The frame format of docs/frames.md, from the process's side."""

from struct import Struct

REQUEST, DATA, REPLY, CANCEL, WINDOW, LOG, READY, ERROR, STARTED, GONE, DRAIN, SPECIALISE = range(1, 13)
END = 1
NEVER_STARTED = 2
WINDOW_SIZE = 256 * 1024
CREDIT_STEP = WINDOW_SIZE // 4
PIECE = 64 * 1024

_HEADER = Struct(">IIBBH")
_CREDIT = Struct(">I")


def encode(type_, stream, head=b"", body=b"", flags=0):
    """One frame as bytes."""
    return _HEADER.pack(len(head) + len(body), stream, type_, flags, len(head)) + head + body


def window(stream, credit):
    """The frame that gives the platform `credit` more bytes to send."""
    return encode(WINDOW, stream, b"", _CREDIT.pack(credit))


def credit(body):
    return _CREDIT.unpack(body)[0]


class Decoder:
    """Bytes in any pieces -> (type, flags, stream, head, body) tuples."""

    def __init__(self):
        self._buffer = b""

    def feed(self, data):
        buffer = self._buffer + data if self._buffer else data
        found = []
        at, size = 0, len(buffer)
        while size - at >= 12:
            length, stream, type_, flags, head = _HEADER.unpack_from(buffer, at)
            begin = at + 12
            if size - begin < length:
                break
            found.append((type_, flags, stream, buffer[begin : begin + head], buffer[begin + head : begin + length]))
            at = begin + length
        self._buffer = buffer[at:] if at else buffer
        return found


def json_of(**members):
    """A frame's JSON body."""
    from json import dumps

    return dumps(members).encode()
