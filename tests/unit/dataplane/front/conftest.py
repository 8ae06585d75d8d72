"""A front over real sockets, with a link that tests script."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from septet.dataplane.certificates import Certificates
from septet.dataplane.dispatch import CallTarget, ControlTarget, FrontSettings, ListenerFacts, Peer, Refusal
from septet.dataplane.exchange import Exchange
from septet.dataplane.express import Lane
from septet.dataplane.listener import Listener
from septet.model.access import ANONYMOUS
from septet.model.errors import NotFound, SeptetError
from septet.model.instance import InstanceInfo, LimitMet
from septet.ports.contract import Reply, ReplyHead, RequestHead
from septet.wire.callroute import CallRoute
from septet.wire.http1 import RequestHeadFacts
from septet.wire.problem import render_problem

ROUTE = CallRoute(api="native", prefix=b"/fn/", render_error=render_problem)
INSTANCE = InstanceInfo(
    id="i-1",
    namespace="default",
    function="hello",
    revision="hello-00001",
    driver="fake",
    state="ready",
    protocol="http1",
    started_at=0.0,
)


class FakeUpload:
    """What the link got of one request, and its reply."""

    def __init__(self, link: FakeLink, head: RequestHead, reply: Reply) -> None:
        self.link = link
        self.head = head
        self.reply = reply
        self.body = b""
        self.size = 0
        self.ended = False
        self.cancelled = False
        self.stubborn = False
        self.on_gone: Callable[[], None] | None = None
        self.paused = False
        self.pauses = 0
        self.keep = True
        self.on_write: Callable[[FakeUpload, bytes], None] | None = None
        self.on_end: Callable[[FakeUpload], None] | None = None
        self.on_resume: Callable[[FakeUpload], None] | None = None
        self.held: bytes | None = None

    def lines(self) -> dict[bytes, bytes]:
        pairs = [line.split(b":", 1) for line in self.head.lines.split(b"\r\n") if line]
        return {name.lower(): value.strip() for name, value in pairs}

    def write(self, chunk: bytes) -> None:
        assert not self.ended
        assert chunk
        self.size += len(chunk)
        if self.keep:
            self.body += chunk
        if self.on_write:
            self.on_write(self, chunk)

    def end(self) -> None:
        assert not self.ended
        self.ended = True
        if self.on_end:
            self.on_end(self)

    def cancel(self, on_gone: Callable[[], None]) -> None:
        self.cancelled = True
        self.on_gone = on_gone
        if not self.stubborn:
            on_gone()

    def pause(self) -> None:
        self.paused = True
        self.pauses += 1

    def resume(self) -> None:
        self.paused = False
        if self.held is not None:
            self.answer_on(self.held)
        if self.on_resume:
            self.on_resume(self)

    def answer(self, body: bytes = b"ok", status: int = 200, lines: bytes = b"") -> None:
        self.reply.head(ReplyHead(status, lines, len(body)))
        if self.paused:
            self.held = body
        else:
            self.answer_on(body)

    def answer_on(self, body: bytes) -> None:
        self.held = None
        if body and self.head.method != b"HEAD":
            self.reply.data(body)
        self.reply.end()


Script = Callable[[FakeUpload], None]


def answer_at_end(upload: FakeUpload) -> None:
    """The usual function: it reads everything, then answers."""
    upload.on_end = lambda up: up.answer()


class FakeLink:
    """Counts what it is given and runs the test's script on each request."""

    def __init__(self) -> None:
        self.instance = INSTANCE
        self.uploads: list[FakeUpload] = []
        self.script: Script = answer_at_end
        self.at_once: Script | None = None
        self.began = asyncio.Event()

    def begin(self, head: RequestHead, reply: Reply) -> FakeUpload:
        upload = FakeUpload(self, head, reply)
        self.uploads.append(upload)
        if self.at_once is not None:
            self.at_once(upload)
        else:
            self.script(upload)
        self.began.set()
        return upload

    async def close(self, grace: float) -> None:
        return None


class FakeDispatcher:
    """Everything under /fn/ is a call on the link at once, unless `hold` keeps them waiting."""

    def __init__(self) -> None:
        self.link = FakeLink()
        self.hold = False
        self.waiting: list[Exchange] = []
        self.withdrawn: list[Exchange] = []
        self.done: list[Exchange] = []
        self.left = 0
        self.submitted = 0
        self.again = 0
        self.met: tuple[LimitMet, ...] = ()
        self.control: ControlTarget | None = None
        self.refusal: SeptetError | None = None
        self.target = CallTarget(
            namespace="default",
            function="hello",
            key=("default", "hello-00001"),
            path=b"/",
            route=ROUTE,
            timeout=30.0,
            request_body=1 << 40,
            caller=ANONYMOUS,
        )
        self.peers: list[Peer] = []

    def route(self, head: RequestHeadFacts, peer: Peer) -> CallTarget | ControlTarget | Refusal:
        self.peers.append(peer)
        if self.refusal is not None:
            return Refusal(self.refusal)
        if head.path.startswith(b"/fn/"):
            return self.target._replace(path=head.target[3:])
        if head.target == b"*" or self.control is None:
            raise NotFound(f"there is nothing at {head.path.decode('latin-1')}", hint="look at /septet/v1")
        return self.control

    def lane(self, head: RequestHeadFacts, target: CallTarget, lines: bytes) -> Lane | None:
        return None

    def submit(self, exchange: Exchange, again: bool) -> None:
        self.submitted += 1
        self.again += again
        if self.hold:
            self.waiting.append(exchange)
        else:
            exchange.assign(self.link, self.on_left)

    def on_left(self) -> None:
        self.left += 1

    def withdraw(self, exchange: Exchange) -> None:
        self.withdrawn.append(exchange)
        self.waiting.remove(exchange)

    def crashed(self, exchange: Exchange, error: SeptetError) -> None:
        exchange.failed(error)

    def limits(self, exchange: Exchange, then: Callable[[tuple[LimitMet, ...]], None]) -> None:
        asyncio.get_running_loop().call_soon(then, self.met)

    def finished(self, exchange: Exchange) -> None:
        self.done.append(exchange)

    def release(self) -> None:
        for exchange in self.waiting:
            exchange.assign(self.link, self.on_left)
        self.waiting.clear()


@dataclasses.dataclass
class Response:
    status: int
    lines: dict[str, str]
    body: bytes
    raw_lines: list[tuple[str, str]]


class Client:
    """A client that sends bytes as the test wants them and reads whole responses."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[int, list[tuple[str, str]]]:
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)
        first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
        assert first.startswith("HTTP/1.1 "), first
        pairs = [(line.split(":", 1)[0].lower(), line.split(":", 1)[1].strip()) for line in lines]
        return int(first.split()[1]), pairs

    async def response(self, method: str = "GET") -> Response:
        status, pairs = await self.head()
        lines = dict(pairs)
        if method == "HEAD" or status in (204, 304) or status < 200:
            body = b""
        elif "transfer-encoding" in lines:
            body = await self.chunked()
        elif "content-length" in lines:
            body = await asyncio.wait_for(self.reader.readexactly(int(lines["content-length"])), 5)
        else:
            body = await asyncio.wait_for(self.reader.read(), 5)
        return Response(status, lines, body, pairs)

    async def chunk(self) -> bytes:
        size = int((await asyncio.wait_for(self.reader.readuntil(b"\r\n"), 5)).strip(), 16)
        data = await asyncio.wait_for(self.reader.readexactly(size + 2), 5)
        assert data.endswith(b"\r\n")
        return data[:-2]

    async def chunked(self) -> bytes:
        pieces = []
        while piece := await self.chunk():
            pieces.append(piece)
        return b"".join(pieces)

    async def closed(self) -> bytes:
        """Reads to the end of the connection; what came."""
        try:
            return await asyncio.wait_for(self.reader.read(), 5)
        except ConnectionResetError:
            return b"<reset>"

    def close(self) -> None:
        self.writer.close()


class Bench:
    """A running front, its dispatcher, and clients."""

    def __init__(self, listener: Listener, dispatcher: FakeDispatcher) -> None:
        self.listener = listener
        self.dispatcher = dispatcher
        self.link = dispatcher.link
        self.clients: list[Client] = []

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.listener.port, limit=1 << 20))
        self.clients.append(client)
        return client

    async def exchange(self, data: bytes, method: str = "GET") -> Response:
        client = await self.connect()
        await client.send(data)
        return await client.response(method)


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Waits until the condition holds; fails when it does not in time."""
    end = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < end, "it did not come true in time"
        await asyncio.sleep(0.005)


Start = Callable[..., contextlib.AbstractAsyncContextManager[Bench]]


@contextlib.asynccontextmanager
async def running(
    certificates: Certificates | None = None, trusted: tuple[str, ...] = (), **settings: float
) -> AsyncIterator[Bench]:
    dispatcher = FakeDispatcher()
    facts = ListenerFacts(
        secure=certificates is not None,
        trusted=trusted,
        settings=dataclasses.replace(FrontSettings(), **settings),  # type: ignore[arg-type]
    )
    listener = Listener(dispatcher, facts, address="127.0.0.1:0", certificates=certificates)
    await listener.start()
    bench = Bench(listener, dispatcher)
    try:
        yield bench
    finally:
        for client in bench.clients:
            client.close()
        await listener.drain(0.2)


def pytest_asyncio_loop_factories(config: object, item: object) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test runs on both loops: they differ in when they deliver bytes."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def start() -> Start:
    return running


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with running() as bench:
        yield bench
