"""Who may wait for what, and for how long: disconnects, deadlines, slow senders and readers, draining."""

from __future__ import annotations

import asyncio
import json
import socket
import struct

import pytest
from tests.unit.dataplane.front.conftest import Bench, Client, FakeUpload, Start, until

from septet.model.instance import LimitMet
from septet.ports.contract import ReplyHead

GET = b"GET /fn/default/hello HTTP/1.1\r\nHost: a.example\r\n\r\n"


def nothing(upload: FakeUpload) -> None:
    """A function that never answers."""


def reset(client: Client) -> None:
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_client_that_goes_away_cancels_its_running_call(start: Start, how: str) -> None:
    async with start(half_close_grace=0.1) as bench:
        bench.link.script = nothing
        client = await bench.connect()
        await client.send(GET)
        await until(lambda: len(bench.link.uploads) == 1)
        reset(client) if how == "reset" else client.close()
        await until(lambda: bench.link.uploads[0].cancelled)
        (done,) = bench.dispatcher.done
        assert done.error is not None
        assert (done.error.code, done.status) == ("client-gone", 499)
        assert bench.dispatcher.left == 1
        await until(lambda: not bench.listener.connections)


async def test_a_client_that_goes_away_leaves_the_queue(start: Start) -> None:
    async with start(half_close_grace=0.1) as bench:
        bench.dispatcher.hold = True
        client = await bench.connect()
        await client.send(GET)
        await until(lambda: len(bench.dispatcher.waiting) == 1)
        reset(client)
        await until(lambda: len(bench.dispatcher.withdrawn) == 1)
        assert not bench.link.uploads
        assert len(bench.dispatcher.done) == 1


async def test_a_client_that_goes_away_in_the_middle_of_its_body(bench: Bench) -> None:
    client = await bench.connect()
    await client.send(b"POST /fn/a/b HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
    await until(lambda: bool(bench.link.uploads) and bench.link.uploads[0].size == 5)
    client.close()
    await until(lambda: bench.link.uploads[0].cancelled)


async def test_a_client_that_goes_away_during_a_stream(start: Start) -> None:
    async with start(half_close_grace=0.1) as bench:
        bench.link.script = lambda upload: upload.reply.head(ReplyHead(200, b"", None))
        client = await bench.connect()
        await client.send(GET)
        await client.head()
        client.close()
        await until(lambda: bench.link.uploads[0].cancelled)


async def test_a_half_closed_client_still_gets_its_answer(bench: Bench) -> None:
    bench.link.script = nothing
    client = await bench.connect()
    await client.send(GET)
    client.writer.write_eof()
    await until(lambda: len(bench.link.uploads) == 1)
    await asyncio.sleep(0.1)
    bench.link.uploads[0].answer(b"late")
    assert (await client.response()).body == b"late"
    assert await client.closed() == b""


async def test_a_half_closed_client_gets_the_answers_to_all_its_requests(bench: Bench) -> None:
    client = await bench.connect()
    await client.send(GET * 3)
    client.writer.write_eof()
    for _ in range(3):
        assert (await client.response()).status == 200
    assert await client.closed() == b""


async def test_a_call_that_takes_too_long_is_504_with_the_limit(bench: Bench) -> None:
    bench.dispatcher.target = bench.dispatcher.target._replace(timeout=0.1)
    bench.link.script = nothing
    got = await bench.exchange(GET)
    found = json.loads(got.body)
    assert (got.status, found["type"], found["limit"]) == (504, "urn:septet:error:function-timeout", "timeout 0.1 s")
    assert bench.link.uploads[0].cancelled
    assert bench.dispatcher.left == 1
    bench.dispatcher.met = (LimitMet(name="pids", value="64", times=3),)
    assert json.loads((await bench.exchange(GET)).body)["limit"] == "timeout 0.1 s, pids 64"


async def test_an_instance_that_does_not_let_go_of_a_cancelled_call_stays_taken(bench: Bench) -> None:
    bench.dispatcher.target = bench.dispatcher.target._replace(timeout=0.1)
    bench.link.script = lambda upload: setattr(upload, "stubborn", True)
    assert (await bench.exchange(GET)).status == 504
    assert bench.dispatcher.left == 0
    let_go = bench.link.uploads[0].on_gone
    assert let_go is not None
    let_go()
    assert bench.dispatcher.left == 1


async def test_a_queued_call_whose_body_breaks_leaves_the_queue(bench: Bench) -> None:
    bench.dispatcher.hold = True
    client = await bench.connect()
    await client.send(b"POST /fn/a/b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n")
    assert (await client.response()).status == 400
    assert len(bench.dispatcher.withdrawn) == 1


async def test_a_stream_that_takes_too_long_is_cut(bench: Bench) -> None:
    bench.dispatcher.target = bench.dispatcher.target._replace(timeout=0.1)
    bench.link.script = lambda upload: upload.reply.head(ReplyHead(200, b"", None))
    client = await bench.connect()
    await client.send(GET)
    await client.head()
    assert await client.closed() == b""
    assert bench.dispatcher.done[0].error is not None


async def test_the_timeout_counts_from_the_instance_not_from_the_queue(bench: Bench) -> None:
    bench.dispatcher.target = bench.dispatcher.target._replace(timeout=0.3)
    bench.dispatcher.hold = True
    client = await bench.connect()
    await client.send(GET)
    await asyncio.sleep(0.4)
    bench.dispatcher.release()
    assert (await client.response()).status == 200


async def test_a_timed_out_call_leaves_a_usable_connection(bench: Bench) -> None:
    bench.dispatcher.target = bench.dispatcher.target._replace(timeout=0.1)
    bench.link.script = nothing
    client = await bench.connect()
    await client.send(GET)
    assert (await client.response()).status == 504
    bench.link.script = lambda upload: upload.answer()
    await client.send(GET)
    assert (await client.response()).status == 200


async def test_a_slow_head_gets_408(start: Start) -> None:
    async with start(head_timeout=0.1) as bench:
        client = await bench.connect()
        await client.send(GET[:20])
        got = await client.response()
        assert (got.status, json.loads(got.body)["limit"]) == (408, "head_timeout 0.1 s")
        assert await client.closed() == b""


async def test_a_connection_that_sends_nothing_is_closed(start: Start) -> None:
    async with start(head_timeout=0.1) as bench:
        client = await bench.connect()
        assert await client.closed() == b""


async def test_an_idle_connection_is_closed(start: Start) -> None:
    async with start(idle_timeout=0.1) as bench:
        client = await bench.connect()
        await client.send(GET)
        await client.response()
        assert await client.closed() == b""
        client.close()
        await until(lambda: not bench.listener.connections)


async def test_a_head_that_drips_is_not_forgiven_for_each_drop(start: Start) -> None:
    async with start(head_timeout=0.2) as bench:
        client = await bench.connect()
        began = asyncio.get_running_loop().time()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError, AssertionError)):
            for at in range(len(GET) - 1):
                await client.send(GET[at : at + 1])
                await asyncio.sleep(0.02)
                if client.reader.at_eof() or client.reader._buffer:  # type: ignore[attr-defined]
                    raise ConnectionResetError
        assert asyncio.get_running_loop().time() - began < 0.6


async def test_a_slow_body_gets_408(start: Start) -> None:
    async with start(body_window=0.1, body_rate=100.0) as bench:
        client = await bench.connect()
        await client.send(b"POST /fn/a/b HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx")
        got = await client.response()
        assert (got.status, json.loads(got.body)["limit"]) == (408, "body_rate 100 bytes/s")
        assert bench.link.uploads[0].cancelled


async def test_a_body_that_the_function_holds_back_is_not_slow(start: Start) -> None:
    async with start(body_window=0.1) as bench:
        bench.link.script = lambda upload: setattr(upload, "on_write", lambda up, chunk: up.reply.pause_upload())
        client = await bench.connect()
        await client.send(b"POST /fn/a/b HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx")
        await asyncio.sleep(0.4)
        upload = bench.link.uploads[0]
        assert not upload.cancelled
        upload.on_write, upload.on_end = None, lambda up: up.answer()
        upload.reply.resume_upload()
        await client.send(b"x" * 999)
        assert (await client.response()).status == 200


async def test_a_client_that_reads_nothing_pauses_the_reply_and_is_cut_in_the_end(bench: Bench) -> None:
    bench.dispatcher.target = bench.dispatcher.target._replace(timeout=0.5)
    sent = 0

    def pump(upload: FakeUpload) -> None:
        nonlocal sent
        while not upload.paused and sent < 1 << 28:
            upload.reply.data(b"x" * 65536)
            sent += 65536

    def script(upload: FakeUpload) -> None:
        upload.reply.head(ReplyHead(200, b"", None))
        asyncio.get_running_loop().call_soon(pump, upload)

    bench.link.script = script
    client = await bench.connect()
    client.reader._transport.pause_reading()  # type: ignore[attr-defined]
    await client.send(GET)
    await until(lambda: bool(bench.link.uploads) and bench.link.uploads[0].paused)
    assert sent < 1 << 25
    await until(lambda: bench.link.uploads[0].cancelled)
    client.reader._transport.resume_reading()  # type: ignore[attr-defined]


async def test_draining_lets_requests_end_and_closes_idle_connections(start: Start) -> None:
    async with start() as bench:
        bench.link.script = nothing
        idle, busy = await bench.connect(), await bench.connect()
        await busy.send(GET)
        await until(lambda: len(bench.link.uploads) == 1)
        draining = asyncio.ensure_future(bench.listener.drain(5.0))
        assert await idle.closed() == b""
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", bench.listener.port)
        assert not draining.done()
        bench.link.uploads[0].answer(b"last")
        got = await busy.response()
        assert (got.body, got.lines["connection"]) == (b"last", "close")
        assert await busy.closed() == b""
        assert await draining is True


async def test_draining_cuts_what_does_not_end(start: Start) -> None:
    async with start() as bench:
        bench.link.script = nothing
        client = await bench.connect()
        await client.send(GET)
        await until(lambda: len(bench.link.uploads) == 1)
        assert await bench.listener.drain(0.1) is False
        assert await client.closed() in (b"", b"<reset>")
        assert bench.link.uploads[0].cancelled


async def test_too_many_connections_are_turned_away(start: Start) -> None:
    async with start(max_connections=2) as bench:
        kept = [await bench.connect() for _ in range(2)]
        await kept[0].send(GET)
        assert (await kept[0].response()).status == 200
        third = await bench.connect()
        assert await third.closed() in (b"", b"<reset>")
        await kept[1].send(GET)
        assert (await kept[1].response()).status == 200
