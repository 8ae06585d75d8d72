"""WSGI applications (PEP 3333)."""

import io
import sys
from urllib.parse import unquote_to_bytes

from septet_runtime.calls import reply_head


class Body(io.RawIOBase):
    """wsgi.input over a call's pieces."""

    def __init__(self, pieces):
        self._pieces = pieces
        self._rest = b""

    def readable(self):
        return True

    def readinto(self, buffer):
        if not self._rest:
            self._rest = next(self._pieces, b"")
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def environ(call):
    path, _, query = call.head.target.partition("?")
    headers = call.head.headers
    host, _, port = headers.get("host", "localhost").partition(":")
    scheme = headers.get("x-forwarded-proto", "http")
    found = {
        "REQUEST_METHOD": call.head.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": host,
        "SERVER_PORT": port or ("443" if scheme == "https" else "80"),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BufferedReader(Body(call.pieces())),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": call.link.lock is not None,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        if key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            found[key] = value
        else:
            key = f"HTTP_{key}"
            found[key] = f"{found[key]},{value}" if key in found else value
    if "CONTENT_LENGTH" not in found and call.ended:
        found["CONTENT_LENGTH"] = str(sum(map(len, call.chunks)))
    return found


def answer(call, application):
    """Runs the application for one call."""
    head = []
    sent = []

    def write(data):
        if not sent:
            sent.append(True)
            call.reply(reply_head(*head[0]), end=False)
        if data:
            call.write(data)

    def start_response(status, headers, exc_info=None):
        if exc_info and sent:
            raise exc_info[1].with_traceback(exc_info[2])
        head[:] = [(int(status.split(" ", 1)[0]), headers)]
        return write

    pieces = application(environ(call), start_response)
    try:
        if isinstance(pieces, (list, tuple)) and head and not sent:
            body = b"".join(pieces)
            status, pairs = head[0]
            if not any(name.lower() == "content-length" for name, _ in pairs) and status not in (204, 304):
                pairs = [*pairs, ("content-length", len(body))]
            call.reply(reply_head(status, pairs), body)
            return
        for data in pieces:
            if not head:
                raise RuntimeError("the application sent a body before it called start_response")
            write(data)
        write(b"")
        call.write(b"", end=True)
    finally:
        if hasattr(pieces, "close"):
            pieces.close()
