"""Between two processes of the platform: messages with descriptors, owners, and calls that are lent."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from septet.app.workers.borrow import Line
from septet.app.workers.channel import Channel, pair
from septet.app.workers.handover import attach
from septet.app.workers.lend import Lender
from septet.app.workers.messages import Message, Moved, Ping, carry, uncarry
from septet.app.workers.owners import NOBODY, Owners
from septet.dataplane.pool import InstancePool
from septet.model.errors import QueueFull, SeptetError
from septet.model.function import Limits
from septet.model.instance import InstanceInfo
from septet.ports.contract import Link, Reply, ReplyHead, RequestHead

KEY = ("default", "hello-1")


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.005)


async def test_messages_arrive_in_order_with_their_descriptors() -> None:
    one, two = pair()
    got: list[tuple[Message, list[int]]] = []
    gone: list[bool] = []
    sender = Channel(one, lambda *_: None, lambda: None)
    receiver = Channel(two, lambda message, fds: got.append((message, fds)), lambda: gone.append(True))
    reading, writing = os.pipe()
    sender.send(Ping(1))
    sender.send(Moved("native", b"x" * 3_000_000, 1.0), [writing])
    sender.send(Ping(2))
    await until(lambda: len(got) == 3)
    assert [type(message).__name__ for message, _ in got] == ["Ping", "Moved", "Ping"]
    assert [len(fds) for _, fds in got] == [0, 1, 0]
    os.write(got[1][1][0], b"through")
    assert os.read(reading, 7) == b"through"
    os.close(reading)
    os.close(got[1][1][0])
    sender.close()
    await until(lambda: gone)
    assert receiver.closed


def test_a_death_moves_only_the_dead_ones_revisions() -> None:
    owners = Owners()
    assert owners.of(KEY) == NOBODY
    owners.set((0, 1, 2))
    keys = [("default", f"f-{number}") for number in range(300)]
    before = {key: owners.of(key) for key in keys}
    assert all(60 < list(before.values()).count(slot) < 140 for slot in (0, 1, 2))
    owners.set((0, 2))
    assert all(owners.of(key) == before[key] for key in keys if before[key] != 1)
    moved = [key for key in keys if before[key] == 1]
    owners.set((0, 1, 2), [(moved[0], 2)])
    assert owners.of(moved[0]) == 2
    assert all(owners.of(key) == 1 for key in moved[1:])


def test_an_error_survives_the_way() -> None:
    error = uncarry(carry(QueueFull("full", hint="wait", limit="queue 1", retry_after=1.0, details={"a": 1})))
    assert isinstance(error, QueueFull)
    assert (error.hint, error.limit, error.retry_after, error.details) == ("wait", "queue 1", 1.0, {"a": 1})


class Echo:
    """An instance that answers with what it was sent."""

    def __init__(self) -> None:
        self.instance = InstanceInfo(
            id="i-1",
            namespace="default",
            function="hello",
            revision="hello-1",
            driver="",
            state="ready",
            protocol="frames",
            started_at=0,
        )
        self.heads: list[RequestHead] = []
        self.cancelled = 0

    def begin(self, head: RequestHead, reply: Reply) -> Any:
        self.heads.append(head)
        reply.started()
        reply.head(ReplyHead(200, b"x-from: instance\r\n", head.length))

        def cancel(on_gone: Callable[[], None]) -> None:
            self.cancelled += 1
            on_gone()

        def nothing() -> None:
            pass

        return SimpleNamespace(write=reply.data, end=reply.end, cancel=cancel, pause=nothing, resume=nothing)

    async def close(self, grace: float) -> None:
        pass


class Caller:
    """Stands for an exchange at the asking side."""

    def __init__(self, body: bytes = b"") -> None:
        self.key = KEY
        self.body = body
        self.over = False
        self.got = b""
        self.status = 0
        self.ended = False
        self.error: SeptetError | None = None
        self.upload: Any = None

    def assign(self, link: Link, on_done: Callable[[], None]) -> None:
        self.on_done = on_done
        head = RequestHead(b"POST", b"/p?q", b"x-a: b\r\n", len(self.body), "ab" * 16, 9.5)
        self.upload = link.begin(head, cast("Reply", self))
        if self.body:
            self.upload.write(self.body)
            self.upload.end()

    def fail(self, error: SeptetError) -> None:
        self.error = error

    failed = fail

    def started(self) -> None: ...

    def head(self, head: ReplyHead) -> None:
        self.status = head.status
        assert head.lines == b"x-from: instance\r\n"

    def data(self, chunk: bytes) -> None:
        self.got += chunk

    def end(self) -> None:
        self.ended = True
        self.on_done()

    def pause_upload(self) -> None: ...

    def resume_upload(self) -> None: ...


class Side:
    def __init__(self) -> None:
        self.pool = InstancePool(asyncio.get_running_loop())
        self.pool.attach(cast("Any", SimpleNamespace(wanted=lambda key: None)))
        self.refusals: list[SeptetError] = []
        self.sent_away: list[Any] = []

    def owns(self, key: tuple[str, str]) -> bool:
        return key == KEY

    def cold_reason(self, key: tuple[str, str]) -> Any:
        return "scaled-to-zero"

    def cold(self, exchange: Any, reason: Any) -> None: ...

    def refused(self, exchange: Any, error: SeptetError) -> None:
        self.refusals.append(error)

    def elsewhere(self, exchange: Any) -> None:
        self.sent_away.append(exchange)


@pytest.fixture
async def sides() -> tuple[Side, Line, Lender]:
    here, there = socket.socketpair()
    side = Side()
    line = Line(1, cast("Any", side), lambda: None)
    lender = Lender(cast("Any", side), lambda _: None)
    await attach(here, line)
    await attach(there, lender)
    return side, line, lender


async def test_a_lent_call_streams_and_counts_against_the_instances_limit(sides: tuple[Side, Line, Lender]) -> None:
    side, line, _ = sides
    echo = Echo()
    big = Caller(os.urandom(2_000_000))
    line.lease(cast("Any", big), Limits(), False)
    await until(lambda: side.pool.sample(KEY).waiting == 1)
    side.pool.add(KEY, cast("Link", echo), 1)
    await until(lambda: big.ended)
    assert big.status == 200
    assert big.got == big.body
    head = echo.heads[0]
    assert (head.method, head.target, head.lines, head.length) == (b"POST", b"/p?q", b"x-a: b\r\n", 2_000_000)
    await until(lambda: side.pool.running(KEY, "i-1") == 0)


async def test_a_call_that_leaves_frees_its_place(sides: tuple[Side, Line, Lender]) -> None:
    side, line, _ = sides
    echo = Echo()
    side.pool.add(KEY, cast("Link", echo), 1)
    stays, waits = Caller(), Caller(b"abc")
    stays.body = b""
    stays.assign = lambda link, on_done: None  # type: ignore[method-assign]
    line.lease(cast("Any", stays), Limits(), False)
    await until(lambda: side.pool.running(KEY, "i-1") == 1)
    line.lease(cast("Any", waits), Limits(), False)
    await until(lambda: side.pool.sample(KEY).waiting == 1)
    # The asking process dies with a place in hand and another call in the queue: both are given up.
    line.give_up("the test says so")
    await until(lambda: side.pool.running(KEY, "i-1") == 0)
    assert side.pool.sample(KEY).waiting == 0
    assert side.sent_away == [waits]
