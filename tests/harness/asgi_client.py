"""A few lines that call an ASGI application as a server would."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from septet.apis.native.app import NativeApi


class Answer:
    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.complete = False
        self.changed = asyncio.Event()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines() if line.strip()]


class AsgiClient:
    """`token` goes with every request that does not bring an Authorization line of its own."""

    def __init__(self, app: NativeApi, token: str) -> None:
        self.app = app
        self.token = token

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = "",
        headers: Mapping[str, str] | None = None,
        state: dict[str, Any] | None = None,
    ) -> Answer:
        """One request; a body that is no bytes goes as JSON. `token` None sends none."""
        answer, task, hang_up = self.start(method, path, body, token=token, headers=headers, state=state)
        try:
            await asyncio.wait_for(task, 20)
        finally:
            hang_up.set()
        assert answer.complete, f"{method} {path} was left without an end"
        return answer

    def start(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = "",
        headers: Mapping[str, str] | None = None,
        state: dict[str, Any] | None = None,
    ) -> tuple[Answer, asyncio.Task[None], asyncio.Event]:
        """A request that may go on for ever: set the event to hang up."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        if token is not None:
            sent.setdefault("authorization", f"Bearer {token or self.token}")
        raw_path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": unquote(raw_path),
            "raw_path": raw_path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in sent.items()],
            "client": ("192.0.2.7", 4711),
            "server": ("127.0.0.1", 8080),
            "scheme": "http",
            "state": state or {},
        }
        answer, hang_up, told = Answer(), asyncio.Event(), False

        async def receive() -> dict[str, Any]:
            nonlocal told
            if not told:
                told = True
                return {"type": "http.request", "body": data, "more_body": False}
            await hang_up.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
            else:
                answer.body += message.get("body", b"")
                answer.complete = not message.get("more_body", False)
            answer.changed.set()

        return answer, asyncio.create_task(self._run(scope, receive, send)), hang_up

    async def _run(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)

    async def until(self, answer: Answer, condition: Any, timeout: float = 5) -> None:
        """Waits until `condition(answer)` holds."""
        async with asyncio.timeout(timeout):
            while not condition(answer):
                answer.changed.clear()
                await answer.changed.wait()
