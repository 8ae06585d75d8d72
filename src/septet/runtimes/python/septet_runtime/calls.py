"""Requests, contexts and replies, as handlers see them; shared by the blocking and the asynchronous loop."""

import os
import time


class Cancelled(Exception):
    """Nobody waits for this call any more."""


class Headers:
    """Header lines by case-insensitive name; `get_all` has every value of a name that came more than once."""

    def __init__(self, pairs):
        self._pairs = pairs
        self._first = {}
        for name, value in pairs:
            self._first.setdefault(name.lower(), value)

    def get(self, name, default=None):
        return self._first.get(name.lower(), default)

    def get_all(self, name):
        name = name.lower()
        return [value for key, value in self._pairs if key.lower() == name]

    def __getitem__(self, name):
        return self._first[name.lower()]

    def __contains__(self, name):
        return name.lower() in self._first

    def __iter__(self):
        return iter(self._first)

    def __len__(self):
        return len(self._first)

    def items(self):
        return list(self._pairs)

    def keys(self):
        return self._first.keys()

    def __repr__(self):
        return f"Headers({self._pairs!r})"


class Head:
    """A request's head, parsed when somebody looks."""

    def __init__(self, raw):
        self.raw = raw
        line, _, self._lines = raw.partition(b"\r\n")
        method, target, _ = line.split(b" ", 2)
        self.method = method.decode("latin-1")
        self.target = target.decode("latin-1")
        self._headers = None

    @property
    def headers(self):
        if self._headers is None:
            pairs = []
            for line in self._lines.split(b"\r\n"):
                name, colon, value = line.partition(b":")
                if colon:
                    pairs.append((name.decode("latin-1"), value.strip().decode("latin-1")))
            self._headers = Headers(pairs)
        return self._headers


class Request:
    """A call's request. The body is read when it is asked for; `stream` gives it piece by piece."""

    def __init__(self, head, body):
        self._head = head
        self._body = body
        self._read = None
        self.method = head.method
        self.path, _, self.query_string = head.target.partition("?")

    @property
    def headers(self):
        return self._head.headers

    @property
    def query(self):
        """Query parameters, the last value of each name."""
        from urllib.parse import parse_qsl

        return dict(parse_qsl(self.query_string, keep_blank_values=True))

    @property
    def body(self):
        """The whole body as bytes. In an async handler it was read before the call, unless it is streamed."""
        if self._read is None:
            self._read = self._body.read()
        return self._read

    def text(self):
        return self.body.decode("utf-8")

    def json(self):
        """The body as JSON; an empty body is an empty object."""
        from json import loads

        return loads(self.body) if self.body else {}

    def stream(self):
        """The body in pieces: iterate in a sync handler, `async for` in an async one."""
        return self._body.pieces()

    def __iter__(self):
        return iter(self.stream())

    def __aiter__(self):
        return self.stream().__aiter__()


class Response:
    """A body with a status and headers (a mapping or pairs)."""

    def __init__(self, body=b"", status=200, headers=None):
        self.body = body
        self.status = status
        self.headers = headers or {}


class Context:
    """What is known of a call besides its request."""

    def __init__(self, head):
        self._head = head
        self._logger = None

    @property
    def invocation_id(self):
        return self._head.headers.get("septet-invocation-id", "")

    @property
    def deadline(self):
        """Seconds since the epoch at which the call is over."""
        return int(self._head.headers.get("septet-deadline", "0")) / 1000

    def remaining(self):
        """Seconds left."""
        return self.deadline - time.time()

    @property
    def traceparent(self):
        return self._head.headers.get("traceparent", "")

    @property
    def request_id(self):
        return self._head.headers.get("x-request-id", "")

    @property
    def namespace(self):
        return os.environ.get("SEPTET_NAMESPACE", "")

    @property
    def function(self):
        return os.environ.get("SEPTET_FUNCTION", "")

    @property
    def revision(self):
        return os.environ.get("SEPTET_REVISION", "")

    @property
    def instance(self):
        return os.environ.get("SEPTET_INSTANCE", "")

    @property
    def logger(self):
        """A standard logger whose lines belong to this call."""
        if self._logger is None:
            import logging
            import sys

            self._logger = logging.getLogger("function")
            if not self._logger.handlers and not logging.root.handlers:
                handler = logging.StreamHandler(sys.stderr)
                handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
                self._logger.addHandler(handler)
                self._logger.setLevel(logging.INFO)
        return self._logger

    Response = Response


_REASONS = {200: b"OK", 201: b"Created", 204: b"No Content", 302: b"Found", 400: b"Bad Request", 404: b"Not Found"}


def reply_head(status, pairs):
    """The head of a reply in bytes; ValueError for what cannot stand in one."""
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise ValueError(f"{status!r} is no status for a reply")
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, _REASONS.get(status, b""))]
    for name, value in pairs:
        name = name if isinstance(name, bytes) else str(name).encode("latin-1")
        value = value if isinstance(value, bytes) else str(value).encode("latin-1")
        if b"\r" in name + value or b"\n" in name + value or not name:
            raise ValueError(f"the header {name!r} holds a line break")
        lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines)


def normalise(result):
    """What a handler returned -> (status, [(name, value)], body), where body is bytes or an iterator of pieces."""
    status, headers = 200, {}
    if isinstance(result, tuple):
        if not 1 < len(result) < 4:
            raise TypeError("a handler returns a body, (body, status) or (body, status, headers)")
        body, status = result[0], result[1]
        headers = result[2] if len(result) == 3 else {}
    elif hasattr(result, "body") and hasattr(result, "status"):
        body, status, headers = result.body, result.status, getattr(result, "headers", None) or {}
    else:
        body = result
        if result is None:
            status = 204
    pairs = list(headers.items() if hasattr(headers, "items") else headers)
    given = {str(name).lower() for name, _ in pairs}
    body, kind = _body(body)
    if "content-type" not in given and kind and status != 204:
        pairs.append(("content-type", kind))
    if isinstance(body, bytes) and "content-length" not in given and status not in (204, 304):
        pairs.append(("content-length", len(body)))
    return status, pairs, body


def _body(body):
    if body is None:
        return b"", ""
    if isinstance(body, bytes):
        return body, "application/octet-stream"
    if isinstance(body, str):
        return body.encode("utf-8"), "text/plain; charset=utf-8"
    if isinstance(body, (bytearray, memoryview)):
        return bytes(body), "application/octet-stream"
    if hasattr(body, "__anext__") or hasattr(body, "__next__"):
        return body, "text/plain; charset=utf-8"
    from json import dumps

    return dumps(body).encode("utf-8"), "application/json"


def piece(value):
    """A piece of a streamed body as bytes."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8")
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"a streamed body has pieces of str or bytes, not {type(value).__name__}")


def raised(error):
    """An exception as the JSON of an ERROR or READY frame: type, message, and the trace of user code."""
    from json import dumps
    from traceback import format_exception

    own = os.path.dirname(__file__)
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(own):
        trace = trace.tb_next
    text = "".join(format_exception(type(error), error, trace))
    return dumps({"type": type(error).__name__, "message": str(error)[:2000], "trace": text[-20000:]}).encode()
