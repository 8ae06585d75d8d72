"""Request ids, trace context and X-Forwarded-* lines, as the function and the client see them."""

from __future__ import annotations

import pytest
from tests.unit.dataplane.front.conftest import Bench, Start

TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = b"00f067aa0ba902b7"


def get(*lines: bytes) -> bytes:
    return b"\r\n".join((b"GET /fn/a/b HTTP/1.1", b"Host: h.example", *lines, b"", b""))


@pytest.mark.parametrize("given", [b"abc-123", b"A.b_c~1:2/3+4=@", b"x" * 128])
async def test_a_sane_request_id_is_kept(bench: Bench, given: bytes) -> None:
    got = await bench.exchange(get(b"X-Request-Id: " + given))
    assert got.lines["x-request-id"] == given.decode()
    assert bench.link.uploads[0].lines()[b"x-request-id"] == given
    assert got.lines["septet-invocation-id"] != given.decode()


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b"X-Request-Id:"],
        [b"X-Request-Id: a b"],
        [b"X-Request-Id: " + b"x" * 129],
        [b"X-Request-Id: <script>"],
        [b"X-Request-Id: a", b"X-Request-Id: b"],
        [b"X-Request-Id: \xc3\xa4"],
    ],
)
async def test_another_request_id_is_replaced_by_the_invocation(bench: Bench, lines: list[bytes]) -> None:
    got = await bench.exchange(get(*lines))
    assert got.lines["x-request-id"] == got.lines["septet-invocation-id"] == bench.link.uploads[0].head.invocation
    assert bench.link.uploads[0].head.lines.lower().count(b"x-request-id") == 1


@pytest.mark.parametrize("tail", [b"00", b"01"])
async def test_a_trace_goes_on_with_a_span_of_ours(bench: Bench, tail: bytes) -> None:
    got = await bench.exchange(
        get(b"traceparent: 00-%b-%b-%b" % (TRACE, SPAN, tail), b"tracestate: a=1", b"tracestate: b=2")
    )
    lines = bench.link.uploads[0].lines()
    version, trace, span, flags = lines[b"traceparent"].split(b"-")
    assert (version, trace, flags) == (b"00", TRACE, tail)
    assert span != SPAN
    assert lines[b"tracestate"] == b"a=1,b=2"
    assert got.lines["traceparent"].encode() == lines[b"traceparent"]


async def test_a_later_version_of_trace_context_is_read_as_the_first(bench: Bench) -> None:
    await bench.exchange(get(b"traceparent: 01-%b-%b-01-more" % (TRACE, SPAN)))
    assert bench.link.uploads[0].lines()[b"traceparent"].startswith(b"00-" + TRACE)


@pytest.mark.parametrize(
    "lines",
    [
        [b"traceparent: 00-%b-%b" % (TRACE, SPAN)],
        [b"traceparent: ff-%b-%b-00" % (TRACE, SPAN)],
        [b"traceparent: 00-%b-%b-00" % (b"0" * 32, SPAN)],
        [b"traceparent: 00-%b-%b-00" % (TRACE, b"0" * 16)],
        [b"traceparent: 00-%b-%b-00" % (TRACE.upper(), SPAN)],
        [b"traceparent: 00-%b-%b-00-more" % (TRACE, SPAN)],
        [b"traceparent: 00-%b-%b-0" % (TRACE, SPAN)],
        [b"traceparent: 00-%b-%b-00" % (TRACE, SPAN)] * 2,
    ],
)
async def test_an_invalid_traceparent_is_replaced_and_its_state_dropped(bench: Bench, lines: list[bytes]) -> None:
    await bench.exchange(get(*lines, b"tracestate: a=1"))
    upload = bench.link.uploads[0]
    assert upload.lines()[b"traceparent"].startswith(b"00-" + upload.head.invocation.encode() + b"-")
    assert b"tracestate" not in upload.lines()


SPOOFED = [
    b"X-Forwarded-For: 9.9.9.9",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Host: evil",
    b"X-Forwarded-Port: 1",
    b"Forwarded: for=9.9.9.9",
    b"X-Real-IP: 9.9.9.9",
    b"Septet-Deadline: 1",
]


async def test_forwarded_lines_of_strangers_are_replaced(bench: Bench) -> None:
    await bench.exchange(get(*SPOOFED))
    upload = bench.link.uploads[0]
    lines = upload.lines()
    assert (lines[b"x-forwarded-for"], lines[b"x-forwarded-proto"], lines[b"x-forwarded-host"]) == (
        b"127.0.0.1",
        b"http",
        b"h.example",
    )
    assert b"9.9.9.9" not in upload.head.lines
    assert b"evil" not in upload.head.lines
    assert b"x-forwarded-port" not in lines
    assert upload.head.lines.lower().count(b"septet-deadline") == 1


async def test_forwarded_lines_of_trusted_peers_are_extended(start: Start) -> None:
    async with start(trusted=("127.0.0.0/8",)) as bench:
        await bench.exchange(get(*SPOOFED, b"X-Forwarded-For: 8.8.8.8"))
        lines = bench.link.uploads[0].lines()
        assert lines[b"x-forwarded-for"] == b"9.9.9.9, 8.8.8.8, 127.0.0.1"
        assert (lines[b"x-forwarded-proto"], lines[b"x-forwarded-host"]) == (b"https", b"evil")


async def test_the_deadline_is_milliseconds_since_the_epoch(bench: Bench) -> None:
    import time

    await bench.exchange(get())
    upload = bench.link.uploads[0]
    assert abs(int(upload.lines()[b"septet-deadline"]) / 1000 - (time.time() + 30)) < 5
    assert abs(upload.head.deadline - (time.time() + 30)) < 5
