"""HTTP/1 heads: a strict checker for requests and replies (RFC 9112, RFC 9110, RFC 3986 for hosts).

Nothing here reads or writes; bytes go in, facts or an error come out. The stock parsers disagree with each other
on hostile heads, so what they would let through is refused here before anything is forwarded: a head that
passed has one meaning only. A "head" is the start line and the header lines, each ending in CRLF, without the
empty line.
"""

from __future__ import annotations

import re
from http import HTTPStatus

from septet.model.errors import BadReply, HeadTooLarge, MalformedRequest, MethodNotAllowed, SeptetError
from septet.wire.fields import (
    BARE,
    NAME,
    TOKEN,
    VALUE,
    Fields,
    ParseFields,
    cut_lines,
    parse_reply_fields,
    parse_request_fields,
    valid_host,
)

MAX_HEAD = 48 * 1024
"""Bytes of a request's head; with the platform's own lines it stays below the 64 KiB that a link carries."""
MAX_REPLY_HEAD = 64 * 1024
MAX_TARGET = 16 * 1024

_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb"{1,32}) ([\x21-\x7e]+) HTTP/1\.([01])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: " + VALUE + rb"*)?")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)([/?][^#]*)?")


class RequestHeadFacts:
    """What a checked request head says.

    `target` is in origin form (`/path?query`), also when the client sent the absolute form, or `*`; `path` is it
    up to the question mark, still percent-encoded; `host` is the authority, without a port being cut. `length`
    is 0 without a body and None when the body is chunked. `upgrade` is empty unless a switch was asked for that
    may be carried on. `lines` go on to the function.
    """

    __slots__ = (
        "chunked",
        "expect",
        "fields",
        "host",
        "keep_alive",
        "length",
        "lines",
        "method",
        "minor",
        "path",
        "target",
        "upgrade",
    )

    def __init__(self, method: bytes, target: bytes, minor: int, fields: Fields) -> None:
        self.method = method
        self.target = target
        self.path = target.partition(b"?")[0]
        self.minor = minor
        self.fields = fields
        self.host = fields.hosts[0] if fields.hosts else b""
        self.lines = fields.lines
        self.chunked = fields.chunked
        self.length: int | None = None if fields.chunked else fields.length or 0
        self.expect = minor == 1 and fields.expect is not None
        if minor == 1:
            self.keep_alive = b"close" not in fields.connection
        else:
            self.keep_alive = b"keep-alive" in fields.connection and b"close" not in fields.connection
        self.upgrade = fields.upgrade if minor == 1 and self.length == 0 else b""


class ReplyHeadFacts:
    """What a checked reply head says.

    `length` is the declared length, 0 when the status or the request's method forbids a body (then `declared`
    still has the Content-Length), None when the body is chunked or ends with the connection (`until_close`).
    """

    __slots__ = ("chunked", "declared", "fields", "keep_alive", "length", "lines", "minor", "status", "until_close")

    def __init__(self, status: int, minor: int, fields: Fields, method: bytes) -> None:
        self.status = status
        self.minor = minor
        self.fields = fields
        self.lines = fields.lines
        self.declared = fields.length
        bodiless = method == b"HEAD" or status < 200 or status in (204, 304)
        self.chunked = fields.chunked and not bodiless
        self.length: int | None = 0 if bodiless else (None if fields.chunked else fields.length)
        self.until_close = self.length is None and not self.chunked
        close = b"close" in fields.connection or (minor == 0 and b"keep-alive" not in fields.connection)
        self.keep_alive = not close and not self.until_close

    @property
    def upgrade(self) -> bytes:
        return self.fields.upgrade


def parse_request_head(data: bytes, parse: ParseFields | None = None) -> RequestHeadFacts:
    """Checks a request's head. Raises MalformedRequest, HeadTooLarge, MethodNotAllowed (CONNECT)."""
    if len(data) > MAX_HEAD:
        raise head_too_large(MAX_HEAD)
    end = data.find(b"\r\n")
    line = _REQUEST_LINE.fullmatch(data, 0, end if end >= 0 else len(data))
    if line is None:
        raise _request_line_error(data[:end] if end >= 0 else data)
    method, target, version = line.groups()
    if len(target) > MAX_TARGET:
        raise target_too_long()
    fields = (parse or parse_request_fields)(data[end + 2 :])
    minor = version[0] - 48
    if len(fields.hosts) != 1 and (minor == 1 or fields.hosts):
        raise _malformed("a request needs exactly one Host line", "send one Host line")
    if minor == 0 and fields.chunked:
        raise _malformed("an HTTP/1.0 request cannot be chunked", "send Content-Length, or use HTTP/1.1")
    if fields.expect is not None and fields.expect.lower() != b"100-continue":
        raise _malformed("the only expectation is 100-continue", "leave the Expect line out")
    if target[:1] == b"/":
        if b"#" in target:
            raise _malformed("a request target has no fragment", "leave out the part from # on")
        return RequestHeadFacts(method, target, minor, fields)
    return _other_form(method, target, minor, fields)


def parse_reply_head(data: bytes, method: bytes = b"GET", parse: ParseFields | None = None) -> ReplyHeadFacts:
    """Checks a reply's head; `method` is the request's. Raises BadReply."""
    if len(data) > MAX_REPLY_HEAD:
        raise BadReply(
            f"the head of the reply has more than {MAX_REPLY_HEAD} bytes",
            hint="send fewer or shorter header lines",
            limit=f"reply_head {MAX_REPLY_HEAD} bytes",
        )
    end = data.find(b"\r\n")
    line = _STATUS_LINE.fullmatch(data, 0, end if end >= 0 else len(data))
    if line is None or end < 0:
        raise BadReply("the reply does not begin with an HTTP/1.1 status line", hint="answer in HTTP/1.1")
    fields = (parse or parse_reply_fields)(data[end + 2 :])
    return ReplyHeadFacts(int(line[2]), line[1][0] - 48, fields, method)


class ReplyHeadsCache:
    """Checked reply heads of one instance, by the whole head: at most `entries` of at most `size` bytes each.

    Facts are shared and never changed. Only replies to the same method share them, since HEAD has no body.
    """

    def __init__(self, entries: int = 64, size: int = 2048) -> None:
        self._entries = entries
        self._size = size
        self._known: dict[tuple[bytes, bytes], ReplyHeadFacts] = {}

    def __call__(self, head: bytes, method: bytes) -> ReplyHeadFacts:
        """As `parse_reply_head`."""
        facts = self._known.get((head, method))
        if facts is None:
            facts = parse_reply_head(head, method)
            if len(head) <= self._size:
                if len(self._known) >= self._entries:
                    self._known.clear()
                self._known[head, method] = facts
        return facts


def incomplete_head_error(data: bytes, start: int = 0) -> SeptetError | None:
    """Says early that bytes without an empty line can never become a head, so that nobody waits for the rest.

    The first `start` bytes were looked at before.
    """
    if len(data) > MAX_HEAD:
        if data.find(b"\r\n", 0, MAX_TARGET + 64) < 0:
            return target_too_long()
        return head_too_large(MAX_HEAD)
    if BARE.search(data, max(0, start - 1)):
        return _malformed("a line ends in a bare CR or LF", "end every line with CRLF")
    if data and not NAME.match(data) and not data.startswith(b"\r"):
        return _malformed("this is not an HTTP request", "speak HTTP/1.1 here, with or without TLS as configured")
    if data.find(b"\r\n") < 0 and len(data) > MAX_TARGET + 64:
        return target_too_long()
    return None


def status_line(status: int) -> bytes:
    """`HTTP/1.1 200 OK` with CRLF; an unregistered status gets an empty reason."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


_STATUS_LINES = {int(status): b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}


# -- inside


def head_too_large(limit: int) -> HeadTooLarge:
    return HeadTooLarge(
        f"the head of the request has more than {limit} bytes",
        hint="send fewer or shorter header lines",
        limit=f"head {limit} bytes",
    )


def target_too_long() -> HeadTooLarge:
    return HeadTooLarge(
        f"the request target has more than {MAX_TARGET} bytes",
        hint="send long data in the body",
        limit=f"target {MAX_TARGET} bytes",
        details={"part": "target"},
    )


def _malformed(message: str, hint: str) -> MalformedRequest:
    return MalformedRequest(message, hint=hint)


def _request_line_error(line: bytes) -> SeptetError:
    if len(line) > MAX_TARGET + 64:
        return target_too_long()
    parts = line.split(b" ")
    if len(parts) == 3 and parts[2] not in (b"HTTP/1.0", b"HTTP/1.1"):
        return _malformed("the version is not HTTP/1.0 or HTTP/1.1", "speak HTTP/1.1")
    return _malformed(
        "the request line is not a method, a target and a version with one space between them",
        "send a line like GET /path HTTP/1.1, the target percent-encoded",
    )


def _other_form(method: bytes, target: bytes, minor: int, fields: Fields) -> RequestHeadFacts:
    """The asterisk, authority and absolute forms of RFC 9112 section 3.2."""
    if method == b"CONNECT":
        raise MethodNotAllowed("this is not a forward proxy", hint="use another method than CONNECT")
    if target == b"*" and method == b"OPTIONS":
        return RequestHeadFacts(method, target, minor, fields)
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not valid_host(absolute[1]):
        raise _malformed("the request target is neither a path nor an http address", "begin the target with /")
    rest = absolute[2] or b"/"
    head = RequestHeadFacts(method, rest if rest[:1] == b"/" else b"/" + rest, minor, fields)
    # The authority of the target wins over the Host line, which is replaced for whoever reads it next.
    head.host = absolute[1]
    head.lines = b"Host: %b\r\n%b" % (absolute[1], cut_lines(fields.lines, frozenset({b"host"})))
    return head
