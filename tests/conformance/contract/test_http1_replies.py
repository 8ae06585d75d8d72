"""The http1 link against a server that sends exactly the bytes a test gives it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from contract_processes import Recorder, call, head, instance

from septet.drivers.contract.http1 import Http1Contract
from septet.model.errors import BadReply, FunctionCrashed, InstanceLost, StartFailed
from septet.model.function import FunctionTemplate, Readiness
from septet.ports.contract import Link
from septet.ports.sandbox import ProtocolFactory

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Scripted:
    """Answers each request head with what `script` says for (connection, request on it); None closes."""

    def __init__(self, script: Callable[[int, int], bytes | None]) -> None:
        self.script = script
        self.connections = 0
        self.requests: list[bytes] = []
        self.after: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.connections
        self.connections += 1
        count = 0
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                answer = self.script(number, count)
                count += 1
                if answer is None:
                    break
                close = answer.endswith(b"<close>")
                writer.write(answer.removesuffix(b"<close>"))
                await writer.drain()
                if answer.startswith(b"HTTP/1.1 101"):
                    while data := await reader.read(1000):
                        self.after.append(data)
                        writer.write(data.upper())
                    break
                if close:
                    break
        writer.close()


@contextlib.asynccontextmanager
async def scripted(
    script: Callable[[int, int], bytes | None], readiness: Readiness | None = None, timeout: float = 5
) -> AsyncIterator[tuple[Scripted, Link]]:
    server = Scripted(script)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()

    async def connect(factory: ProtocolFactory) -> asyncio.Transport:
        try:
            transport, _ = await loop.create_connection(factory, "127.0.0.1", port)
        except OSError as error:
            raise InstanceLost("refused") from error
        return transport

    link = None
    try:
        link = await Http1Contract().open(
            connect,
            instance("http1"),
            FunctionTemplate(runtime="http", readiness=readiness or Readiness()),
            deadline=loop.time() + timeout,
            on_lost=lambda: None,
            on_log=lambda *_: None,
        )
        yield server, link
    finally:
        if link is not None:
            await link.close(0)
        listener.close()


BAD = {
    "no http": b"SSH-2.0-x\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "length and chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
    "bare newline": b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok",
    "a switch nobody asked for": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "an endless head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
}


@pytest.mark.parametrize("name", BAD)
async def test_what_is_not_http_is_a_bad_reply(name: str) -> None:
    async with scripted(lambda c, n: BAD[name]) as (_, link):
        reply = await call(link)
        assert isinstance(reply.error, BadReply)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nT: v\r\n\r\n", b"abcd"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end<close>", b"until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nold<close>", b"old"),
        (b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", b""),
        (b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + OK, b"ok"),
    ],
)
async def test_bodies_and_their_ends(answer: bytes, body: bytes) -> None:
    async with scripted(lambda c, n: answer) as (_, link):
        for _ in range(2):
            reply = await call(link)
            assert reply.error is None
            assert bytes(reply.body) == body
            assert reply.informationals == ([103] if b"103" in answer else [])


async def test_a_connection_is_used_again_and_closed_when_more_came_than_was_declared() -> None:
    async with scripted(lambda c, n: OK + b"HTTP/1.1 200 OK\r\n" if n == 1 else OK) as (server, link):
        for _ in range(4):
            reply = await call(link)
            assert bytes(reply.body) == b"ok"
        assert server.connections == 2


async def test_a_truncated_body_is_a_failure() -> None:
    async with scripted(lambda c, n: b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc<close>") as (_, link):
        reply = await call(link)
        assert isinstance(reply.error, FunctionCrashed)
        assert bytes(reply.body) == b"abc"


async def test_a_stale_connection_is_replaced_only_where_the_request_may_be_sent_twice() -> None:
    answers = iter([OK, None, OK, None])
    async with scripted(lambda c, n: next(answers)) as (server, link):
        assert bytes((await call(link)).body) == b"ok"
        again = await call(link)
        assert (bytes(again.body), again.events[0]) == (b"ok", "started")
        assert len(server.requests) == 3
        lost = await call(link, "POST", "/", b"x")
        assert isinstance(lost.error, FunctionCrashed)
        assert len(server.requests) == 4


async def test_a_first_connection_is_never_tried_twice() -> None:
    async with scripted(lambda c, n: None) as (server, link):
        assert isinstance((await call(link)).error, FunctionCrashed)
        assert len(server.requests) == 1


async def test_an_upgrade_becomes_a_tunnel() -> None:
    switch = b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\nearly"
    async with scripted(lambda c, n: switch) as (server, link):
        reply = Recorder()
        upload = link.begin(head("GET", "/", "", 0, "chat"), reply)
        upload.write(b"GET /smuggled HTTP/1.1\r\n\r\n")
        await reply.until(lambda: reply.size >= 5 + 26)
        assert (reply.status, reply.head_ and reply.head_.upgrade) == (101, b"chat")
        assert b"Connection: Upgrade\r\nUpgrade: chat\r\n" in server.requests[0]
        assert len(server.requests) == 1
        assert b"".join(server.after) == b"GET /smuggled HTTP/1.1\r\n\r\n"
        upload.end()
        await reply.over()
        assert reply.error is None


async def test_a_body_has_the_framing_of_its_length() -> None:
    closing = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with scripted(lambda c, n: closing + b"<close>") as (server, link):
        await call(link, "POST", "/", b"abc")
        await call(link, "POST", "/", b"abc", chunked=True)
        await call(link, "POST", "/")
        await call(link, "GET", "/")
        framing = [
            [line for line in one.split(b"\r\n") if line.lower().startswith((b"content-length", b"transfer-enc"))]
            for one in server.requests
        ]
        assert framing == [[b"Content-Length: 3"], [b"Transfer-Encoding: chunked"], [b"Content-Length: 0"], []]


async def test_readiness_waits_for_a_good_answer() -> None:
    readiness = Readiness(path="/ready", period=0.01)
    state = iter(range(100))

    def script(connection: int, number: int) -> bytes:
        return OK if next(state) >= 3 else b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"

    async with scripted(script, readiness) as (server, link):
        assert [one.split(b" ")[1] for one in server.requests] == [b"/ready"] * 4
        assert bytes((await call(link)).body) == b"ok"


async def test_readiness_that_never_comes_names_the_limit() -> None:
    readiness = Readiness(path="/ready", period=0.01)
    with pytest.raises(StartFailed) as caught:
        async with scripted(lambda c, n: b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", readiness, 1.5):
            pass
    assert caught.value.limit == "start_timeout"
    assert "500" in caught.value.message
