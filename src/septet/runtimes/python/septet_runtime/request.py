"""What a handler is given: the request and its context."""

import time

PREFETCH = 64 * 1024


class Headers(dict):
    """Lower-case names; looked up in any case. A repeated line is joined by a comma (cookies by a semicolon)."""

    def __init__(self, pairs):
        super().__init__()
        self.pairs = pairs
        for name, value in pairs:
            self._add(name, value)

    def __getitem__(self, name):
        return dict.__getitem__(self, name.lower())

    def __contains__(self, name):
        return isinstance(name, str) and dict.__contains__(self, name.lower())

    def get(self, name, default=None):
        return dict.get(self, name.lower(), default)

    def _add(self, name, value):
        name = name.lower()
        if dict.__contains__(self, name):
            value = dict.__getitem__(self, name) + ("; " if name == "cookie" else ", ") + value
        dict.__setitem__(self, name, value)

    def get_all(self, name):
        """Every value of a name, in order."""
        name = name.lower()
        return [value for key, value in self.pairs if key.lower() == name]


def header_pairs(head):
    """(name, value) of each line of a request's head, as text."""
    pairs = []
    for line in head.decode("latin-1").split("\r\n")[1:]:
        if line:
            name, _, value = line.partition(":")
            pairs.append((name, value.strip(" \t")))
    return pairs


class Request:
    """One request. `method`, `target` (as it was sent), `path` (decoded), `query` (name -> last value), `headers`.

    The body is read when it is asked for: `body`, `text()` and `json()` take all of it; iterating over the request
    (with `for`, in a coroutine `async for`) yields its pieces as they come, and never holds more than 256 KiB.
    `await request.read()` is `body` for coroutines.
    """

    def __init__(self, call):
        self._call = call
        self._body = None
        self._headers = None
        self._target = None

    @property
    def method(self):
        return self._call.method.decode("latin-1")

    @property
    def target(self):
        if self._target is None:
            head = self._call.head
            self._target = head[len(self._call.method) + 1 : head.find(b" HTTP/1.1\r\n")].decode("latin-1")
        return self._target

    @property
    def headers(self):
        if self._headers is None:
            self._headers = Headers(header_pairs(self._call.head))
        return self._headers

    @property
    def path(self):
        path = self.target.partition("?")[0]
        if "%" not in path:
            return path
        from urllib.parse import unquote

        return unquote(path)

    @property
    def query_string(self):
        return self.target.partition("?")[2]

    @property
    def query(self):
        if not self.query_string:
            return {}
        from urllib.parse import parse_qsl

        return dict(parse_qsl(self.query_string, keep_blank_values=True))

    @property
    def query_list(self):
        """(name, value) pairs, for names that come more than once."""
        if not self.query_string:
            return []
        from urllib.parse import parse_qsl

        return parse_qsl(self.query_string, keep_blank_values=True)

    @property
    def body(self):
        if self._body is None:
            self._body = b"".join(self)
        return self._body

    async def read(self):
        if self._body is None:
            self._body = b"".join([chunk async for chunk in self])
        return self._body

    def __iter__(self):
        call = self._call
        while True:
            if not call.has_body():
                call.link.waits.until(call, call.has_body)
            chunk = call.take()
            if not chunk:
                return
            yield chunk

    async def __aiter__(self):
        call = self._call
        while True:
            if not call.has_body():
                await call.link.waits.until_async(call, call.has_body)
            chunk = call.take()
            if not chunk:
                return
            yield chunk

    def stream(self):
        """The pieces of the body, for `for` or `async for`."""
        return self

    def text(self):
        return self.body.decode()

    def json(self):
        """The body as JSON; an empty one is an empty object."""
        import json

        return json.loads(self.body) if self.body else {}


class Response:
    """A reply to return: any body a handler may return, a status and headers (a mapping, or pairs)."""

    def __init__(self, body=b"", status=200, headers=None):
        self.body = body
        self.status = status
        self.headers = headers or {}


class Context:
    """What is known around a call. `deadline` is in seconds since the epoch, `remaining()` in seconds from now."""

    Response = Response
    function = ""
    namespace = ""
    revision = ""
    instance = ""

    def __init__(self, request):
        self._request = request

    @property
    def invocation_id(self):
        return self._request.headers.get("septet-invocation-id", "")

    @property
    def request_id(self):
        return self._request.headers.get("x-request-id", "")

    @property
    def traceparent(self):
        return self._request.headers.get("traceparent", "")

    @property
    def deadline(self):
        value = self._request.headers.get("septet-deadline", "")
        return int(value) / 1000 if value.isdigit() else float("inf")

    def remaining(self):
        return max(0.0, self.deadline - time.time())

    @property
    def cancelled(self):
        """True once the caller is gone: nobody will read the answer."""
        return self._request._call.cancelled

    @property
    def logger(self):
        """A logger of the function's name, shown from INFO on unless the function set logging up itself."""
        import logging

        logger = logging.getLogger(self.function or "function")
        if not logger.hasHandlers():
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            logger.propagate = False
        return logger

    @classmethod
    def describe(cls, environment):
        cls.function = environment.get("SEPTET_FUNCTION", "")
        cls.namespace = environment.get("SEPTET_NAMESPACE", "")
        cls.revision = environment.get("SEPTET_REVISION", "")
        cls.instance = environment.get("SEPTET_INSTANCE", "")
