"""From results to ASGI messages: JSON, problems, streams of lines, streams of bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import msgspec

from septet.model.errors import ClientGone, PayloadTooLarge, SeptetError
from septet.wire.problem import render_problem

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

KEEP_ALIVE = 15.0
FIRST = 0.1
ALWAYS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
"""Answers of this API hold names, settings, and now and then a credential: none is for a cache."""

_encoder = msgspec.json.Encoder()


def encode(value: Any) -> bytes:
    return _encoder.encode(value)


async def send_body(
    send: Send, status: int, body: bytes, content_type: bytes, more: Mapping[bytes, bytes] | None = None
) -> None:
    headers = [
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(body)),
        *ALWAYS,
        *(more or {}).items(),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_json(send: Send, status: int, value: Any) -> None:
    """With the object's version as its ETag, where there is one."""
    tag = etag(value)
    await send_body(send, status, encode(value), b"application/json", {b"etag": tag} if tag else None)


async def send_problem(send: Send, error: SeptetError, status: int = 0) -> None:
    reply = render_problem(error, "")
    body = reply.body
    if status:
        body = encode({**msgspec.json.decode(body), "status": status})
    more: dict[bytes, bytes] = {}
    for line in reply.lines.split(b"\r\n"):
        name, _, value = line.partition(b": ")
        if name:
            more[name.lower()] = value
    await send_body(send, status or reply.status, body, reply.content_type, more)


def etag(value: Any) -> bytes:
    """`"<resource_version>"` of an object, or of the one that an apply answers; empty for what has none."""
    for name in ("function", "namespace", "route", "environment", "secret", "object"):
        inner = getattr(value, name, None)
        if isinstance(inner, msgspec.Struct):
            value = inner
            break
    version = getattr(getattr(value, "meta", None), "resource_version", 0)
    return b'"%d"' % version if version else b""


async def read_chunks(receive: Receive, limit: int) -> AsyncIterator[bytes]:
    """The request's body as it comes. Raises PayloadTooLarge past `limit` bytes, ClientGone when it breaks off."""
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone("the client closed the connection before its body was complete")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise PayloadTooLarge(f"the body has more than {limit} bytes", limit=f"body {limit} bytes")
        if chunk:
            yield chunk
        if not message.get("more_body", False):
            return


async def send_lines(
    send: Send,
    receive: Receive,
    items: AsyncIterator[Any],
    check: Callable[[], object],
    keep_alive: float = KEEP_ALIVE,
) -> None:
    """One JSON value a line as they come; an empty line after `keep_alive` seconds of silence. Before each,
    `check` may raise, which ends the stream.

    An error before the first item is raised, so that it becomes an ordinary answer; a later one becomes the last
    line, `{"error": <problem>}`. Ends when the client is gone.
    """
    gone = asyncio.ensure_future(_gone(receive))
    started = False
    following: asyncio.Future[Any] = asyncio.ensure_future(_next(items))
    try:
        await asyncio.wait({following, gone}, timeout=FIRST, return_when=asyncio.FIRST_COMPLETED)
        if following.done() and following.exception() is not None:
            following.result()
        await _start(send, b"application/x-ndjson")
        started = True
        while not gone.done():
            if not following.done():
                await asyncio.wait({following, gone}, timeout=keep_alive, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                return
            check()
            if not following.done():
                await _send_chunk(send, b"\n")
                continue
            item = following.result()
            if item is _END:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            await _send_chunk(send, encode(item) + b"\n")
            following = asyncio.ensure_future(_next(items))
    except SeptetError as error:
        if not started:
            raise
        line = encode({"error": msgspec.Raw(render_problem(error, "").body)}) + b"\n"
        await send({"type": "http.response.body", "body": line, "more_body": False})
    finally:
        for task in (gone, following):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
        await close(items)


async def send_bytes(send: Send, items: AsyncIterator[bytes], content_type: bytes) -> None:
    """A stream of bytes. An error on the way is raised, and then the front can only cut the connection."""
    try:
        await _start(send, content_type)
        async for chunk in items:
            await _send_chunk(send, chunk)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        await close(items)


async def close(items: Any) -> None:
    """Ends an iterator that nobody reads to its end."""
    closing = getattr(items, "aclose", None)
    if closing is not None:
        with contextlib.suppress(RuntimeError):
            await closing()


async def _start(send: Send, content_type: bytes) -> None:
    headers = [(b"content-type", content_type), *ALWAYS]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _send_chunk(send: Send, chunk: bytes) -> None:
    await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


_END = object()


async def _next(items: AsyncIterator[Any]) -> Any:
    try:
        return await anext(items)
    except StopAsyncIteration:
        return _END
