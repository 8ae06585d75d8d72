"""HTTP through the whole platform and a real function: streams, sizes, upgrades, identity, disconnects."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import struct
import threading
import time
import urllib.parse
from pathlib import Path

import pytest
from septet_platform import Platform

ASGI = """
import asyncio, hashlib, json

seen = []

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            await send({"type": "websocket.send", "text": message["text"].upper()})
    path = scope["path"]
    if path == "/digest":
        digest, size = hashlib.sha256(), 0
        while True:
            message = await receive()
            digest.update(message["body"]); size += len(message["body"])
            if not message["more_body"]:
                break
        await answer(send, 200, json.dumps({"sha256": digest.hexdigest(), "size": size}).encode())
    elif path == "/zeros":
        size = int(scope["query_string"])
        headers = [(b"content-length", b"%d" % size)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        block = bytes(65536)
        while size:
            part = block[: min(size, 65536)]
            size -= len(part)
            await send({"type": "http.response.body", "body": part, "more_body": size > 0})
    elif path == "/events":
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            for n in range(int(scope["query_string"])):
                await send({"type": "http.response.body", "body": b"data: %d\\n\\n" % n, "more_body": True})
                await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    elif path == "/seen":
        await answer(send, 200, json.dumps(seen).encode())
    elif path == "/headers":
        pairs = [(n.decode(), v.decode()) for n, v in scope["headers"]]
        told = [scope["method"], scope["path"], scope["query_string"].decode(), pairs]
        await answer(send, 200, json.dumps(told).encode())
    elif path == "/inject":
        headers = [(b"x-a", b"b"), (b"connection", b"x-a")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})
    else:
        await answer(send, 404, b"nothing here")

async def answer(send, status, body):
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture(scope="module", autouse=True)
def web(platform: Platform) -> None:
    platform.deploy("web", {"main.py": ASGI}, access="public", limits={"concurrency": 50, "timeout": 120})


def dial(platform: Platform) -> socket.socket:
    address = urllib.parse.urlsplit(platform.url)
    return socket.create_connection((str(address.hostname), address.port or 80), timeout=30)


def read_until(link: socket.socket, mark: bytes) -> bytes:
    data = b""
    while mark not in data:
        more = link.recv(65536)
        assert more, f"the connection ended before {mark!r}: {data!r}"
        data += more
    return data


def resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def test_a_gibibyte_each_way_keeps_the_platform_small(platform: Platform) -> None:
    size = 1 << 30
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, resident(platform.pid))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with dial(platform) as link:
            link.sendall(b"POST /fn/default/web/digest HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
            block = bytes(1 << 20)
            for _ in range(size >> 20):
                link.sendall(block)
            answer = read_until(link, b"}")
        expected = hashlib.sha256()
        for _ in range(size >> 20):
            expected.update(block)
        assert json.loads(answer.split(b"\r\n\r\n")[1]) == {"sha256": expected.hexdigest(), "size": size}
        with dial(platform) as link:
            link.sendall(b"GET /fn/default/web/zeros?%d HTTP/1.1\r\nHost: x\r\n\r\n" % size)
            head, _, rest = read_until(link, b"\r\n\r\n").partition(b"\r\n\r\n")
            assert b" 200 " in head.split(b"\r\n")[0]
            got = len(rest)
            while got < size:
                got += len(link.recv(1 << 20))
            assert got == size
    finally:
        done.set()
        watcher.join()
    assert peak < 150 << 20, f"resident {peak >> 20} MiB"


def test_a_slow_reader_holds_the_function_back(platform: Platform) -> None:
    before = resident(platform.pid)
    with dial(platform) as link:
        link.sendall(b"GET /fn/default/web/zeros?%d HTTP/1.1\r\nHost: x\r\n\r\n" % (256 << 20))
        read_until(link, b"\r\n\r\n")
        time.sleep(1.5)
        assert resident(platform.pid) - before < 32 << 20


def test_events_arrive_as_they_are_made(platform: Platform) -> None:
    with dial(platform) as link:
        began = time.monotonic()
        link.sendall(b"GET /fn/default/web/events?5 HTTP/1.1\r\nHost: x\r\n\r\n")
        read_until(link, b"data: 0")
        first = time.monotonic() - began
        rest = read_until(link, b"0\r\n\r\n")
        assert b"data: 4" in rest
        assert first < 0.5 < time.monotonic() - began


def test_a_client_that_leaves_cancels_its_call(platform: Platform) -> None:
    with dial(platform) as link:
        link.sendall(b"GET /fn/default/web/events?1000 HTTP/1.1\r\nHost: x\r\n\r\n")
        read_until(link, b"data: 0")
    end = time.monotonic() + 10
    while "cancelled" not in platform.call("web", "/seen", token=None).json:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_chunked_bodies_both_ways(platform: Platform) -> None:
    with dial(platform) as link:
        link.sendall(b"POST /fn/default/web/digest HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (b"hello ", b"world"):
            link.sendall(b"%x\r\n%b\r\n" % (len(part), part))
            time.sleep(0.05)
        link.sendall(b"0\r\n\r\n")
        body = read_until(link, b"}").split(b"\r\n\r\n")[1]
    assert json.loads(body) == {"sha256": hashlib.sha256(b"hello world").hexdigest(), "size": 11}


def test_a_client_that_asks_first_is_told_to_go_on(platform: Platform) -> None:
    head = b"POST /fn/default/web/digest HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    with dial(platform) as link:
        link.sendall(head)
        assert read_until(link, b"\r\n\r\n").startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        link.sendall(b"hello")
        assert b'"size": 5' in read_until(link, b"}")
    with dial(platform) as link:
        link.sendall(head.replace(b"/web/", b"/nobody/"))
        assert read_until(link, b"\r\n\r\n").startswith(b"HTTP/1.1 404 ")


def test_head_has_the_length_and_no_body(platform: Platform) -> None:
    with dial(platform) as link:
        link.sendall(b"HEAD /fn/default/web/seen HTTP/1.1\r\nHost: x\r\n\r\n")
        head = read_until(link, b"\r\n\r\n")
        assert b"content-length: " in head.lower()
        link.sendall(b"GET /fn/default/web/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_until(link, b"nothing here").startswith(b"HTTP/1.1 404 ")


def test_pipelined_requests_are_answered_in_order(platform: Platform) -> None:
    one = b"GET /fn/default/web/headers?%d HTTP/1.1\r\nHost: x\r\n\r\n"
    with dial(platform) as link:
        link.sendall(one % 1 + one % 2 + one % 3)
        data = b""
        while data.count(b"HTTP/1.1 200") < 3 or not data.endswith(b"]]"):
            data += link.recv(65536)
    order = [data.index(b'"/headers", "%d"' % n) for n in (1, 2, 3)]
    assert order == sorted(order)


def test_a_websocket_is_carried_both_ways(platform: Platform) -> None:
    key = base64.b64encode(os.urandom(16))
    with dial(platform) as link:
        link.sendall(
            b"GET /fn/default/web/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % key
        )
        head = read_until(link, b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        assert accept in head
        text, mask = b"hello", b"abcd"
        masked = bytes(c ^ mask[i % 4] for i, c in enumerate(text))
        link.sendall(bytes((0x81, 0x80 | len(text))) + mask + masked)
        assert link.recv(7) == b"\x81\x05HELLO"
        link.sendall(bytes((0x88, 0x82)) + mask + bytes(c ^ mask[i] for i, c in enumerate(struct.pack(">H", 1000))))
        assert link.recv(4)[:1] == b"\x88"


def test_what_the_function_is_told_of_the_call(platform: Platform) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    sent = {
        "X-Request-Id": "abc-123",
        "traceparent": trace,
        "X-Forwarded-For": "6.6.6.6",
        "Septet-Invocation-Id": "forged",
        "Connection": "x-secret",
        "X-Secret": "hop",
    }
    got = platform.call("web", "/headers?a=b%2Fc", headers=sent, token=None)
    method, path, query, pairs = got.json
    told = dict(pairs)
    assert (method, path, query) == ("GET", "/headers", "a=b%2Fc")
    assert told["x-request-id"] == got.headers["x-request-id"] == "abc-123"
    assert told["septet-invocation-id"] == got.headers["septet-invocation-id"] != "forged"
    assert told["traceparent"].split("-")[1] == trace.split("-")[1]
    assert told["traceparent"].split("-")[2] != trace.split("-")[2]
    assert told["x-forwarded-for"] == "127.0.0.1"
    assert told["x-forwarded-proto"] == "http"
    assert "x-secret" not in told


def test_the_platforms_token_does_not_reach_the_function(platform: Platform) -> None:
    got = platform.call("web", "/headers")
    assert platform.token not in got.text
    basic = platform.call("web", "/headers", headers={"Authorization": "Basic dTpw"}, token=None)
    assert dict(basic.json[3])["authorization"] == "Basic dTpw"


def test_hop_by_hop_lines_of_the_function_end_at_the_front(platform: Platform) -> None:
    got = platform.call("web", "/inject", token=None)
    assert got.body == b"ok"
    assert "x-a" not in got.headers


@pytest.mark.parametrize(
    "head",
    [
        b"GET /fn/default/web/seen HTTP/1.1\r\n\r\n",
        b"GET /fn/default/web/seen HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /fn/default/web/seen HTTP/1.1\nHost: x\n\n",
        b"POST /fn/default/web/digest HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /fn/default/web/digest HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: ,chunked\r\n\r\n",
        b"POST /fn/default/web/digest HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc",
        b"GET /fn/default/web/seen HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET  /fn/default/web/seen HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_a_hostile_head_is_refused_and_the_connection_closed(platform: Platform, head: bytes) -> None:
    with dial(platform) as link:
        link.sendall(head)
        data = b""
        while more := link.recv(65536):
            data += more
        assert data.startswith(b"HTTP/1.1 400 ")
        assert b"\r\nHTTP/1.1 " not in data


def test_a_body_over_the_limit_is_refused(platform: Platform) -> None:
    source = {"main.py": "def handle(request, context):\n    return str(len(request.body))\n"}
    platform.deploy("small", source, access="public", limits={"request_body": 1000})
    assert platform.call("small", body=b"x" * 1000, token=None).text == "1000"
    got = platform.call("small", body=b"x" * 1001, token=None)
    assert got.status == 413
    assert "1000" in got.json["limit"]
