from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from septet.model.errors import BadReply, CallerError, MalformedRequest
from septet.wire.fields import (
    HOP_BY_HOP,
    FieldsCache,
    cut_lines,
    encode_lines,
    header_line,
    lines_are_valid,
    parse_reply_fields,
    parse_request_fields,
    valid_host,
)
from septet.wire.http1 import incomplete_head_error, parse_reply_head, parse_request_head, status_line

TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
names = st.text(TOKEN, min_size=1, max_size=20).map(str.encode)
value_bytes = [*range(0x21, 0x7F), *range(0x80, 0x100)]
values = st.lists(st.sampled_from([9, 32, *value_bytes]), max_size=30).map(lambda raw: bytes(raw).strip(b" \t"))
pairs = st.lists(st.tuples(names, values), max_size=20)
MEANT = HOP_BY_HOP | {b"host"}


@given(st.binary(max_size=300))
@example(b"GET / HTTP/1.1\r\nHost: a\r\n")
@example(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
def test_any_bytes_give_facts_or_an_error_of_the_caller(data: bytes) -> None:
    try:
        head = parse_request_head(data)
    except CallerError:
        return
    assert data.startswith(head.method + b" ")
    assert lines_are_valid(head.lines)


@given(st.binary(max_size=300).map(lambda raw: b"HTTP/1.1 " + raw))
def test_any_bytes_give_a_reply_or_a_bad_reply(data: bytes) -> None:
    try:
        head = parse_reply_head(data)
    except BadReply:
        return
    assert 100 <= head.status <= 599
    assert lines_are_valid(head.lines)


@given(pairs)
def test_good_lines_come_through_unchanged(given_pairs: list[tuple[bytes, bytes]]) -> None:
    plain = [(name, value) for name, value in given_pairs if name.lower() not in MEANT]
    block = encode_lines([(b"Host", b"a.example"), *plain])
    head = parse_request_head(b"PUT /x HTTP/1.1\r\n" + block)
    assert head.fields.pairs == ((b"host", b"a.example"), *[(name.lower(), value) for name, value in plain])
    kept = [(n, v) for n, v in plain if n.lower().replace(b"_", b"-") not in MEANT]
    assert head.lines == encode_lines([(b"Host", b"a.example"), *kept])


@given(pairs, st.data())
def test_one_bad_byte_anywhere_in_a_name_or_before_it_is_refused(
    given_pairs: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    block = encode_lines([(b"Host", b"a"), *given_pairs])
    line = data.draw(st.sampled_from(block.split(b"\r\n")[:-1]))
    at = data.draw(st.integers(0, line.index(b":")))
    bad = data.draw(st.sampled_from([b"\0", b" ", b"\t", b"\r", b"\n", b"(", b"\x80", b"\xff", b"\x7f"]))
    broken = block.replace(line, line[:at] + bad + line[at:], 1)
    assert not lines_are_valid(broken)
    with pytest.raises(MalformedRequest):
        parse_request_fields(broken)


@given(names, values)
def test_header_line_makes_one_valid_line_or_raises(name: bytes, value: bytes) -> None:
    assert lines_are_valid(header_line(name, value))
    for bad in (b"\r", b"\n", b"\0"):
        with pytest.raises(ValueError, match="not a header line"):
            header_line(name, value + bad)
        with pytest.raises(ValueError, match="not a header line"):
            header_line(name + bad, value)


@given(pairs, st.sets(names, max_size=5))
def test_cut_lines_cuts_these_and_no_others(given_pairs: list[tuple[bytes, bytes]], cut: set[bytes]) -> None:
    lower = frozenset(name.lower() for name in cut) | {name.lower() for name, _ in given_pairs[:2]}
    left = cut_lines(encode_lines(given_pairs), lower)
    assert left == encode_lines([(name, value) for name, value in given_pairs if name.lower() not in lower])


def test_request_facts() -> None:
    head = parse_request_head(
        b"POST /fn/a/b%2Fc?x=1?y HTTP/1.1\r\nHost: a:80\r\nContent-Length: 12\r\nExpect: 100-Continue\r\nX: y\r\n"
    )
    assert (head.method, head.target, head.path) == (b"POST", b"/fn/a/b%2Fc?x=1?y", b"/fn/a/b%2Fc")
    assert (head.host, head.length, head.chunked, head.expect, head.keep_alive) == (b"a:80", 12, False, True, True)
    assert head.lines == b"Host: a:80\r\nX: y\r\n"


@pytest.mark.parametrize(
    ("version", "connection", "expected"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: foo, CLOSE\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: Keep-Alive\r\n", True),
        (b"1.0", b"Connection: keep-alive, close\r\n", False),
    ],
)
def test_persistence(version: bytes, connection: bytes, expected: bool) -> None:
    assert parse_request_head(b"GET / HTTP/%b\r\nHost: a\r\n%b" % (version, connection)).keep_alive is expected


@pytest.mark.parametrize(
    "target", [b"http://h.example", b"HTTP://h.example/", b"https://h.example?q", b"http://h.example/p?q"]
)
def test_absolute_form_becomes_origin_form(target: bytes) -> None:
    head = parse_request_head(b"GET %b HTTP/1.1\r\nX: y\r\nHost: other\r\n" % target)
    assert head.host == b"h.example"
    assert head.target.startswith(b"/")
    assert head.lines == b"Host: h.example\r\nX: y\r\n"


@pytest.mark.parametrize(
    ("data", "method", "length", "until_close", "keep"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", b"GET", 3, False, True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", b"GET", None, False, True),
        (b"HTTP/1.1 200 OK\r\n", b"GET", None, True, False),
        (b"HTTP/1.1 200\r\nContent-Length: 3\r\nConnection: close\r\n", b"GET", 3, False, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n", b"GET", 3, False, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", b"HEAD", 0, False, True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n", b"GET", 0, False, True),
        (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n", b"GET", 0, False, True),
        (b"HTTP/1.1 100 Continue\r\n", b"POST", 0, False, True),
    ],
)
def test_reply_framing(data: bytes, method: bytes, length: int | None, until_close: bool, keep: bool) -> None:
    head = parse_reply_head(data, method)
    assert (head.length, head.until_close, head.keep_alive) == (length, until_close, keep)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK",
        b"HTTP/2 200 OK\r\n",
        b"HTTP/1.1 99 X\r\n",
        b"HTTP/1.1 600 X\r\n",
        b"HTTP/1.1 20x X\r\n",
        b"HTTP/1.1  200 X\r\n",
        b"ICY 200 OK\r\n",
        b"HTTP/1.1 200 O\0K\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nB: c\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 300,
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000 + b"\r\n",
    ],
)
def test_replies_that_break_a_rule(data: bytes) -> None:
    with pytest.raises(BadReply):
        parse_reply_head(data)


def test_a_reply_may_carry_a_host_line() -> None:
    assert parse_reply_head(b"HTTP/1.1 200 OK\r\nHost: ?\r\n").lines == b"Host: ?\r\n"


@pytest.mark.parametrize("host", [b"a", b"a:1", b"1.2.3.4", b"[::1]", b"[2001:db8::1]:443", b"a-b.c_d~", b"%41"])
def test_valid_hosts(host: bytes) -> None:
    assert valid_host(host)


@pytest.mark.parametrize(
    "host", [b"", b":80", b"[]", b"[:::]", b"[1.2.3.4]", b"a:65536", b"a:-1", b"a%4", b"a b", b"a" * 256]
)
def test_invalid_hosts(host: bytes) -> None:
    assert not valid_host(host)


def test_the_cache_answers_as_the_parser_does_and_stays_small() -> None:
    cache = FieldsCache(parse_reply_fields, entries=2, size=20)
    first = cache(b"A: 1\r\n")
    assert cache(b"A: 1\r\n") is first
    assert cache(b"A: " + b"x" * 30 + b"\r\n") is not cache(b"A: " + b"x" * 30 + b"\r\n")
    for number in range(10):
        cache(b"A: %d\r\n" % number)
        assert len(cache._known) <= 2
    with pytest.raises(BadReply):
        cache(b"A : 1\r\n")
    assert b"A : 1\r\n" not in cache._known


@pytest.mark.parametrize(
    ("data", "hopeless"),
    [
        (b"", False),
        (b"GET / HTTP/1.1\r", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", False),
        (b"GET / HTTP/1.1\n", True),
        (b"GET / HTTP/1.1\rX", True),
        (b"\x16\x03", True),
        (b"G" * 20_000, True),
    ],
)
def test_what_can_never_become_a_head_is_said_early(data: bytes, hopeless: bool) -> None:
    assert (incomplete_head_error(data) is not None) is hopeless


def test_status_lines() -> None:
    assert status_line(200) == b"HTTP/1.1 200 OK\r\n"
    assert status_line(404) == b"HTTP/1.1 404 Not Found\r\n"
    assert status_line(299) == b"HTTP/1.1 299 \r\n"
