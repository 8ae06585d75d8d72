"""WSGI applications (PEP 3333)."""

import io
import sys
from urllib.parse import unquote_to_bytes

from septet_runtime.reply import encode_head, may_have_body
from septet_runtime.request import Request, header_pairs
from septet_runtime.serving import send_all


def wsgi_answer(application, threaded):
    """How a call to a WSGI application is answered."""

    def answer(call):
        start = _Start(call)
        result = application(_environ(call, threaded), start)
        try:
            if isinstance(result, (list, tuple)) and len(result) == 1:
                start.length = len(result[0])
            for piece in result:
                if piece:
                    start.write(piece)
                call.link.waits.poll()
            start.finish()
        finally:
            if hasattr(result, "close"):
                result.close()

    return answer


class _Start:
    """`start_response`, and the `write` that it gives back."""

    def __init__(self, call):
        self._call = call
        self._status = None
        self._headers = []
        self.length = None

    def __call__(self, status, headers, exc_info=None):
        if exc_info and self._call.head_sent:
            raise exc_info[1].with_traceback(exc_info[2])
        if self._status is not None and not exc_info:
            raise AssertionError("start_response was called twice")
        self._status = int(status[:3])
        self._headers = list(headers)
        return self.write

    def write(self, data):
        self._send_head()
        if may_have_body(self._call.method, self._status):
            send_all(self._call, data)

    def finish(self):
        self.length = self.length if self._call.head_sent else self.length or 0
        self._send_head()
        self._call.end()

    def _send_head(self):
        if self._call.head_sent:
            return
        if self._status is None:
            raise AssertionError("the application did not call start_response")
        if self.length is not None and not any(name.lower() == "content-length" for name, _ in self._headers):
            self._headers.append(("content-length", str(self.length)))
        self._call.send_head(encode_head(self._status, self._headers))


class _Input(io.RawIOBase):
    """The request's body as a file."""

    def __init__(self, call):
        self._pieces = iter(Request(call))
        self._rest = b""

    def readable(self):
        return True

    def readinto(self, buffer):
        if not self._rest:
            self._rest = next(self._pieces, b"")
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _environ(call, threaded):
    request = Request(call)
    path, _, query = request.target.partition("?")
    host, _, port = request.headers.get("host", "localhost").rpartition(":")
    if not port.isdigit():
        host, port = request.headers.get("host", "localhost"), ""
    scheme = request.headers.get("x-forwarded-proto", "http")
    environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": host,
        "SERVER_PORT": port or ("443" if scheme == "https" else "80"),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": request.headers.get("x-forwarded-for", "").split(",")[0].strip(),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BufferedReader(_Input(call)),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": threaded,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in header_pairs(call.head):
        key = name.upper().replace("-", "_")
        if "_" in name:
            continue
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ
