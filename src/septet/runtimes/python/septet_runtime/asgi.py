"""ASGI applications: HTTP, WebSocket and lifespan scopes."""

import asyncio
from urllib.parse import unquote

from septet_runtime.link import Cancelled
from septet_runtime.reply import encode_head, may_have_body
from septet_runtime.request import Request, header_pairs
from septet_runtime.tasks import send_all

VERSIONS = {"version": "3.0", "spec_version": "2.4"}


class StartupFailed(Exception):
    """The application's lifespan said that it cannot start."""

    __module__ = "builtins"  # so that a trace shows the plain name


class Lifespan:
    """Startup before the first call, shutdown after the last; an application without it is fine."""

    def __init__(self, application):
        self._application = application
        self._to = asyncio.Queue()
        self._started = asyncio.get_running_loop().create_future()
        self._stopped = asyncio.get_running_loop().create_future()
        self._task = None
        self.state = {}

    async def start(self):
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._to.put_nowait({"type": "lifespan.startup"})
        await self._started

    async def stop(self):
        if self._task is not None and not self._task.done():
            self._to.put_nowait({"type": "lifespan.shutdown"})
            await asyncio.wait([self._task, self._stopped], return_when=asyncio.FIRST_COMPLETED)

    async def _run(self):
        scope = {"type": "lifespan", "asgi": VERSIONS, "state": self.state}
        try:
            await self._application(scope, self._to.get, self._send)
        except Exception:
            # The protocol's way to say that an application has no lifespan; after `startup.failed` it is the failure.
            pass
        finally:
            if not self._started.done():
                self._started.set_result(None)

    async def _send(self, message):
        kind = message["type"]
        if kind == "lifespan.startup.complete" and not self._started.done():
            self._started.set_result(None)
        elif kind == "lifespan.startup.failed" and not self._started.done():
            self._started.set_exception(StartupFailed(message.get("message", "") or "lifespan.startup.failed"))
        elif kind.startswith("lifespan.shutdown") and not self._stopped.done():
            self._stopped.set_result(None)


def asgi_answer(application, state):
    """How a call to an ASGI application is answered."""

    async def answer(call):
        request = Request(call)
        if request.headers.get("upgrade", "").lower() == "websocket":
            from septet_runtime.websocket import WebSocket

            await WebSocket(call, request).run(application, dict(state))
            return
        cycle = _Cycle(call)
        await application(http_scope(call, request, "http", dict(state)), cycle.receive, cycle.send)
        cycle.finish()

    return answer


def http_scope(call, request, kind, state):
    path, _, query = request.target.partition("?")
    secure = request.headers.get("x-forwarded-proto", "http") == "https"
    client = request.headers.get("x-forwarded-for", "").split(",")[0].strip()
    scope = {
        "type": kind,
        "asgi": VERSIONS,
        "http_version": "1.1",
        "scheme": {"http": ("http", "https"), "websocket": ("ws", "wss")}[kind][secure],
        "path": unquote(path),
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in header_pairs(call.head)
        ],
        "client": (client, 0) if client else None,
        "server": None,
        "state": state,
    }
    if kind == "http":
        scope["method"] = request.method
    return scope


class _Cycle:
    """One HTTP request and its reply."""

    def __init__(self, call):
        self._call = call
        self._start = None
        self._body_done = False
        self._done = False

    async def receive(self):
        call = self._call
        if self._body_done:
            await call.link.waits.until_async(call, lambda: call.cancelled or call.finished)
            return {"type": "http.disconnect"}
        await call.link.waits.until_async(call, call.has_body)
        try:
            body = call.take()
        except Cancelled:
            return {"type": "http.disconnect"}
        self._body_done = call.complete and not call.chunks
        return {"type": "http.request", "body": body, "more_body": not self._body_done}

    async def send(self, message):
        kind = message["type"]
        if kind == "http.response.start":
            if self._start is not None:
                raise RuntimeError("the application started two responses")
            self._start = message
        elif kind == "http.response.body":
            if self._start is None or self._done:
                raise RuntimeError("a response body outside of a response")
            await self._body(bytes(message.get("body", b"")), message.get("more_body", False))
        else:
            raise RuntimeError(f"unknown message {kind}")

    async def _body(self, body, more):
        call = self._call
        status = self._start["status"]
        if not may_have_body(call.method, status):
            body = b""
        if not call.head_sent:
            pairs = [
                (bytes(name).decode("latin-1"), bytes(value).decode("latin-1"))
                for name, value in self._start.get("headers", ())
            ]
            call.send_head(encode_head(status, pairs))
        if body:
            await send_all(call, body)
        if not more:
            self._done = True
            call.end()
            call.link.waits.wake(call)

    def finish(self):
        if not self._done:
            raise RuntimeError("the application returned without completing its response")
