"""The express lane does what the usual way does: the same bytes both ways, the same records, limits and refusals.

The real front, dispatcher, pool and frame link; the connections on both sides are scripted here.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from septet.dataplane.admission import Admission
from septet.dataplane.calls import Calls
from septet.dataplane.desk import REMEMBERED
from septet.dataplane.dispatch import FrontSettings, ListenerFacts
from septet.dataplane.express import ExpressCall
from septet.dataplane.front import Front, FrontDesk
from septet.dataplane.metrics import Metrics
from septet.dataplane.pool import InstancePool
from septet.dataplane.router import Router
from septet.dataplane.surfaces import Surface, Surfaces
from septet.dataplane.table import Table
from septet.drivers.contract.frames import FramesLink
from septet.model.access import Caller
from septet.model.errors import Unauthenticated
from septet.model.function import (
    Function,
    FunctionSpec,
    FunctionStatus,
    FunctionTemplate,
    Limits,
    Revision,
    RevisionSpec,
    RevisionStatus,
    TrafficTarget,
)
from septet.model.instance import ColdReason, InstanceExit, InstanceInfo, LimitMet
from septet.model.invocation import InvocationRecord
from septet.model.meta import Meta
from septet.model.objects import Namespace, NamespaceSpec, Quota
from septet.policy.access import INVOKE
from septet.policy.ahead import DEPTH, WINDOW
from septet.ports.signals import RevisionKey
from septet.ports.store import Change
from septet.wire import frames
from septet.wire.callroute import CallRoute
from septet.wire.problem import render_problem

KEY = ("default", "hello-00001")
TOKEN = "sept_" + "a" * 43
ID = re.compile(rb"[0-9a-f]{32}")
REPLY = b"HTTP/1.1 200 \r\ncontent-type: text/plain\r\ncontent-length: 5\r\n"


def request(path: str = "/fn/default/hello/x?a=%20b", body: bytes = b"", lines: str = "", method: str = "GET") -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: f.example\r\nAuthorization: Bearer {TOKEN}\r\n{lines}{length}\r\n"
    return head.encode() + body


class Pipe(asyncio.Transport):
    """One side of a connection, kept in memory."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__()
        self.sent = b""
        self.reading = True
        self.ended = False
        self._host = host

    def write(self, data: Any) -> None:
        self.sent += bytes(data)

    def writelines(self, pieces: Any) -> None:
        self.sent += b"".join(pieces)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self._host, 4711) if name == "peername" else default

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True

    def take(self) -> bytes:
        sent, self.sent = self.sent, b""
        return sent


class Demand:
    def wanted(self, key: RevisionKey) -> None:
        pass

    def lost(self, key: RevisionKey, instance: str) -> None:
        pass

    def cold_reason(self, key: RevisionKey) -> ColdReason:
        return "burst"

    def limits(self, instance: str, age: float, then: Callable[[tuple[LimitMet, ...]], None]) -> None:
        then(())

    def explain(self, instance: str, told: Callable[[InstanceExit | None], None]) -> None:
        told(None)


class Records:
    """The part of the logs that calls write to; `express` counts the records that came ready made."""

    def __init__(self) -> None:
        self.kept: list[InvocationRecord] = []
        self.express = 0

    def record(self, record: InvocationRecord) -> None:
        self.kept.append(record)

    def record_encoded(self, function: tuple[str, str], record: bytes) -> None:
        self.express += 1
        found = msgspec.json.decode(record, type=InvocationRecord)
        assert (found.namespace, found.function) == function
        self.kept.append(found)


class World:
    def __init__(
        self,
        concurrency: int = 4,
        timeout: float = 30.0,
        reply_lines: bytes = b"",
        queue: int = 100,
        queue_timeout: float = 30.0,
        ahead: bool = False,
        trusted: tuple[str, ...] = (),
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.ahead = ahead
        limits = Limits(concurrency=concurrency, timeout=timeout, queue=queue, queue_timeout=queue_timeout)
        self.template = FunctionTemplate(runtime="python", limits=limits)
        self.table = Table({})
        self.function(("hello-00001", 100))
        self.revision("hello-00001")
        self.pool = InstancePool(self.loop)
        self.pool.attach(Demand())
        self.records = Records()
        self.metrics = Metrics()
        self.known = {TOKEN: Caller(name="ann", namespaces=("default",), verbs=(INVOKE,))}
        self.calls = Calls(
            router=Router(self.table, lambda: 0.5),
            admission=Admission(self.table, self._authenticate, self.loop.time, time.time),
            pool=self.pool,
            demand=Demand(),
            logs=self.records,  # type: ignore[arg-type]  # calls only record
            metrics=self.metrics,
            loop=self.loop,
        )
        route = CallRoute(api="native", prefix=b"/fn/", render_error=render_problem, reply_lines=reply_lines)
        surface = Surface("native", (route,), (b"/septet/",), _no_app)
        settings = FrontSettings(pipeline=1024)
        facts = ListenerFacts(context=Surfaces([surface]), settings=settings, trusted=trusted)
        self.desk = FrontDesk(self.loop, self.calls, facts)
        self.lost = 0
        self.links: list[tuple[FramesLink, Pipe]] = []
        self.instance()

    def _authenticate(self, text: str) -> Caller:
        if text not in self.known:
            raise Unauthenticated("no such token")
        return self.known[text]

    def function(self, *traffic: tuple[str, int], public: bool = False) -> None:
        targets = tuple(TrafficTarget(revision=name, percent=percent) for name, percent in traffic)
        spec = FunctionSpec(template=self.template, access="public" if public else "token")
        meta = Meta(name="hello", namespace="default", uid="u")
        made = Function(meta=meta, spec=spec, status=FunctionStatus(traffic=targets))
        self.table.apply(Change(1, "put", "Function", made))

    def revision(self, name: str) -> None:
        spec = RevisionSpec(function="hello", function_uid="u", number=1, template=self.template)
        made = Revision(meta=Meta(name=name, namespace="default"), spec=spec, status=RevisionStatus(phase="ready"))
        self.table.apply(Change(1, "put", "Revision", made))

    def instance(self) -> None:
        id = f"i-{len(self.links)}"
        info = InstanceInfo(
            id=id,
            namespace="default",
            function="hello",
            revision="hello-00001",
            driver="test",
            state="ready",
            protocol="frames",
            started_at=0.0,
        )

        def lost() -> None:
            self.lost += 1
            self.pool.remove(KEY, id)

        link, pipe = FramesLink(info, lost, self._log), Pipe()
        link.connection_made(pipe)
        more = b',"ahead":true' if self.ahead else b""
        link.data_received(frames.encode(frames.READY, 0, b"", b'{"ok":true%b}' % more))
        self.links.append((link, pipe))
        self.logs: list[tuple[str, str, bytes]] = []
        self.pool.add(KEY, link, self.template.limits.concurrency)

    def _log(self, invocation: str, stream: str, line: bytes) -> None:
        self.logs.append((invocation, stream, line))

    def connect(self, host: str = "127.0.0.1") -> tuple[Front, Pipe]:
        front, pipe = self.desk(), Pipe(host)
        front.connection_made(pipe)
        return front, pipe

    # -- the process's side

    def heard(self, link: int = 0) -> list[frames.Frame]:
        return frames.FrameDecoder().feed(self.links[link][1].take())

    def say(self, *said: bytes, link: int = 0) -> None:
        self.links[link][0].data_received(b"".join(said))

    async def settle(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    async def whole(self, front: Front, pipe: Pipe, data: bytes, head: bytes = REPLY, body: bytes = b"hello") -> bytes:
        """One call that is answered in one piece: what the client got."""
        front.data_received(data)
        (frame,) = [frame for frame in self.heard() if frame.type == frames.REQUEST]
        started = frames.encode(frames.STARTED, frame.stream)
        self.say(started, frames.encode(frames.REPLY, frame.stream, head, body, frames.END))
        await self.settle()
        return pipe.take()

    async def learned(self, data: bytes | None = None, **reply: bytes) -> tuple[Front, Pipe]:
        """A connection whose next request with these bytes takes the express lane."""
        data = data or request()
        front, pipe = self.connect()
        for _ in range(3):
            await self.whole(front, pipe, data, **reply)
        assert self.records.express == 1, "the third request like the first takes the express lane"
        return front, pipe

    async def agrees(self) -> None:
        """The process is asked whether calls may wait in it, and says yes."""
        assert not self.links[0][0].takes_ahead()
        self.heard()
        self.say(frames.encode(frames.AHEAD, 0))
        assert self.links[0][0].takes_ahead()

    async def asks(self, front: Front, data: bytes | None = None) -> frames.Frame:
        front.data_received(data or request())
        assert isinstance(front._receiver, ExpressCall)
        (frame,) = self.heard()
        return frame


async def _no_app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("no control request is made here")


def masked(data: bytes) -> bytes:
    """Without what differs from call to call: ids, spans, the time."""
    data = re.sub(rb"-[0-9a-f]{16}-", b"-<span>-", ID.sub(b"<id>", data))
    return re.sub(rb"septet-deadline: \d{13}|Date: [^\r]*", b"<time>", data)


@pytest.fixture
async def world() -> World:
    return World()


@pytest.mark.parametrize(
    "data",
    [
        request(),
        request(body=b"name=ann"),
        request(method="POST", body=b"%d %b %"),
        request(method="DELETE", path="/fn/default/hello"),
        request(lines="X-Percent: 100%\r\nConnection: X-Gone\r\nX-Gone: 1\r\nX-Forwarded-For: 9.9.9.9\r\n"),
        request(path="/fn/default/hello@hello-00001/a/%2e%2e/b"),
    ],
)
async def test_the_same_bytes_go_to_the_function_and_to_the_client(world: World, data: bytes) -> None:
    front, pipe = world.connect()
    to_function, to_client = [], []
    for _ in range(4):
        front.data_received(data)
        sent = world.links[0][1].take()
        found = frames.FrameDecoder().feed(sent)
        stream = found[0].stream
        to_function.append((masked(found[0].head), b"".join(frame.body for frame in found), found[-1].flags))
        world.say(frames.encode(frames.STARTED, stream))
        world.say(frames.encode(frames.REPLY, stream, REPLY, b"hello", frames.END))
        await world.settle()
        to_client.append(masked(pipe.take()))
    assert world.records.express == 2
    assert len(set(to_function)) == 1, to_function
    assert len(set(to_client)) == 1, to_client
    assert to_client[0].endswith(b"\r\n\r\nhello")
    assert TOKEN.encode() not in to_function[0][0]


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 404 \r\ncontent-length: 5\r\nx-rate: 5%\r\n",
        b"HTTP/1.1 200 \r\ncontent-length: 5\r\ndate: yesterday\r\nx-request-id: forged\r\nconnection: close\r\n",
        b"HTTP/1.1 503 \r\ncontent-length: 5\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n",
    ],
)
async def test_the_same_bytes_come_back_whatever_the_reply_says(head: bytes) -> None:
    world = World(reply_lines=b"X-Call: {invocation} 100%\r\n")
    front, pipe = world.connect()
    answers = [masked(await world.whole(front, pipe, request(), head)) for _ in range(4)]
    assert world.records.express == 2 or (b" 503 " in head and world.records.express < 2)
    assert len(set(answers)) == 1, answers
    assert b"X-Call: <id> 100%" in answers[0] and b"forged" not in answers[0]


async def test_records_and_metrics_are_those_of_the_usual_way(world: World) -> None:
    front, pipe = world.connect()
    before = time.time()
    for _ in range(4):
        await world.whole(front, pipe, request(method="POST", body=b"12345678"))
    usual, _, _, express = world.records.kept
    assert world.records.express == 2
    own = {"id": "", "correlation": "", "queued_at": 0.0, "started_at": 0.0, "first_byte_at": 0.0, "ended_at": 0.0}
    assert msgspec.structs.replace(usual, **own, phases={}) == msgspec.structs.replace(express, **own, phases={})
    assert set(usual.phases) == set(express.phases)
    assert before - 0.01 <= express.queued_at <= express.started_at <= express.first_byte_at <= express.ended_at
    assert express.ended_at <= time.time() + 0.01
    assert express.correlation == express.id and ID.fullmatch(express.id.encode())
    text = world.metrics.render().decode()
    assert 'faas_invocations_total{function="hello",namespace="default",revision="hello-00001"' in text
    assert re.search(r"faas_invocations_total\{.*\} 4.0", text)
    assert re.search(r"septet_request_bytes_total\{.*\} 32.0", text)
    assert re.search(r"septet_reply_bytes_total\{.*\} 20.0", text)
    assert world.calls.open == 0 and world.pool.running(KEY, "i-0") == 0


@pytest.mark.parametrize(
    "lines",
    ["X-Request-Id: mine\r\n", "traceparent: 00-" + "a" * 32 + "-" + "b" * 16 + "-01\r\n", "Expect: 100-continue\r\n"],
)
async def test_lines_that_mean_one_call_never_take_it(world: World, lines: str) -> None:
    front, pipe = world.connect()
    for _ in range(4):
        await world.whole(front, pipe, request(lines=lines))
    assert world.records.express == 0 and len(world.records.kept) == 4


@pytest.mark.parametrize(
    ("method", "head", "body"),
    [
        ("HEAD", REPLY, b""),
        ("GET", b"HTTP/1.1 204 \r\n", b""),
        ("GET", b"HTTP/1.1 304 \r\ncontent-length: 5\r\n", b""),
        ("GET", b"HTTP/1.1 200 \r\ntransfer-encoding: chunked\r\n", b"hello"),
        ("GET", b"HTTP/1.1 200 \r\n", b"hello"),
    ],
)
async def test_replies_without_a_plain_body_go_the_usual_way(
    world: World, method: str, head: bytes, body: bytes
) -> None:
    front, pipe = world.connect()
    answers = [masked(await world.whole(front, pipe, request(method=method), head, body)) for _ in range(4)]
    assert world.records.express == 0 and len(set(answers)) == 1
    assert [record.status for record in world.records.kept] == [int(head[9:12])] * 4


async def test_a_revoked_token_is_refused_at_once(world: World) -> None:
    front, pipe = await world.learned()
    world.known.clear()
    world.table.touch()
    front.data_received(request())
    assert pipe.take().startswith(b"HTTP/1.1 401 ") and not world.heard()


async def test_an_expired_token_is_refused(world: World) -> None:
    soon = time.time() + 0.2
    world.known[TOKEN] = Caller(name="ann", namespaces=("default",), verbs=(INVOKE,), expires_at=soon)
    front, pipe = await world.learned()
    while time.time() <= soon:
        await asyncio.sleep(0.02)
    front.data_received(request())
    assert pipe.take().startswith(b"HTTP/1.1 401 ")


async def test_a_change_of_the_table_counts_at_once(world: World) -> None:
    front, pipe = await world.learned()
    world.table.apply(Change(2, "delete", "Function", world.table._functions["default", "hello"]))
    front.data_received(request())
    assert pipe.take().startswith(b"HTTP/1.1 404 ")


async def test_after_a_change_it_is_decided_once_more(world: World) -> None:
    front, pipe = await world.learned()
    world.table.touch()
    for _ in range(3):
        await world.whole(front, pipe, request())
    assert world.records.express == 3, "the first call after the change went the usual way"


async def test_each_call_comes_from_its_own_address(world: World) -> None:
    front, _ = await world.learned()
    other, _ = world.connect("192.0.2.7")
    for each, host in ((other, b"192.0.2.7"), (front, b"127.0.0.1")):
        frame = await world.asks(each)
        assert frame.head.count(b"x-forwarded-for:") == 1
        assert b"x-forwarded-for: %b\r\n" % host in frame.head


async def test_a_caller_that_is_believed_has_lanes_of_its_own() -> None:
    world = World(trusted=("10.0.0.0/8",))
    data = request(lines="X-Forwarded-For: 9.9.9.9\r\n")
    await world.learned(data)
    proxy, pipe = world.connect("10.1.2.3")
    for number in range(4):
        proxy.data_received(data)
        assert isinstance(proxy._receiver, ExpressCall) == (number >= 2)
        (frame,) = world.heard()
        assert b"x-forwarded-for: 9.9.9.9, 10.1.2.3\r\n" in frame.head
        answers(world, frame)
        await world.settle()
    assert pipe.take().count(b"\r\n\r\nhello") == 4


async def test_rates_are_counted_call_by_call(world: World) -> None:
    quota = Quota(requests=0.001, burst=3)
    space = Namespace(meta=Meta(name="default"), spec=NamespaceSpec(quota=quota))
    world.table.apply(Change(3, "put", "Namespace", space))
    front, pipe = world.connect()
    answers: list[bytes] = []
    while not answers or answers[-1].startswith(b"HTTP/1.1 200 "):
        front.data_received(request())
        for frame in world.heard():
            world.say(frames.encode(frames.REPLY, frame.stream, REPLY, b"hello", frames.END))
        await world.settle()
        answers.append(pipe.take())
        assert len(answers) <= 5, "the burst is over"
    assert len(answers) > 3 and answers[-1].startswith(b"HTTP/1.1 429 ")
    assert world.records.express == 0


async def test_shared_traffic_is_shared_call_by_call(world: World) -> None:
    world.revision("hello-00002")
    world.function(("hello-00001", 99), ("hello-00002", 1))
    front, pipe = world.connect()
    for _ in range(4):
        await world.whole(front, pipe, request())
    assert world.records.express == 0


async def test_beyond_the_concurrency_calls_wait() -> None:
    world = World(concurrency=1)
    front, pipe = await world.learned()
    other, answer = world.connect()
    frame = await world.asks(front)
    other.data_received(request())
    assert not world.heard(), "one call at a time"
    world.say(frames.encode(frames.REPLY, frame.stream, REPLY, b"first", frames.END))
    (second,) = world.heard()
    world.say(frames.encode(frames.REPLY, second.stream, REPLY, b"later", frames.END))
    await world.settle()
    assert pipe.take().endswith(b"first") and answer.take().endswith(b"later")


async def test_a_reply_in_pieces_goes_on_the_usual_way(world: World) -> None:
    front, pipe = await world.learned()
    frame = await world.asks(front)
    world.say(frames.encode(frames.STARTED, frame.stream), frames.encode(frames.REPLY, frame.stream, REPLY, b"he"))
    await world.settle()
    world.say(frames.encode(frames.DATA, frame.stream, b"", b"llo", frames.END))
    await world.settle()
    answer = pipe.take()
    record = world.records.kept[-1]
    assert answer.endswith(b"\r\n\r\nhello")
    assert record.id.encode() in answer and record.id.encode() in frame.head
    assert (record.status, record.bytes_out, record.instance) == (200, 5, "i-0")
    assert (await world.whole(front, pipe, request())).endswith(b"hello")
    assert world.records.express == 2


async def test_output_belongs_to_its_call(world: World) -> None:
    front, _ = await world.learned()
    frame = await world.asks(front)
    world.say(frames.encode(frames.STARTED, frame.stream), frames.encode(frames.LOG, frame.stream, b"stderr", b"uh"))
    world.say(frames.encode(frames.REPLY, frame.stream, REPLY, b"hello", frames.END))
    assert world.logs == [(world.records.kept[-1].id, "stderr", b"uh")] and world.records.express == 2


async def test_a_raised_error_is_told(world: World) -> None:
    front, pipe = await world.learned()
    frame = await world.asks(front)
    world.say(frames.encode(frames.ERROR, frame.stream, b"", b'{"type":"ValueError","message":"no","trace":""}'))
    await world.settle()
    answer = pipe.take()
    assert answer.startswith(b"HTTP/1.1 500 ") and b"ValueError" in answer
    assert world.records.kept[-1].error and world.records.kept[-1].status == 500


async def test_a_frame_that_comes_in_bytes(world: World) -> None:
    front, pipe = await world.learned()
    frame = await world.asks(front)
    said = frames.encode(frames.STARTED, frame.stream)
    said += frames.encode(frames.REPLY, frame.stream, REPLY, b"hello", frames.END)
    for byte in said:
        world.say(bytes([byte]))
    await world.settle()
    assert pipe.take().endswith(b"\r\n\r\nhello")


async def test_a_body_of_another_length_than_told_is_refused(world: World) -> None:
    front, pipe = await world.learned()
    frame = await world.asks(front)
    world.say(frames.encode(frames.REPLY, frame.stream, REPLY, b"hello, smuggled", frames.END))
    await world.settle()
    assert b"smuggled" not in pipe.take()
    assert world.records.kept[-1].error == "bad-reply"


async def test_a_client_that_leaves_cancels_the_call(world: World) -> None:
    front, _ = await world.learned()
    frame = await world.asks(front)
    world.say(frames.encode(frames.STARTED, frame.stream))
    front.connection_lost(None)
    (cancel,) = world.heard()
    assert (cancel.type, cancel.stream) == (frames.CANCEL, frame.stream)
    assert world.pool.running(KEY, "i-0") == 1
    world.say(frames.encode(frames.GONE, frame.stream))
    assert world.pool.running(KEY, "i-0") == 0 and world.calls.open == 0
    assert world.records.kept[-1].status == 499


async def test_the_deadline_counts() -> None:
    world = World(timeout=0.2)
    front, pipe = await world.learned()
    frame = await world.asks(front)
    end = world.loop.time() + 5
    while not pipe.sent and world.loop.time() < end:
        await asyncio.sleep(0.02)
    assert pipe.take().startswith(b"HTTP/1.1 504 ")
    assert [found.type for found in world.heard()] == [frames.CANCEL] and frame.stream


@pytest.mark.parametrize("body", [b"", b"payload"])
async def test_a_call_that_had_not_begun_moves_with_its_body(world: World, body: bytes) -> None:
    data = request(body=body)
    front, pipe = await world.learned(data)
    await world.asks(front, data)
    world.instance()
    world.links[0][0].connection_lost(None)
    moved = world.heard(1)
    assert b"".join(frame.body for frame in moved) == body
    world.say(frames.encode(frames.REPLY, moved[0].stream, REPLY, b"hello", frames.END), link=1)
    await world.settle()
    assert pipe.take().endswith(b"\r\n\r\nhello")
    assert (world.records.kept[-1].instance, world.lost) == ("i-1", 1)


async def test_a_call_that_had_begun_does_not_move(world: World) -> None:
    front, pipe = await world.learned()
    frame = await world.asks(front)
    world.say(frames.encode(frames.STARTED, frame.stream))
    world.instance()
    world.links[0][0].connection_lost(None)
    await world.settle()
    assert not world.heard(1) and pipe.take().startswith(b"HTTP/1.1 502 ")


async def test_pipelined_requests_are_answered_in_order(world: World) -> None:
    front, pipe = await world.learned()
    first = await world.asks(front)
    front.data_received(request() + request())
    assert not world.heard(), "a connection has one call at a time"
    for number in range(3):
        stream = first.stream if number == 0 else world.heard()[0].stream
        world.say(frames.encode(frames.REPLY, stream, REPLY, b"call%d" % number, frames.END))
        await world.settle()
    assert re.findall(rb"\r\n\r\n(call\d)", pipe.take()) == [b"call0", b"call1", b"call2"]


async def test_too_much_ahead_of_its_answer_is_not_read(world: World) -> None:
    front, pipe = await world.learned()
    stream = (await world.asks(front)).stream
    front.data_received(request() * 20)
    assert not pipe.reading
    for _ in range(20):
        world.say(frames.encode(frames.REPLY, stream, REPLY, b"hello", frames.END))
        await world.settle()
        stream = world.heard()[0].stream
    world.say(frames.encode(frames.REPLY, stream, REPLY, b"hello", frames.END))
    await world.settle()
    assert pipe.reading and pipe.take().count(b"\r\n\r\nhello") == 21


async def test_a_half_closed_client_gets_its_answer_and_the_end(world: World) -> None:
    front, pipe = await world.learned()
    frame = await world.asks(front)
    assert front.eof_received()
    world.say(frames.encode(frames.REPLY, frame.stream, REPLY, b"hello", frames.END))
    await world.settle()
    assert pipe.take().endswith(b"hello") and pipe.ended


async def test_a_client_that_takes_nothing_is_waited_for(world: World) -> None:
    front, pipe = await world.learned()
    frame = await world.asks(front)
    front.pause_writing()
    world.say(frames.encode(frames.REPLY, frame.stream, REPLY, b"hello", frames.END))
    await world.settle()
    front.resume_writing()
    await world.settle()
    assert pipe.take().endswith(b"hello")
    assert (await world.whole(front, pipe, request())).endswith(b"hello")


async def test_a_listener_that_drains_says_so(world: World) -> None:
    front, pipe = await world.learned()
    frame = await world.asks(front)
    world.desk.draining = True
    world.say(frames.encode(frames.REPLY, frame.stream, REPLY, b"hello", frames.END))
    await world.settle()
    assert b"Connection: close\r\n" in pipe.take()


async def test_a_platform_that_stops_takes_no_further_call(world: World) -> None:
    front, pipe = await world.learned()
    world.calls.close()
    front.data_received(request())
    assert pipe.take().startswith(b"HTTP/1.1 503 ") and not world.heard()


async def test_a_link_that_closes_waits_for_it(world: World) -> None:
    front, pipe = await world.learned()
    frame = await world.asks(front)
    closing = asyncio.ensure_future(world.links[0][0].close(5))
    await world.settle()
    assert not closing.done()
    world.say(frames.encode(frames.REPLY, frame.stream, REPLY, b"hello", frames.END))
    await asyncio.wait_for(closing, 2)
    assert pipe.take().endswith(b"hello")


# -- calls that wait


def answers(world: World, frame: frames.Frame, body: bytes = b"hello") -> None:
    world.say(frames.encode(frames.STARTED, frame.stream))
    world.say(frames.encode(frames.REPLY, frame.stream, REPLY, body, frames.END))


async def test_a_client_that_leaves_while_its_call_waits() -> None:
    world = World(concurrency=1)
    front, _ = await world.learned()
    other, _ = world.connect()
    running = await world.asks(front)
    other.data_received(request())
    assert isinstance(other._receiver, ExpressCall)
    other.connection_lost(None)
    answers(world, running)
    assert not world.heard() and world.calls.open == 0
    assert [record.status for record in world.records.kept[-2:]] == [499, 200]
    assert world.pool.sample(KEY).waiting == 0


async def test_a_queue_that_is_full_and_a_wait_that_is_too_long() -> None:
    world = World(concurrency=1, queue=1, queue_timeout=0.1)
    front, _ = await world.learned()
    await world.asks(front)
    waiting, first = world.connect()
    refused, second = world.connect()
    waiting.data_received(request())
    refused.data_received(request())
    assert second.take().startswith(b"HTTP/1.1 429 ") or b"queue 1" in second.sent
    end = world.loop.time() + 5
    while not first.sent and world.loop.time() < end:
        await asyncio.sleep(0.01)
    assert first.take().startswith(b"HTTP/1.1 503 ")
    assert [record.error for record in world.records.kept[-2:]] == ["queue-full", "queue-timeout"]


async def test_a_wait_is_in_the_record() -> None:
    world = World(concurrency=1)
    front, _ = await world.learned()
    other, _ = world.connect()
    running = await world.asks(front)
    other.data_received(request())
    await asyncio.sleep(0.05)
    answers(world, running)
    (frame,) = world.heard()
    answers(world, frame)
    record = world.records.kept[-1]
    assert record.phases["queue"] >= 0.04 and record.cold == ""
    assert record.started_at - record.queued_at == pytest.approx(record.phases["queue"], abs=0.001)


async def test_a_wait_for_a_new_instance_is_a_cold_start() -> None:
    world = World(concurrency=1)
    front, _ = await world.learned()
    await world.asks(front)
    other, pipe = world.connect()
    other.data_received(request())
    world.instance()
    (frame,) = world.heard(1)
    world.say(frames.encode(frames.REPLY, frame.stream, REPLY, b"hello", frames.END), link=1)
    assert world.records.kept[-1].cold == "burst" and pipe.take().endswith(b"hello")


# -- calls that wait inside a serial instance


async def ahead_world(calls: int = WINDOW) -> tuple[World, list[tuple[Front, Pipe]]]:
    """A serial instance whose calls are known to be short, and connections that are known."""
    world = World(concurrency=1, ahead=True)
    front, pipe = await world.learned()
    for _ in range(calls):
        await world.whole(front, pipe, request())
    world.heard()
    return world, [(front, pipe)] + [world.connect() for _ in range(DEPTH + 3)]


async def test_short_calls_wait_inside_their_instance() -> None:
    world, fronts = await ahead_world()
    for front, _ in fronts:
        front.data_received(request())
    sent = [frame.type for frame in world.heard()]
    assert sent == [frames.REQUEST, frames.AHEAD], "it is asked, and did not agree yet"


async def test_an_instance_that_always_had_room_is_not_asked_to_listen() -> None:
    world, fronts = await ahead_world()
    for front, pipe in fronts:
        await world.whole(front, pipe, request())
    assert frames.AHEAD not in [frame.type for frame in world.heard()]


async def test_no_more_than_the_depth_wait_there() -> None:
    world, fronts = await ahead_world()
    await world.agrees()
    for front, _ in fronts:
        front.data_received(request())
    inside = [frame for frame in world.heard() if frame.type == frames.REQUEST]
    depth = world.pool.of(KEY)._depth
    assert 1 <= depth <= DEPTH and len(inside) == 1 + depth
    assert world.pool.sample(KEY).waiting == len(fronts) - 1 - depth
    for number in range(len(fronts)):
        answers(world, inside[number], b"cal%02d" % number)
        inside += [frame for frame in world.heard() if frame.type == frames.REQUEST]
    assert [pipe.take()[-5:] for _, pipe in fronts] == [b"cal%02d" % number for number in range(len(fronts))]
    assert world.calls.open == 0 and world.pool.running(KEY, "i-0") == 0


async def test_before_calls_are_known_to_be_short_none_waits_there() -> None:
    world, fronts = await ahead_world(WINDOW // 2)
    await world.agrees()
    for front, _ in fronts:
        front.data_received(request())
    assert [frame.type for frame in world.heard()] == [frames.REQUEST]


async def test_those_behind_a_long_call_are_asked_for_and_go_elsewhere() -> None:
    world, fronts = await ahead_world()
    await world.agrees()
    for front, _ in fronts[:3]:
        front.data_received(request())
    inside = world.heard()
    world.say(frames.encode(frames.STARTED, inside[0].stream))
    end = world.loop.time() + 5
    asked: list[frames.Frame] = []
    while not asked and world.loop.time() < end:
        await asyncio.sleep(0.005)
        asked = world.heard()
    assert [frame.type for frame in asked] == [frames.RECALL]
    for frame in reversed(inside[1:]):
        world.say(frames.encode(frames.GONE, frame.stream, flags=frames.NEVER_STARTED))
    assert not world.heard(), "they wait outside now"
    world.instance()
    for _ in range(2):
        (moved,) = [frame for frame in world.heard(1) if frame.type == frames.REQUEST]
        world.say(frames.encode(frames.REPLY, moved.stream, REPLY, b"moved", frames.END), link=1)
    assert [pipe.take()[-5:] for _, pipe in fronts[:3]] == [b"", b"moved", b"moved"]
    answers(world, inside[0], b"long.")
    assert fronts[0][1].take().endswith(b"long.")


async def test_the_calls_inside_an_instance_that_dies_move() -> None:
    world, fronts = await ahead_world()
    await world.agrees()
    for front, _ in fronts[:3]:
        front.data_received(request())
    inside = world.heard()
    world.say(frames.encode(frames.STARTED, inside[0].stream))
    world.instance()
    world.links[0][0].connection_lost(None)
    for _ in range(2):
        (moved,) = [frame for frame in world.heard(1) if frame.type == frames.REQUEST]
        world.say(frames.encode(frames.REPLY, moved.stream, REPLY, b"moved", frames.END), link=1)
    await world.settle()
    taken = [pipe.take() for _, pipe in fronts[:3]]
    assert taken[0].startswith(b"HTTP/1.1 502 ") and taken[1].endswith(b"moved") and taken[2].endswith(b"moved")


async def test_what_is_remembered_is_bounded(world: World) -> None:
    front, pipe = await world.learned()
    for number in range(100):
        head = b"HTTP/1.1 200 \r\nx-number: %d\r\ncontent-length: 5\r\n" % number
        await world.whole(front, pipe, request(), head)
    for lane in front._lanes.values():
        assert len(lane.replies) <= 64
    world.desk.remember(REMEMBERED)
    assert not front._lanes
    for _ in range(3):
        await world.whole(front, pipe, request())
    assert front._lanes, "it begins anew"


async def test_a_request_that_is_new_each_time_is_not_remembered(world: World) -> None:
    front, pipe = world.connect()
    for number in range(10):
        await world.whole(front, pipe, request(lines=f"X-Number: {number}\r\n"))
    assert not front._lanes
