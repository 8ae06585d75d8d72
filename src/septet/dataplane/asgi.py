"""Control requests: one ASGI application call for each, with bounded buffers in both directions."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from septet.dataplane.correlation import PLATFORM_PREFIXES, request_id
from septet.dataplane.dispatch import ControlTarget, Message, Scope
from septet.model.errors import PlatformError, SeptetError
from septet.wire.fields import HOP_BY_HOP, encode_lines
from septet.wire.http1 import RequestHeadFacts

if TYPE_CHECKING:
    from septet.dataplane.front import Front

_CUT = HOP_BY_HOP | {b"x-request-id"}
_tasks: set[asyncio.Task[None]] = set()


class ControlExchange:
    """Drives one ASGI `http` call; it is a receiver as the front knows it (dispatch.Waits)."""

    def __init__(self, front: Front, head: RequestHeadFacts, target: ControlTarget) -> None:
        self.deadline = math.inf
        self._front = front
        self._head = head
        self._target = target
        self._invocation = front.desk.ids.invocation()
        self._request_id = request_id(head.fields, self._invocation.encode())
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._body_done = head.length == 0
        self._told_end = False
        self._gone = False
        self._over = False
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._start: tuple[int, bytes, int | None] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = self._front.desk.loop.create_task(self._run())
        _tasks.add(self._task)
        self._task.add_done_callback(_tasks.discard)

    # -- from the client

    def body(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._held += len(chunk)
        self._arrived.set()
        if self._held >= self._front.desk.settings.early_body:
            self._front.pause_body()

    def body_end(self) -> None:
        self._body_done = True
        self._arrived.set()

    def broken(self, error: SeptetError) -> None:
        self._finish(error)

    def client_gone(self) -> None:
        self._gone = True
        self._over = True
        self._arrived.set()
        self._writable.set()

    def expired(self) -> None:
        """Control requests have no deadline of their own: a log is followed for hours."""

    def pause_reply(self) -> None:
        self._writable.clear()

    def resume_reply(self) -> None:
        self._writable.set()

    # -- the application's side

    async def _run(self) -> None:
        try:
            await self._target.app(self._scope(), self._receive, self._send)
        except SeptetError as error:
            self._finish(error)
        except Exception as error:
            self._finish(PlatformError(f"the request failed inside the platform: {type(error).__name__}"))
            self._front.desk.loop.call_exception_handler(
                {"message": f"control request {self._invocation} failed", "exception": error}
            )
        else:
            self._finish(None if self._over else PlatformError("the request ended without an answer"))

    def _scope(self) -> Scope:
        head, peer = self._head, self._front.peer
        raw_path, _, query = head.target.partition(b"?")
        scheme = b"https" if peer.listener.secure else b"http"
        if peer.trusted:
            scheme = head.fields.get(b"x-forwarded-proto") or scheme
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": f"1.{head.minor}",
            "method": head.method.decode("ascii").upper(),
            "scheme": scheme.decode("latin-1"),
            "path": unquote_to_bytes(raw_path).decode("utf-8", "replace"),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": self._headers(),
            "client": (peer.host, peer.port) if peer.host else None,
            "server": self._server(),
            "state": {**self._target.state, "invocation": self._invocation, "peer": peer},
            "extensions": {},
        }

    def _headers(self) -> list[tuple[bytes, bytes]]:
        head = self._head
        refused: tuple[bytes, ...] = (b"septet-",) if self._front.peer.trusted else PLATFORM_PREFIXES
        pairs = [
            pair
            for pair in head.fields.pairs
            if pair[0] not in _CUT and pair[0] != b"host" and not pair[0].startswith(refused)
        ]
        if head.host:
            pairs.insert(0, (b"host", head.host))
        pairs.append((b"x-request-id", self._request_id))
        if head.length is not None and head.fields.length is not None:
            pairs.append((b"content-length", b"%d" % head.length))
        return pairs

    def _server(self) -> tuple[str, int | None] | None:
        address = self._front.transport.get_extra_info("sockname")
        if isinstance(address, tuple):
            return str(address[0]), int(address[1])
        return (str(address), None) if address else None

    async def _receive(self) -> Message:
        if not self._over and not self._chunks:
            self._front.send_continue()
        while not (self._chunks or self._gone or self._over or (self._body_done and not self._told_end)):
            self._arrived.clear()
            await self._arrived.wait()
        if self._chunks and not self._gone:
            chunk = self._chunks.popleft()
            self._held -= len(chunk)
            if not self._over and self._held < self._front.desk.settings.early_body:
                self._front.resume_body()
            self._told_end = self._body_done and not self._chunks
            return {"type": "http.request", "body": chunk, "more_body": not self._told_end}
        if self._body_done and not self._told_end and not self._gone:
            self._told_end = True
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._gone:
            raise OSError("the client closed the connection")
        if self._over:
            raise RuntimeError("the answer is complete already")
        if message["type"] == "http.response.start":
            self._start = self._response_head(message)
        elif message["type"] == "http.response.body":
            self._response_body(message.get("body", b""), bool(message.get("more_body", False)))
            if not self._over:
                await self._writable.wait()

    def _response_head(self, message: Message) -> tuple[int, bytes, int | None]:
        length: int | None = None
        pairs: list[tuple[bytes, bytes]] = []
        date = False
        for raw_name, value in message.get("headers", ()):
            name = bytes(raw_name).lower()
            if name == b"content-length":
                length = int(value)
            elif name not in _CUT:
                date = date or name == b"date"
                pairs.append((name, bytes(value)))
        lines = encode_lines(pairs) + b"X-Request-Id: %b\r\n" % self._request_id
        return int(message["status"]), lines if date else lines + self._front.desk.date(), length

    def _response_body(self, body: bytes, more: bool) -> None:
        answer = self._front.answer
        if answer is None or self._start is None:
            raise RuntimeError("a body came before the start of the answer")
        if not answer.started:
            status, lines, length = self._start
            answer.head(status, lines, len(body) if length is None and not more else length)
        if not answer.data(bytes(body)):
            raise RuntimeError("the answer is longer than its Content-Length")
        if not more:
            if not answer.end():
                raise RuntimeError("the answer is shorter than its Content-Length")
            self._finish(None)

    def _finish(self, error: SeptetError | None) -> None:
        if self._over:
            return
        self._over = True
        self._arrived.set()
        self._writable.set()
        self._chunks.clear()
        if error is not None:
            lines = b"X-Request-Id: %b\r\n" % self._request_id
            self._front.refuse(error, self._target.render_error, self._invocation, lines)
        self._front.finished()


def scope_state(scope: Scope) -> dict[str, Any]:
    """What the front put into a control request's scope: `invocation`, `peer` and the target's own state."""
    state: dict[str, Any] = scope["state"]
    return state
