"""A client's connection goes to another process in the middle of its life, and the client sees nothing of it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from septet.app.workers.channel import Channel, pair
from septet.app.workers.messages import Moved
from septet.app.workers.moving import Mover
from septet.dataplane.dispatch import ControlTarget, Elsewhere, ListenerFacts, Message, Receive, Scope, Send
from septet.dataplane.front import FrontDesk
from septet.dataplane.listener import Listener


class There:
    """Answers with what it was sent, and who it thinks the client is."""

    def route(self, head: Any, peer: Any) -> ControlTarget:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            body = b""
            while True:
                message: Message = await receive()
                body += message["body"]
                if not message["more_body"]:
                    break
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"%b from %d" % (body, scope["client"][1])})

        return ControlTarget(app)


class Here:
    """Everything is better answered there."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.asked = 0
        self.mover: Mover | None = None

    def route(self, head: Any, peer: Any) -> Elsewhere:
        self.asked += 1

        def take(front: Any, data: bytes) -> None:
            assert self.mover is not None
            assert getattr(self.mover, self.way)(front, data, 1)

        return Elsewhere(take)


@pytest.mark.parametrize("way", ["move", "copy"])
async def test_a_connection_changes_hands_with_what_was_read(way: str) -> None:
    loop = asyncio.get_running_loop()
    one, two = pair()
    desk = FrontDesk(loop, cast("Any", There()), ListenerFacts(name="main"))
    taking = Mover({"main": desk}, lambda _: None)

    def receive(message: object, fds: list[int]) -> None:
        assert isinstance(message, Moved)
        taking.take(message, fds[0])

    receiver = Channel(two, receive, lambda: None)
    sender = Channel(one, lambda *_: None, lambda: None)
    here = Here(way)
    here.mover = Mover({}, lambda _: sender)
    listener = Listener(cast("Any", here), ListenerFacts(name="main"), address="127.0.0.1:0")
    await listener.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    port = writer.get_extra_info("sockname")[1]
    head = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
    # Half a body with the head, the rest after it moved, and the next request behind it.
    writer.write(head + b"ab")
    await asyncio.sleep(0.05)
    writer.write(b"cd" + head + b"efgh")
    for wanted in (b"abcd", b"efgh"):
        async with asyncio.timeout(5):
            got = await reader.readuntil(b"\r\n\r\n")
            assert got.startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(len(b"abcd from %d" % port)) == b"%b from %d" % (wanted, port)
    assert here.asked == 1
    assert listener.connections == 0
    assert len(desk.connections) == 1
    writer.close()
    async with asyncio.timeout(5):
        await desk.on_empty.wait()
    await listener.drain(1)
    sender.close()
    receiver.close()


async def test_a_connection_for_a_process_that_just_died_comes_back() -> None:
    loop = asyncio.get_running_loop()
    one, two = pair()
    sender = Channel(one, lambda *_: None, lambda: None)
    # The end is there before this side has read of it.
    two.close()
    mover: Mover
    moved: list[bool] = []

    class Torn(There):
        def route(self, head: Any, peer: Any) -> Any:
            if moved:
                return super().route(head, peer)

            def take(front: Any, data: bytes) -> None:
                moved.append(mover.move(front, data, 1))

            return Elsewhere(take)

    desk = FrontDesk(loop, cast("Any", Torn()), ListenerFacts(name="main"))
    mover = Mover({"main": desk}, lambda _: sender)
    server = await loop.create_server(desk, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd")
    async with asyncio.timeout(5):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    assert moved == [True]
    writer.close()
    server.close()
    sender.close()
