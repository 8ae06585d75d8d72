"""Control requests: an ASGI application behind the front."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from tests.unit.dataplane.front.conftest import Bench, Start, until

from septet.dataplane.dispatch import ASGIApp, ControlTarget, Receive, Scope, Send
from septet.model.errors import Conflict


async def show(request: Request) -> Response:
    body = await request.body()
    return JSONResponse(
        {
            "method": request.method,
            "path": request.url.path,
            "raw": request.scope["raw_path"].decode(),
            "query": dict(request.query_params),
            "host": request.headers["host"],
            "id": request.headers["x-request-id"],
            "size": len(body),
            "client": request.scope["client"][0],
            "state": sorted(request.scope["state"]),
        },
        status_code=201,
        headers={"X-A": "b", "Connection": "close", "Transfer-Encoding": "gzip"},
    )


async def explode(request: Request) -> Response:
    raise ZeroDivisionError("secret")


async def stream(request: Request) -> Response:
    async def lines() -> Any:
        for number in range(3):
            yield b"%d\n" % number
            await asyncio.sleep(0.01)

    return StreamingResponse(lines(), media_type="application/x-ndjson")


APP = Starlette(
    routes=[
        Route("/septet/v1/show/{rest:path}", show, methods=["GET", "POST"]),
        Route("/septet/v1/explode", explode),
        Route("/septet/v1/stream", stream),
    ]
)


@pytest.fixture
def control(bench: Bench) -> Bench:
    bench.dispatcher.control = ControlTarget(APP, request_body=1 << 20, state={"extra": 1})
    return bench


def serve(bench: Bench, app: ASGIApp) -> None:
    bench.dispatcher.control = ControlTarget(app)


async def test_a_request_reaches_the_application(control: Bench) -> None:
    got = await control.exchange(
        b"POST /septet/v1/show/a%2Fb%20c?x=1 HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n"
        b"X-Request-Id: mine\r\n\r\nhello"
    )
    found = json.loads(got.body)
    assert (got.status, got.lines["x-a"], got.lines["x-request-id"]) == (201, "b", "mine")
    assert (found["method"], found["path"]) == ("POST", "/septet/v1/show/a/b c")
    assert found["raw"] == "/septet/v1/show/a%2Fb%20c"
    assert (found["query"], found["host"], found["id"], found["size"]) == ({"x": "1"}, "a.example", "mine", 5)
    assert found["client"] == "127.0.0.1"
    assert {"extra", "invocation", "peer"} <= set(found["state"])
    assert "transfer-encoding" not in got.lines


async def test_chunked_bodies_and_keep_alive(control: Bench) -> None:
    client = await control.connect()
    for _ in range(3):
        await client.send(
            b"POST /septet/v1/show/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"
        )
        assert json.loads((await client.response()).body)["size"] == 6


async def test_errors_of_the_tree_are_rendered(bench: Bench) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise Conflict("it changed meanwhile", hint="read it again")

    serve(bench, app)
    got = await bench.exchange(b"GET /septet/v1/fail HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (got.status, json.loads(got.body)["hint"]) == (409, "read it again")


async def test_other_errors_are_500_and_heard_of(control: Bench) -> None:
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: heard.append(context))
    got = await control.exchange(b"GET /septet/v1/explode HTTP/1.1\r\nHost: a\r\n\r\n")
    # Starlette answers 500 by itself, then raises again for whoever keeps the log.
    assert got.status == 500
    assert b"secret" not in got.body
    await until(lambda: len(heard) == 1)


async def test_streams_are_chunked_and_flushed(control: Bench) -> None:
    client = await control.connect()
    await client.send(b"GET /septet/v1/stream HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await client.head())[0] == 200
    assert [await client.chunk() for _ in range(4)] == [b"0\n", b"1\n", b"2\n", b""]


async def test_the_body_limit(control: Bench) -> None:
    got = await control.exchange(b"POST /septet/v1/show/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n")
    assert got.status == 413


async def test_expect_100_is_answered_when_the_application_reads(bench: Bench) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        if scope["path"] == "/reads":
            body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    serve(bench, app)
    client = await bench.connect()
    head = b" HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    await client.send(b"PUT /reads" + head)
    assert (await client.response()).status == 100
    await client.send(b"hi")
    assert (await client.response()).body == b"hi"
    await client.send(b"PUT /declines" + head)
    assert (await client.response()).status == 200
    assert await client.closed() == b""


async def test_an_upload_waits_for_the_application(bench: Bench) -> None:
    go = asyncio.Event()
    size = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal size
        await go.wait()
        more = True
        while more:
            message = await receive()
            size += len(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    serve(bench, app)
    total = 32 << 20
    client = await bench.connect()
    client.writer.transport.set_write_buffer_limits(high=0)
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % total)
    sending = asyncio.ensure_future(client.send(b"x" * total))
    await asyncio.sleep(0.2)
    assert not sending.done()
    (front,) = bench.listener._desk.connections  # type: ignore[union-attr]
    assert front._receiver._held <= 64 * 1024 + 512 * 1024  # type: ignore[union-attr]
    go.set()
    await sending
    assert (await client.response()).status == 204
    assert size == total


async def test_a_download_waits_for_the_client(bench: Bench) -> None:
    sent = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1024):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            sent += 65536
        await send({"type": "http.response.body"})

    serve(bench, app)
    client = await bench.connect()
    client.reader._transport.pause_reading()  # type: ignore[attr-defined]
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.sleep(0.2)
    assert 0 < sent < 32 << 20
    client.reader._transport.resume_reading()  # type: ignore[attr-defined]
    assert len((await client.response()).body) == 64 << 20


async def test_a_client_that_goes_away_is_told_to_the_application(start: Start) -> None:
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.request"
        told.append((await receive())["type"])
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        except OSError:
            told.append("send failed")

    async with start(half_close_grace=0.1) as bench:
        serve(bench, app)
        client = await bench.connect()
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(0.05)
        client.writer.transport.abort()
        await until(lambda: told == ["http.disconnect", "send failed"])


Wrong = Callable[[Send], Any]


async def no_answer(send: Send) -> None:
    return None


async def no_body(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def injection(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b\r\nc: d")]})


@pytest.mark.parametrize("wrong", [no_answer, no_body, injection])
async def test_applications_that_break_the_rules_give_500(bench: Bench, wrong: Wrong) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await wrong(send)

    serve(bench, app)
    assert (await bench.exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")).status == 500


async def test_an_application_that_fails_while_it_streams_cuts_the_connection(bench: Bench) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        raise Conflict("it changed")

    serve(bench, app)
    client = await bench.connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await client.head()
    assert await client.closed() == b"4\r\npart\r\n"
