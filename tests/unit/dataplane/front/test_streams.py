"""Streams both ways: nothing is held back, nothing is held without bound."""

from __future__ import annotations

import asyncio
import base64
import os
from pathlib import Path

import pytest
from tests.unit.dataplane.front.conftest import Bench, FakeUpload, Start, until

from septet.ports.contract import ReplyHead

GET = b"GET /fn/default/hello HTTP/1.1\r\nHost: a.example\r\n\r\n"
PIECE = 65536


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_server_sent_events_arrive_one_by_one(bench: Bench) -> None:
    bench.link.script = lambda upload: upload.reply.head(ReplyHead(200, b"Content-Type: text/event-stream\r\n", None))
    client = await bench.connect()
    await client.send(GET)
    assert (await client.head())[0] == 200
    reply = bench.link.uploads[0].reply
    for number in range(3):
        reply.data(b"data: %d\n\n" % number)
        assert await client.chunk() == b"data: %d\n\n" % number
    reply.end()
    assert await client.chunk() == b""


async def test_a_function_may_answer_while_it_still_reads(bench: Bench) -> None:
    def script(upload: FakeUpload) -> None:
        upload.reply.head(ReplyHead(200, b"", None))
        upload.on_write = lambda up, chunk: up.reply.data(chunk.upper())
        upload.on_end = lambda up: up.reply.end()

    bench.link.script = script
    client = await bench.connect()
    await client.send(b"POST /fn/a/b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert (await client.head())[0] == 200
    for word in (b"one", b"two"):
        await client.send(b"3\r\n%b\r\n" % word)
        assert await client.chunk() == word.upper()
    await client.send(b"0\r\n\r\n")
    assert await client.chunk() == b""
    await client.send(GET)
    assert (await client.head())[0] == 200


async def test_a_body_waits_for_an_instance_in_bounded_memory(bench: Bench) -> None:
    bench.dispatcher.hold = True
    client = await bench.connect()
    client.writer.transport.set_write_buffer_limits(high=0)
    total = 32 * 1024 * 1024
    await client.send(b"POST /fn/a/b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % total)
    sending = asyncio.ensure_future(client.send(b"x" * total))
    await asyncio.sleep(0.3)
    assert not sending.done()
    (exchange,) = bench.dispatcher.waiting
    assert exchange._held_size <= 64 * 1024 + 512 * 1024
    bench.dispatcher.release()
    await sending
    assert (await client.response()).status == 200
    assert bench.link.uploads[0].size == total


async def _upload(bench: Bench, total: int) -> int:
    """Sends `total` bytes to a function that takes 64 KiB at a turn of the loop; returns the peak of memory."""
    loop = asyncio.get_running_loop()

    def take(upload: FakeUpload, chunk: bytes) -> None:
        upload.reply.pause_upload()
        loop.call_soon(upload.reply.resume_upload)

    def script(upload: FakeUpload) -> None:
        upload.keep = False
        upload.on_write = take
        upload.on_end = lambda up: up.answer()

    bench.link.script = script
    client = await bench.connect()
    client.writer.transport.set_write_buffer_limits(high=0)
    await client.send(b"POST /fn/a/b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % total)
    piece, peak = b"x" * PIECE, 0
    for number in range(total // PIECE):
        await client.send(piece)
        if number % 256 == 0:
            peak = max(peak, resident())
    assert (await client.response()).status == 200
    assert bench.link.uploads[-1].size == total
    return peak


async def _download(bench: Bench, total: int) -> int:
    piece = b"x" * PIECE
    left = total

    def pump(upload: FakeUpload) -> None:
        nonlocal left
        while left and not upload.paused:
            left -= PIECE
            upload.reply.data(piece)
        if not left:
            upload.reply.end()

    def script(upload: FakeUpload) -> None:
        upload.on_resume = pump
        upload.reply.head(ReplyHead(200, b"", total))
        asyncio.get_running_loop().call_soon(pump, upload)

    bench.link.script = script
    client = await bench.connect()
    await client.send(GET)
    await client.head()
    got, peak, turn = 0, 0, 0
    while got < total:
        data = await client.reader.read(PIECE)
        assert data
        got += len(data)
        turn += 1
        if turn % 256 == 0:
            peak = max(peak, resident())
    assert bench.link.uploads[-1].pauses > 0
    return peak


@pytest.mark.parametrize("way", [_upload, _download])
async def test_a_gibibyte_passes_in_bounded_memory(start: Start, way: object) -> None:
    async with start() as bench:
        await way(bench, 1 << 24)  # type: ignore[operator]
        before = resident()
        peak = await way(bench, 1 << 30)  # type: ignore[operator]
        assert peak - before < 16 << 20


async def test_a_websocket_becomes_a_tunnel(bench: Bench) -> None:
    def script(upload: FakeUpload) -> None:
        upload.on_write = lambda up, chunk: up.reply.data(chunk[::-1])
        upload.on_end = lambda up: up.reply.end()
        upload.reply.head(ReplyHead(101, b"Sec-WebSocket-Accept: x\r\n", None, b"websocket"))

    bench.link.script = script
    key = base64.b64encode(b"0123456789abcdef")
    client = await bench.connect()
    await client.send(
        b"GET /fn/a/b HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\nearly" % key
    )
    status, pairs = await client.head()
    lines = dict(pairs)
    assert (status, lines["upgrade"], lines["connection"].lower()) == (101, "websocket", "upgrade")
    assert lines["sec-websocket-accept"] == "x"
    assert await client.reader.readexactly(5) == b"ylrae"
    await client.send(b"GET / HTTP/1.1\r\n\r\n")
    assert await client.reader.readexactly(18) == b"\n\r\n\r1.1/PTTH / TEG"
    assert bench.link.uploads[0].head.upgrade == b"websocket"
    assert bench.link.uploads[0].lines()[b"sec-websocket-key"] == key
    client.writer.write_eof()
    assert await client.closed() == b""
    assert bench.dispatcher.left == 1
    assert bench.dispatcher.done[0].status == 101


async def test_a_tunnel_outlives_the_timeout_and_ends_when_idle(start: Start) -> None:
    async with start(tunnel_idle=0.4) as bench:
        bench.dispatcher.target = bench.dispatcher.target._replace(timeout=0.1)

        def script(upload: FakeUpload) -> None:
            upload.on_write = lambda up, chunk: up.reply.data(chunk)
            upload.reply.head(ReplyHead(101, b"", None, b"echo"))

        bench.link.script = script
        client = await bench.connect()
        await client.send(b"GET /fn/a/b HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        await client.head()
        for _ in range(4):
            await asyncio.sleep(0.2)
            await client.send(b"ping")
            assert await client.reader.readexactly(4) == b"ping"
        assert await client.closed() in (b"", b"<reset>")
        await until(lambda: bench.dispatcher.left == 1)


async def test_a_function_that_declines_the_upgrade_answers_normally(bench: Bench) -> None:
    bench.link.script = lambda upload: upload.answer(b"no", 426)
    client = await bench.connect()
    await client.send(b"GET /fn/a/b HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + GET)
    assert (await client.response()).status == 426
    assert (await client.response()).status == 426
    assert all(upload.ended for upload in bench.link.uploads)


@pytest.mark.parametrize("protocol", [b"h2c", b"HTTP/2.0", b"TLS/1.2", b"websocket, h2c"])
async def test_upgrades_that_would_pass_by_the_checks_are_not_carried(bench: Bench, protocol: bytes) -> None:
    client = await bench.connect()
    await client.send(
        b"GET /fn/a/b HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: " + protocol + b"\r\n"
        b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"
    )
    assert (await client.response()).status == 200
    assert bench.link.uploads[0].head.upgrade == b""
    assert not {b"upgrade", b"http2-settings"} & bench.link.uploads[0].lines().keys()


async def test_a_switch_that_nobody_asked_for_is_a_bad_reply(bench: Bench) -> None:
    bench.link.script = lambda upload: upload.reply.head(ReplyHead(101, b"", None, b"websocket"))
    assert (await bench.exchange(GET)).status == 502
