"""ASGI applications: lifespan, HTTP both ways, and WebSocket over a switched stream."""

import asyncio
from urllib.parse import unquote

from septet_runtime.calls import reply_head


async def application(app):
    """(answer, stop) after the application's start-up; an application without lifespan is fine."""
    incoming, outgoing = asyncio.Queue(), asyncio.Queue()
    state = {}
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}

    async def life():
        try:
            await app(scope, incoming.get, outgoing.put)
        except Exception as error:
            await outgoing.put({"type": "lifespan.unsupported", "error": error})
        else:
            await outgoing.put({"type": "lifespan.unsupported"})

    task = asyncio.create_task(life())
    await incoming.put({"type": "lifespan.startup"})
    first = await outgoing.get()
    if first["type"] == "lifespan.startup.failed":
        raise RuntimeError(first.get("message") or "the application's start-up failed")
    alive = first["type"] == "lifespan.startup.complete"

    async def stop():
        if alive:
            await incoming.put({"type": "lifespan.shutdown"})
            await asyncio.wait({task}, timeout=5)

    async def answer(call):
        if call.head.headers.get("upgrade", "").lower() == "websocket":
            from septet_runtime.websocket import serve

            await serve(call, app, _scope(call, "websocket", state))
        else:
            await _http(call, app, _scope(call, "http", state))

    return answer, stop


def _scope(call, kind, state):
    path, _, query = call.head.target.partition("?")
    headers = call.head.headers
    proto = headers.get("x-forwarded-proto", "http")
    client = headers.get("x-forwarded-for", "").split(",")[0].strip()
    host, _, port = headers.get("host", "localhost").partition(":")
    scheme = {"http": "ws", "https": "wss"}.get(proto, "ws") if kind == "websocket" else proto
    scope = {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": scheme,
        "path": unquote(path),
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in headers.items()],
        "client": (client, 0) if client else None,
        "server": (host, int(port) if port.isdigit() else (443 if proto == "https" else 80)),
        "state": dict(state),
    }
    if kind == "http":
        scope["method"] = call.head.method
    return scope


async def _http(call, app, scope):
    head = []
    sent = []
    over = asyncio.Event()

    async def receive():
        if over.is_set():
            return {"type": "http.disconnect"}
        if call.ended and not call.chunks:
            if sent == ["asked"]:
                await over.wait()
                return {"type": "http.disconnect"}
            sent.append("asked") if not sent else None
            return {"type": "http.request", "body": b"", "more_body": False}
        body = await call.piece()
        more = bool(call.chunks) or not call.ended
        return {"type": "http.request", "body": body, "more_body": more}

    async def send(message):
        if message["type"] == "http.response.start":
            head[:] = [(message["status"], list(message.get("headers", ())))]
        elif message["type"] == "http.response.body":
            body, more = bytes(message.get("body", b"")), message.get("more_body", False)
            if not head:
                raise RuntimeError("http.response.body came before http.response.start")
            if head[0] is not None:
                lines, head[0] = reply_head(*head[0]), None
                await call.reply(lines, body, end=not more)
            elif body or not more:
                await call.write(body, end=not more)
            if not more:
                over.set()

    await app(scope, receive, send)
    if not over.is_set():
        raise RuntimeError("the application ended before its answer did")
