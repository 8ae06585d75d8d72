"""One HTTP exchange, byte by byte: what is sent, and how each kind of body ends."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator

import pytest

from septet.cli.exchange import Answer, Body, BrokenAnswer, send_request

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nab\nc\r\n3;x=y\r\nd\ne\r\n0\r\nTrailer: 1\r\n\r\n"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5)
        yield ours, theirs


def answer(pair: tuple[socket.socket, socket.socket], data: bytes, method: str = "GET") -> Answer:
    pair[1].sendall(data)
    pair[1].close()
    return Answer(pair[0], method)


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (OK + b"Content-Length: 3\r\n\r\nabcdef", b"abc"),
        (CHUNKS, b"ab\ncd\ne"),
        (OK + b"\r\nuntil it closes", b"until it closes"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\nx", b"x"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
def test_where_a_body_ends(pair: tuple[socket.socket, socket.socket], data: bytes, body: bytes) -> None:
    with answer(pair, data) as got:
        assert (got.read(2), got.read(), got.read()) == (body[:2], body[2:], b"")


def test_lines_go_across_chunks(pair: tuple[socket.socket, socket.socket]) -> None:
    with answer(pair, CHUNKS) as got:
        assert [got.readline() for _ in range(4)] == [b"ab\n", b"cd\n", b"e", b""]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        OK + b"Content-Length: 4\r\n\r\nabc",
        OK + b"Content-Length: -1\r\n\r\nabc",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc",
    ],
)
def test_what_breaks_off_is_said(pair: tuple[socket.socket, socket.socket], data: bytes) -> None:
    with pytest.raises(BrokenAnswer):
        answer(pair, data).read()


@pytest.mark.parametrize(
    ("method", "body", "sent"),
    [
        ("GET", None, b"GET /x HTTP/1.1\r\nA: b\r\n\r\n"),
        ("POST", None, b"POST /x HTTP/1.1\r\nA: b\r\nContent-Length: 0\r\n\r\n"),
        ("PUT", b"abc", b"PUT /x HTTP/1.1\r\nA: b\r\nContent-Length: 3\r\n\r\nabc"),
        (
            "PUT",
            io.BytesIO(b"abc"),
            b"PUT /x HTTP/1.1\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
    ],
)
def test_what_is_sent(pair: tuple[socket.socket, socket.socket], method: str, body: Body | None, sent: bytes) -> None:
    send_request(pair[0], method, "/x", [("A", "b")], body)
    assert pair[1].recv(4096) == sent


@pytest.mark.parametrize(
    ("method", "target", "value"),
    [("G T", "/", "x"), ("GET", "/a b", "x"), ("GET", "/", "x\r\ny"), ("GET", "/", "\u20ac")],
)
def test_nothing_slips_into_the_head(
    pair: tuple[socket.socket, socket.socket], method: str, target: str, value: str
) -> None:
    with pytest.raises(ValueError):
        send_request(pair[0], method, target, [("A", value)], None)
    pair[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        pair[1].recv(1)
