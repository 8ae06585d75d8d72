"""One HTTP/1.1 exchange over a socket of its own (RFC 9112): the answer's body is read as it comes.

The standard library's client brings mail parsing and TLS with it, a third of what a command takes to start. Here TLS
is loaded for https alone.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, BinaryIO

PIECE = 64 * 1024
LINE_MAX = 64 * 1024
HEADERS_MAX = 256
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
TARGET = re.compile(r"[!-~]+")
FIELD = re.compile(r"[^\x00\r\n]*")

Body = bytes | BinaryIO | Iterable[bytes]


class BrokenAnswer(Exception):
    """The other side ended too early, or does not speak HTTP."""


def connect(host: str, port: int, timeout: float) -> socket.socket:
    """A TCP connection. OSError, TimeoutError."""
    # Text would be looked up through the codec of international names, which takes a while to load.
    name: Any = host.encode() if host.isascii() else host
    link = socket.create_connection((name, port), timeout)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def connect_unix(path: str, timeout: float) -> socket.socket:
    """A connection to a unix socket. OSError, TimeoutError."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.settimeout(timeout)
        link.connect(path)
    except BaseException:
        link.close()
        raise
    return link


def secure(link: socket.socket, host: str, ca: str) -> socket.socket:
    """TLS on top of a connection; `ca` is a file of certificates to trust, else the system's. OSError."""
    import ssl

    trust = ssl.create_default_context(cafile=ca or None)
    trust.set_alpn_protocols(["http/1.1"])
    return trust.wrap_socket(link, server_hostname=host)


def send_request(
    link: socket.socket, method: str, target: str, headers: Sequence[tuple[str, str]], body: Body | None
) -> None:
    """Sends a whole request. A body without a Content-Length among the headers goes in chunks, unless it is bytes.

    ValueError for what cannot stand in a head, before a byte is sent; OSError.
    """
    names = {name.lower() for name, _ in headers}
    fields = list(headers)
    chunked = False
    if isinstance(body, bytes):
        if "content-length" not in names:
            fields.append(("Content-Length", str(len(body))))
    elif body is not None:
        chunked = "content-length" not in names
        if chunked:
            fields.append(("Transfer-Encoding", "chunked"))
    elif method in ("POST", "PUT", "PATCH"):
        fields.append(("Content-Length", "0"))
    head = _head(method, target, fields)
    if isinstance(body, bytes):
        link.sendall(head + body)
        return
    link.sendall(head)
    if body is None:
        return
    for piece in _pieces(body):
        if piece:
            link.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
    if chunked:
        link.sendall(b"0\r\n\r\n")


def _head(method: str, target: str, fields: Sequence[tuple[str, str]]) -> bytes:
    if not TOKEN.fullmatch(method):
        raise ValueError(f"{method!r} is not an HTTP method")
    if not TARGET.fullmatch(target):
        raise ValueError(f"the path {target!r} has characters that must be percent-encoded")
    lines = [f"{method} {target} HTTP/1.1"]
    for name, value in fields:
        if not TOKEN.fullmatch(name) or not FIELD.fullmatch(value):
            raise ValueError(f"{name!r} cannot be sent as a header")
        lines.append(f"{name}: {value}")
    try:
        return "\r\n".join([*lines, "", ""]).encode("latin-1")
    except UnicodeEncodeError as error:
        raise ValueError(f"a header has the character {error.object[error.start]!r}, which HTTP cannot carry") from None


def _pieces(body: BinaryIO | Iterable[bytes]) -> Iterable[bytes]:
    read = getattr(body, "read", None)
    return iter(lambda: read(PIECE), b"") if read is not None else body


class Answer:
    """An answer whose head was read. `length` is how many bytes of the body are still to come, where it is known."""

    def __init__(self, link: socket.socket, method: str) -> None:
        """Reads the head. BrokenAnswer, OSError, TimeoutError."""
        self._link = link
        self._source = link.makefile("rb")
        self.status, self.reason, self._headers = 100, "", list[tuple[str, str]]()
        while self.status < 200:
            self.status, self.reason = self._status_line()
            self._headers = self._fields()
        self._chunked = (self.getheader("Transfer-Encoding") or "").lower() == "chunked"
        self._chunk = 0
        self._ended = False
        self.length: int | None = None
        given = self.getheader("Content-Length")
        if method == "HEAD" or self.status in (204, 304):
            self.length, self._chunked = 0, False
        elif given is not None and not self._chunked:
            if not given.isascii() or not given.isdigit():
                raise BrokenAnswer(f"a Content-Length of {given!r}")
            self.length = int(given)

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._source.close()
        self._link.close()

    def getheader(self, name: str) -> str | None:
        """The value of a header; of several, joined with commas."""
        found = [value for key, value in self._headers if key.lower() == name.lower()]
        return ", ".join(found) if found else None

    def getheaders(self) -> list[tuple[str, str]]:
        """All headers as they came."""
        return list(self._headers)

    def read1(self, most: int) -> bytes:
        """What there is of the body, at most so many bytes; waits for one at least, and is empty at its end.

        BrokenAnswer when the body ends before it should; OSError, TimeoutError.
        """
        most = self._left(most)
        return self._took(self._source.read1(most)) if most else b""

    def read(self, most: int | None = None) -> bytes:
        """So many bytes of the body, or all that are left; fewer only at its end. Raises as `read1`."""
        parts: list[bytes] = []
        left = most
        while left is None or left > 0:
            part = self.read1(PIECE if left is None else min(left, PIECE))
            if not part:
                break
            parts.append(part)
            left = None if left is None else left - len(part)
        return b"".join(parts)

    def readline(self) -> bytes:
        """One line of the body with its end; the last may have none, and empty is the end. Raises as `read1`."""
        parts: list[bytes] = []
        while not (parts and parts[-1].endswith(b"\n")):
            most = self._left(PIECE)
            part = self._took(self._source.readline(most)) if most else b""
            if not part:
                break
            parts.append(part)
        return b"".join(parts)

    def _left(self, most: int) -> int:
        """How much of `most` may be read at once; 0 at the end of the body."""
        if self._ended:
            return 0
        if self._chunked:
            if not self._chunk:
                self._next_chunk()
            return min(most, self._chunk)
        return most if self.length is None else min(most, self.length)

    def _took(self, part: bytes) -> bytes:
        if self._chunked:
            if not part:
                raise BrokenAnswer("the answer broke off")
            self._chunk -= len(part)
            if not self._chunk and self._line() != b"":
                raise BrokenAnswer("a chunk that does not end where it said")
        elif self.length is not None:
            if not part:
                raise BrokenAnswer("the answer broke off")
            self.length -= len(part)
        elif not part:
            self._ended = True
        return part

    def _next_chunk(self) -> None:
        size = self._line().partition(b";")[0].strip()
        if not re.fullmatch(rb"[0-9a-fA-F]{1,16}", size):
            raise BrokenAnswer("a chunk without a size")
        self._chunk = int(size, 16)
        if not self._chunk:
            self._fields()
            self._ended = True

    def _status_line(self) -> tuple[int, str]:
        found = re.fullmatch(r"HTTP/1\.[01] ([1-9][0-9]{2})(?: (.*))?", self._line().decode("latin-1"))
        if found is None:
            raise BrokenAnswer("what answers there does not speak HTTP")
        return int(found[1]), (found[2] or "").strip()

    def _fields(self) -> list[tuple[str, str]]:
        fields: list[tuple[str, str]] = []
        while line := self._line():
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon or len(fields) == HEADERS_MAX:
                raise BrokenAnswer("the head of the answer is not HTTP")
            fields.append((name, value.strip()))
        return fields

    def _line(self) -> bytes:
        line = self._source.readline(LINE_MAX)
        if not line.endswith(b"\n"):
            raise BrokenAnswer("the connection was closed without an answer" if not line else "the answer broke off")
        return line.rstrip(b"\r\n")


def header_list(headers: Mapping[str, str], host: str) -> list[tuple[str, str]]:
    """The headers of a request, with Host first unless it is given."""
    given = any(name.lower() == "host" for name in headers)
    return [*([] if given else [("Host", host)]), ("Accept-Encoding", "identity"), *headers.items()]
