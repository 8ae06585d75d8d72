"""Calls through a real socket: framing, persistence, bodies, heads."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from tests.unit.dataplane.front.conftest import Bench, FakeUpload, Start, until

from septet.model.errors import (
    Forbidden,
    FunctionCrashed,
    FunctionRaised,
    InstanceLost,
    MethodNotAllowed,
    QueueFull,
    Unauthenticated,
)
from septet.model.instance import LimitMet
from septet.ports.contract import ReplyHead

GET = b"GET /fn/default/hello HTTP/1.1\r\nHost: a.example\r\n\r\n"


def problem(body: bytes) -> dict[str, object]:
    found = json.loads(body)
    assert isinstance(found, dict)
    return found


async def test_a_call_reaches_the_function_and_its_answer_the_client(bench: Bench) -> None:
    got = await bench.exchange(b"GET /fn/default/hello/a%2Fb?x=1&y HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n\r\n")
    assert (got.status, got.body) == (200, b"ok")
    head = bench.link.uploads[0].head
    assert (head.method, head.target, head.length, head.upgrade) == (b"GET", b"/default/hello/a%2Fb?x=1&y", 0, b"")
    assert bench.link.uploads[0].lines()[b"host"] == b"a.example"
    assert bench.link.uploads[0].lines()[b"accept"] == b"*/*"
    assert bench.link.uploads[0].ended


async def test_the_record_has_times_sizes_and_status(bench: Bench) -> None:
    await bench.exchange(b"POST /fn/default/hello HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
    (done,) = bench.dispatcher.done
    assert 0 < done.queued_at <= done.started_at <= done.first_byte_at <= done.ended_at
    assert (done.status, done.bytes_in, done.bytes_out, done.error) == (200, 5, 2, None)
    assert done.instance == "i-1"
    assert bench.dispatcher.left == 1


async def test_invocation_ids_are_128_bits_and_differ(bench: Bench) -> None:
    client = await bench.connect()
    seen = set()
    for _ in range(600):
        await client.send(GET)
        got = await client.response()
        assert re.fullmatch("[0-9a-f]{32}", got.lines["septet-invocation-id"])
        seen.add(got.lines["septet-invocation-id"])
    assert len(seen) == 600


async def test_keep_alive_serves_one_request_after_another(bench: Bench) -> None:
    client = await bench.connect()
    for number in range(3):
        await client.send(b"POST /fn/default/hello HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n%d" % number)
        assert (await client.response()).status == 200
    assert [upload.body for upload in bench.link.uploads] == [b"0", b"1", b"2"]


async def test_pipelined_requests_are_served_in_order_one_at_a_time(bench: Bench) -> None:
    bench.link.script = lambda upload: None
    client = await bench.connect()
    await client.send(b"".join(GET.replace(b"hello", b"h%d" % n) for n in range(5)))
    for number in range(5):
        while len(bench.link.uploads) <= number:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        assert len(bench.link.uploads) == number + 1
        bench.link.uploads[number].answer(b"%d" % number)
        assert (await client.response()).body == b"%d" % number


async def test_a_thousand_pipelined_requests_with_immediate_answers(bench: Bench) -> None:
    client = await bench.connect()
    await client.send(GET * 1000)
    for _ in range(1000):
        assert (await client.response()).status == 200


async def test_pipelined_bytes_are_capped(bench: Bench) -> None:
    """While a call runs, further requests are not read without bound: the client's sending stalls."""
    bench.link.script = lambda upload: None
    client = await bench.connect()
    client.writer.transport.set_write_buffer_limits(high=0)
    await client.send(GET)
    await until(lambda: len(bench.link.uploads) == 1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            for _ in range(2000):
                await client.send(GET * 200)
    (front,) = bench.listener._desk.connections  # type: ignore[union-attr]
    assert len(front._buffer) <= 64 * 1024 + 512 * 1024


async def test_an_empty_line_between_requests_is_passed_over(bench: Bench) -> None:
    client = await bench.connect()
    await client.send(GET + b"\r\n" + GET)
    assert (await client.response()).status == 200
    assert (await client.response()).status == 200


async def test_a_head_may_come_byte_by_byte(bench: Bench) -> None:
    client = await bench.connect()
    for at in range(len(GET)):
        await client.send(GET[at : at + 1])
        await asyncio.sleep(0)
    assert (await client.response()).status == 200


async def test_head_gets_lines_and_length_but_no_body(bench: Bench) -> None:
    client = await bench.connect()
    bench.link.script = lambda upload: upload.answer(b"12345")
    await client.send(GET.replace(b"GET", b"HEAD") + GET)
    got = await client.response("HEAD")
    assert got.lines["content-length"] == "5"
    assert (await client.response()).body == b"12345"


async def test_head_of_an_unknown_length_states_none(bench: Bench) -> None:
    bench.link.script = lambda upload: upload.answer(b"")
    got = await bench.exchange(GET.replace(b"GET", b"HEAD"), "HEAD")
    assert "content-length" not in got.lines


@pytest.mark.parametrize("status", [204, 304])
async def test_statuses_without_a_body(bench: Bench, status: int) -> None:
    def script(upload: FakeUpload) -> None:
        upload.reply.head(ReplyHead(status, b"X-A: b\r\n", None))
        upload.reply.end()

    bench.link.script = script
    client = await bench.connect()
    await client.send(GET + GET)
    for _ in range(2):
        got = await client.response()
        assert got.status == status
        assert "transfer-encoding" not in got.lines
        assert got.lines["x-a"] == "b"


async def test_a_reply_of_unknown_length_is_chunked(bench: Bench) -> None:
    def script(upload: FakeUpload) -> None:
        upload.reply.head(ReplyHead(200, b"", None))
        upload.reply.data(b"one")
        upload.reply.data(b"two")
        upload.reply.end()

    bench.link.script = script
    client = await bench.connect()
    await client.send(GET + GET)
    for _ in range(2):
        got = await client.response()
        assert (got.lines["transfer-encoding"], got.body) == ("chunked", b"onetwo")


async def test_http_1_0_is_answered_without_chunks_and_closed(bench: Bench) -> None:
    def script(upload: FakeUpload) -> None:
        upload.reply.head(ReplyHead(200, b"", None))
        upload.reply.data(b"body")
        upload.reply.end()

    bench.link.script = script
    client = await bench.connect()
    await client.send(b"GET /fn/default/hello HTTP/1.0\r\n\r\n")
    status, pairs = await client.head()
    assert status == 200
    assert dict(pairs)["connection"] == "close"
    assert "transfer-encoding" not in dict(pairs)
    assert await client.closed() == b"body"


async def test_http_1_0_keep_alive_when_asked(bench: Bench) -> None:
    client = await bench.connect()
    for _ in range(2):
        await client.send(b"GET /fn/default/hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (await client.response()).lines["connection"] == "keep-alive"


async def test_connection_close_is_honoured(bench: Bench) -> None:
    client = await bench.connect()
    await client.send(b"GET /fn/default/hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET)
    got = await client.response()
    assert got.lines["connection"] == "close"
    assert await client.closed() == b""
    assert len(bench.link.uploads) == 1


async def test_chunked_request_bodies(bench: Bench) -> None:
    client = await bench.connect()
    head = b"POST /fn/default/hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    await client.send(head + b"5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX-Trailer: t\r\n\r\n" + GET)
    assert (await client.response()).status == 200
    assert (await client.response()).status == 200
    first, second = bench.link.uploads
    assert (first.body, first.head.length, second.head.length) == (b"hello world", None, 0)
    assert b"trailer" not in first.head.lines.lower()


async def test_a_broken_chunk_ends_call_and_connection(bench: Bench) -> None:
    client = await bench.connect()
    head = b"POST /fn/default/hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    await client.send(head + b"5\r\nhelloXX0\r\n\r\n" + GET)
    got = await client.response()
    assert (got.status, problem(got.body)["type"]) == (400, "urn:septet:error:malformed-request")
    assert await client.closed() == b""
    assert [upload.cancelled for upload in bench.link.uploads] == [True]
    assert bench.dispatcher.left == 1


async def test_expect_100_is_answered_when_an_instance_was_granted(bench: Bench) -> None:
    bench.dispatcher.hold = True
    client = await bench.connect()
    await client.send(b"POST /fn/a/b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    await until(lambda: len(bench.dispatcher.waiting) == 1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.reader.readexactly(1), 0.1)
    bench.dispatcher.release()
    assert (await client.response()).status == 100
    await client.send(b"hi")
    assert (await client.response()).status == 200
    assert bench.link.uploads[0].body == b"hi"
    assert b"expect" not in bench.link.uploads[0].lines()


async def test_expect_100_gets_the_final_status_when_none_was_granted(bench: Bench) -> None:
    bench.dispatcher.hold = True
    client = await bench.connect()
    await client.send(b"POST /fn/a/b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    await until(lambda: len(bench.dispatcher.waiting) == 1)
    bench.dispatcher.waiting.pop().fail(QueueFull("full", limit="queue 1", retry_after=2.0))
    got = await client.response()
    assert (got.status, got.lines["retry-after"], got.lines["connection"]) == (429, "2", "close")
    assert await client.closed() == b""


async def test_expect_100_with_too_large_a_body(bench: Bench) -> None:
    bench.dispatcher.target = bench.dispatcher.target._replace(request_body=10)
    client = await bench.connect()
    await client.send(b"POST /fn/a/b HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n")
    assert (await client.response()).status == 413
    assert await client.closed() == b""
    assert not bench.link.uploads


@pytest.mark.parametrize("framing", [b"Content-Length: 11\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nb\r\n"])
async def test_bodies_above_the_limit_get_413(bench: Bench, framing: bytes) -> None:
    bench.dispatcher.target = bench.dispatcher.target._replace(request_body=10)
    got = await bench.exchange(b"POST /fn/a/b HTTP/1.1\r\nHost: a\r\n" + framing + b"12345678901")
    assert (got.status, problem(got.body)["limit"]) == (413, "request_body 10 bytes")


async def test_the_answer_to_a_small_refused_body_keeps_the_connection(bench: Bench) -> None:
    client = await bench.connect()
    await client.send(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
    assert (await client.response()).status == 404
    await client.send(b"x" * 100 + GET)
    assert (await client.response()).status == 200


async def test_a_final_reply_before_the_body_is_complete(bench: Bench) -> None:
    """The function answers without reading: the client gets the answer, the rest of a large body is not wanted."""
    bench.link.script = lambda upload: upload.answer(b"early")
    client = await bench.connect()
    await client.send(b"POST /fn/a/b HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 1000)
    assert (await client.response()).body == b"early"
    assert await client.closed() == b""
    assert bench.dispatcher.left == 1


async def test_problems_say_what_where_and_how_to_go_on(bench: Bench) -> None:
    got = await bench.exchange(b"GET /elsewhere HTTP/1.1\r\nHost: a\r\n\r\n")
    found = problem(got.body)
    assert got.lines["content-type"] == "application/problem+json"
    assert (got.status, found["type"], found["status"], found["stage"]) == (
        404,
        "urn:septet:error:not-found",
        404,
        "route",
    )
    assert {"title", "detail", "hint", "retryable"} <= found.keys()


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (Unauthenticated("who are you"), 401, ("www-authenticate", 'Bearer realm="septet"')),
        (Forbidden("not you"), 403, None),
        (MethodNotAllowed("no", details={"allow": ["GET", "PUT"]}), 405, ("allow", "GET, PUT")),
        (QueueFull("full"), 429, ("retry-after", "1")),
    ],
)
async def test_refusals(bench: Bench, error: Exception, status: int, line: tuple[str, str] | None) -> None:
    bench.dispatcher.refusal = error  # type: ignore[assignment]
    got = await bench.exchange(GET)
    assert got.status == status
    assert line is None or line in got.raw_lines


async def test_a_fault_in_the_routing_is_500_and_heard_of(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: heard.append(context["exception"]))
    monkeypatch.setattr(bench.dispatcher, "route", lambda head, peer: 1 // 0)
    got = await bench.exchange(GET)
    assert (got.status, problem(got.body)["type"]) == (500, "urn:septet:error:internal")
    assert isinstance(heard[0], ZeroDivisionError)


async def test_a_crash_before_the_reply_is_502_with_the_invocation(bench: Bench) -> None:
    bench.link.script = lambda upload: upload.reply.failed(FunctionCrashed("the process ended", hint="see the logs"))
    got = await bench.exchange(GET)
    found = problem(got.body)
    assert (got.status, found["type"]) == (502, "urn:septet:error:function-crashed")
    assert found["invocation"] == got.lines["septet-invocation-id"]
    assert bench.dispatcher.done[0].error is not None


async def test_a_failure_of_the_functions_own_names_the_limit_that_its_instance_met(bench: Bench) -> None:
    bench.dispatcher.met = (LimitMet(name="pids", value="64", times=3),)
    bench.link.script = lambda upload: setattr(
        upload, "on_end", lambda up: up.answer(b"sorry", 500, b"septet-limit: forged\r\n")
    )
    got = await bench.exchange(GET)
    assert (got.status, got.body) == (500, b"sorry")
    assert [value for name, value in got.raw_lines if name == "septet-limit"] == ["pids 64"]
    assert (bench.dispatcher.done[0].limit, bench.dispatcher.done[0].error) == ("pids 64", None)


async def test_an_error_that_the_handler_raised_names_the_limit_that_its_instance_met(bench: Bench) -> None:
    bench.dispatcher.met = (LimitMet(name="tmp", value="8 MiB"),)
    bench.link.script = lambda upload: upload.reply.failed(FunctionRaised("it raised ValueError"))
    found = problem((await bench.exchange(GET)).body)
    assert found["limit"] == "tmp 8 MiB"
    assert str(found["detail"]).endswith("its instance met its limit of tmp 8 MiB")
    bench.link.script = lambda upload: upload.reply.failed(FunctionRaised("it raised OSError", limit="open files"))
    assert problem((await bench.exchange(GET)).body)["limit"] == "open files", "it said so itself"


@pytest.mark.parametrize("length", [None, 100])
async def test_a_crash_after_the_reply_began_cuts_the_connection(bench: Bench, length: int | None) -> None:
    def script(upload: FakeUpload) -> None:
        upload.reply.head(ReplyHead(200, b"", length))
        upload.reply.data(b"part")
        upload.reply.failed(FunctionCrashed("the process ended"))

    bench.link.script = script
    client = await bench.connect()
    await client.send(GET)
    assert (await client.head())[0] == 200
    rest = await client.closed()
    assert rest == (b"4\r\npart\r\n" if length is None else b"part")
    assert bench.dispatcher.left == 1


async def test_a_crash_during_an_http_1_0_reply_is_a_reset(bench: Bench) -> None:
    bench.link.script = lambda upload: upload.reply.head(ReplyHead(200, b"", None))
    client = await bench.connect()
    await client.send(b"GET /fn/default/hello HTTP/1.0\r\n\r\n")
    await client.head()
    bench.link.uploads[0].reply.failed(FunctionCrashed("the process ended"))
    assert await client.closed() == b"<reset>"


@pytest.mark.parametrize(
    ("length", "pieces"), [(3, [b"four"]), (3, [b"tw"]), (0, [b"x"])], ids=["longer", "shorter", "none declared"]
)
async def test_a_reply_that_belies_its_length_is_cut(bench: Bench, length: int, pieces: list[bytes]) -> None:
    def script(upload: FakeUpload) -> None:
        upload.reply.head(ReplyHead(200, b"", length))
        for piece in pieces:
            upload.reply.data(piece)
        upload.reply.end()

    bench.link.script = script
    client = await bench.connect()
    await client.send(GET)
    await client.head()
    await client.closed()
    (done,) = bench.dispatcher.done
    assert done.error is not None
    assert done.error.code == "bad-reply"


async def test_an_instance_lost_before_the_call_began_moves_it(bench: Bench) -> None:
    def lose(upload: FakeUpload) -> None:
        bench.link.at_once = None
        asyncio.get_running_loop().call_soon(lambda: upload.reply.failed(InstanceLost("gone")))

    bench.link.at_once = lose
    got = await bench.exchange(b"POST /fn/a/b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
    assert (got.status, bench.dispatcher.again) == (200, 1)
    assert [upload.body for upload in bench.link.uploads] == [b"hello", b"hello"]
    assert bench.dispatcher.left == 2
    assert len(bench.dispatcher.done) == 1


async def test_a_call_that_began_is_never_moved(bench: Bench) -> None:
    def lose(upload: FakeUpload) -> None:
        upload.reply.started()
        upload.reply.failed(InstanceLost("gone"))

    bench.link.script = lose
    assert (await bench.exchange(GET)).status == 502
    assert bench.dispatcher.again == 0


async def test_a_call_moves_at_most_twice(bench: Bench) -> None:
    bench.link.script = lambda upload: upload.reply.failed(InstanceLost("gone"))
    assert (await bench.exchange(GET)).status == 502
    assert len(bench.link.uploads) == 3
    assert bench.dispatcher.left == 3


async def test_informational_replies_pass(bench: Bench) -> None:
    def script(upload: FakeUpload) -> None:
        upload.reply.informational(103, b"Link: </a.css>; rel=preload\r\n")
        upload.answer()

    bench.link.script = script
    client = await bench.connect()
    await client.send(GET)
    early = await client.response()
    assert (early.status, early.lines["link"]) == (103, "</a.css>; rel=preload")
    assert (await client.response()).status == 200


async def test_a_storm_of_informational_replies_is_a_bad_reply(bench: Bench) -> None:
    def script(upload: FakeUpload) -> None:
        for _ in range(100):
            upload.reply.informational(102, b"")

    bench.link.script = script
    client = await bench.connect()
    await client.send(GET)
    for _ in range(16):
        assert (await client.response()).status == 102
    assert (await client.response()).status == 502


@pytest.mark.parametrize(
    "lines",
    [
        b"X-A: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
        b"X-A: b\nX-B: c\r\n",
        b"X-A: b\rc\r\n",
        b"X-A: b\0\r\n",
        b"X-A : b\r\n",
        b"X-A\r\n",
        b" folded: b\r\n",
        b"X-A: b",
    ],
)
async def test_header_injection_by_a_function_is_refused(bench: Bench, lines: bytes) -> None:
    bench.link.script = lambda upload: upload.answer(lines=lines)
    got = await bench.exchange(GET)
    assert (got.status, problem(got.body)["type"]) == (502, "urn:septet:error:bad-reply")


async def test_a_function_cannot_set_framing_or_the_platforms_lines(bench: Bench) -> None:
    mine = (
        b"Content-Length: 999\r\nTransfer-Encoding: chunked\r\nConnection: close\r\nKeep-Alive: x\r\nUpgrade: a\r\n"
        b"X-Request-Id: evil\r\nSeptet-Invocation-Id: evil\r\nDate: Tue, 01 Jan 2030 00:00:00 GMT\r\nServer: mine\r\n"
    )
    bench.link.script = lambda upload: upload.answer(lines=mine)
    got = await bench.exchange(GET)
    names = [name for name, _ in got.raw_lines]
    assert got.body == b"ok"
    assert "evil" not in str(got.raw_lines)
    assert not {"transfer-encoding", "connection", "keep-alive", "upgrade"} & set(names)
    assert names.count("content-length") == names.count("date") == 1
    assert (got.lines["date"], got.lines["server"]) == ("Tue, 01 Jan 2030 00:00:00 GMT", "mine")


async def test_an_answer_without_date_gets_one_and_no_server_line(bench: Bench) -> None:
    got = await bench.exchange(GET)
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", got.lines["date"])
    assert "server" not in got.lines


async def test_routes_drop_rename_and_add_lines(bench: Bench) -> None:
    target = bench.dispatcher.target
    route = target.route._replace(
        drop=frozenset({b"x-drop"}), rename=((b"x-old", b"X-New"),), reply_lines=b"X-Call-Id: {invocation}\r\n"
    )
    bench.dispatcher.target = target._replace(route=route, cut=frozenset({b"authorization"}), lines=b"X-Param: 1\r\n")
    got = await bench.exchange(
        b"GET /fn/a/b HTTP/1.1\r\nHost: a\r\nX-Drop: 1\r\nX-Old: v\r\nAuthorization: Bearer sept_x\r\n\r\n"
    )
    lines = bench.link.uploads[0].lines()
    assert lines[b"x-new"] == b"v"
    assert lines[b"x-param"] == b"1"
    assert not {b"x-drop", b"x-old", b"authorization"} & lines.keys()
    assert got.lines["x-call-id"] == got.lines["septet-invocation-id"]


async def test_an_error_renderer_that_breaks_does_not_leave_the_client_waiting(bench: Bench) -> None:
    def broken(error: Exception, invocation: str) -> None:
        raise KeyError("no mapping")

    route = bench.dispatcher.target.route._replace(render_error=broken)  # type: ignore[arg-type]
    bench.dispatcher.target = bench.dispatcher.target._replace(route=route)
    bench.link.script = lambda upload: upload.reply.failed(FunctionCrashed("the process ended"))
    assert (await bench.exchange(GET)).status == 500


async def test_options_asterisk_and_connect(start: Start) -> None:
    async with start() as bench:
        assert (await bench.exchange(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")).status == 404
        client = await bench.connect()
        await client.send(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n")
        assert (await client.response()).status == 405
        assert await client.closed() == b""


async def test_absolute_form_names_the_host(bench: Bench) -> None:
    got = await bench.exchange(b"GET http://real.example/fn/a/b?q HTTP/1.1\r\nHost: other\r\nX-A: b\r\n\r\n")
    assert got.status == 200
    upload = bench.link.uploads[0]
    assert upload.head.target == b"/a/b?q"
    assert upload.head.lines.lower().count(b"host: ") == 2  # Host and x-forwarded-host
    assert upload.lines()[b"host"] == upload.lines()[b"x-forwarded-host"] == b"real.example"
