"""HTTP/1 header blocks: a strict checker, and what one does with header lines (RFC 9112 section 5, RFC 9110).

A "block" is header lines alone, each ending in CRLF. What passed has one meaning only: no bare CR or LF, no
folding, names are tokens, values hold no control bytes, framing lines occur once and do not contradict.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable

from septet.model.errors import BadReply, HeadTooLarge, MalformedRequest, SeptetError

MAX_LINES = 256

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
VALUE = rb"[\t\x20-\x7e\x80-\xff]"
BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)(?=[\x00-\xff])")
NAME = re.compile(TOKEN + rb"+")
_TEXT = re.compile(VALUE + rb"*")
_BLOCK = re.compile(rb"(?:" + TOKEN + rb"+:" + VALUE + rb"*\r\n)*")
_LENGTH = re.compile(rb"[0-9]{1,19}")
_HOST = re.compile(
    rb"(?:\[(?P<six>[0-9A-Fa-f:.]{2,45})\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2}){1,255})"
    rb"(?::(?P<port>[0-9]{0,5}))?"
)

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"http2-settings",
        b"keep-alive",
        b"proxy",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Lines that concern one connection only, with the framing that each side makes anew, and `Proxy`, which CGI
programs would take for a setting."""

NO_NAMES: frozenset[bytes] = frozenset()


class Fields:
    """A header block that passed every rule.

    `pairs` are (lower-case name, value without surrounding blanks) of every line, `names` the names in them.
    `lines` is the block with hop-by-hop lines, lines named by Connection, and those the caller asked to cut taken
    out. `connection` are the lower-case options of Connection. `length` is Content-Length or None.
    """

    __slots__ = ("chunked", "connection", "expect", "hosts", "length", "lines", "names", "pairs", "upgrade")

    def __init__(self) -> None:
        self.pairs: tuple[tuple[bytes, bytes], ...] = ()
        self.names: frozenset[bytes] = NO_NAMES
        self.lines = b""
        self.length: int | None = None
        self.chunked = False
        self.connection: frozenset[bytes] = NO_NAMES
        self.expect: bytes | None = None
        self.hosts: tuple[bytes, ...] = ()
        self.upgrade = b""

    def get(self, name: bytes) -> bytes | None:
        """The value of the first line of that lower-case name."""
        if name in self.names:
            for key, value in self.pairs:
                if key == name:
                    return value
        return None

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.pairs if key == name] if name in self.names else []


ParseFields = Callable[[bytes], Fields]


def parse_request_fields(block: bytes, cut: frozenset[bytes] = NO_NAMES, cut_prefix: tuple[bytes, ...] = ()) -> Fields:
    """Checks a request's header lines; `cut` (lower case) and names beginning with one of `cut_prefix` stay
    out of `lines`.

    A name with underscores is cut like its twin with hyphens, because CGI and WSGI make them one variable.
    """
    return _parse_fields(block, MalformedRequest, cut, cut_prefix)


def parse_reply_fields(block: bytes, cut: frozenset[bytes] = NO_NAMES, cut_prefix: tuple[bytes, ...] = ()) -> Fields:
    """Checks a reply's header lines; as above, but raises BadReply."""
    return _parse_fields(block, BadReply, cut, cut_prefix)


class FieldsCache:
    """Remembers checked blocks: clients repeat their header lines byte for byte.

    The key is the whole block and only blocks that passed enter; at most `entries` of at most `size` bytes each.
    """

    def __init__(self, parse: ParseFields, entries: int = 1024, size: int = 2048) -> None:
        self._parse = parse
        self._entries = entries
        self._size = size
        self._known: dict[bytes, Fields] = {}

    def __call__(self, block: bytes) -> Fields:
        fields = self._known.get(block)
        if fields is None:
            fields = self._parse(block)
            if len(block) <= self._size:
                if len(self._known) >= self._entries:
                    self._known.clear()
                self._known[block] = fields
        return fields


# -- header lines


def header_line(name: bytes, value: bytes) -> bytes:
    """One line; ValueError when it would not be exactly one valid line."""
    if not NAME.fullmatch(name) or not _TEXT.fullmatch(value):
        raise ValueError(f"not a header line: {name!r}: {value!r}")
    return b"%b: %b\r\n" % (name, value)


def encode_lines(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([header_line(name, value) for name, value in pairs])


def lines_are_valid(lines: bytes) -> bool:
    """Every line of the block is a name, a colon and a value without control bytes, ending in CRLF."""
    return _BLOCK.fullmatch(lines) is not None


def cut_lines(lines: bytes, names: frozenset[bytes]) -> bytes:
    """A valid block without the lines of these lower-case names."""
    return b"".join(
        [line + b"\r\n" for line in lines.split(b"\r\n")[:-1] if line[: line.index(b":")].lower() not in names]
    )


def valid_host(host: bytes) -> bool:
    """A host with or without port, as RFC 3986 has it: a registered name, an IPv4 or a bracketed IPv6 address."""
    found = _HOST.fullmatch(host)
    if found is None or int(found["port"] or b"0") > 65535:
        return False
    if found["six"] is not None:
        try:
            ipaddress.IPv6Address(found["six"].decode())
        except ValueError:
            return False
    return True


# -- inside


def _parse_fields(
    block: bytes, error: type[SeptetError], cut: frozenset[bytes], cut_prefix: tuple[bytes, ...]
) -> Fields:
    if _BLOCK.fullmatch(block) is None:
        raise _block_error(block, error)
    lines = block.split(b"\r\n")
    lines.pop()
    if len(lines) > MAX_LINES:
        raise _too_many_lines(error)
    fields = Fields()
    pairs = []
    for line in lines:
        name, _, value = line.partition(b":")
        pairs.append((name.lower(), value.strip(b" \t")))
    fields.pairs = tuple(pairs)
    fields.names = frozenset([name for name, _ in pairs])
    special = [pair for pair in pairs if pair[0] in _READ]
    for name, value in special:
        _read(fields, name, value, error)
    if fields.chunked and fields.length is not None:
        raise error("Content-Length and Transfer-Encoding contradict each other", hint="send only one of them")
    fields.upgrade = _carried_upgrade(fields)
    named = fields.connection - {b"host"}
    kept = []
    for line, (name, _) in zip(lines, pairs, strict=True):
        if name in HOP_BY_HOP or name in named or name in cut or name.startswith(cut_prefix):
            continue
        if b"_" in name and _twin_is_cut(name, cut, cut_prefix):
            continue
        kept.append(line)
    if kept:
        kept.append(b"")
        fields.lines = b"\r\n".join(kept)
    return fields


_READ = frozenset({b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect", b"host"})


def _read(fields: Fields, name: bytes, value: bytes, error: type[SeptetError]) -> None:
    """Takes in one line that has a meaning for this connection."""
    if name == b"content-length":
        if fields.length is not None:
            raise error("Content-Length is there twice", hint="send it once")
        if not _LENGTH.fullmatch(value):
            raise error("Content-Length is not a number of 1 to 19 digits", hint="send the body's length in bytes")
        fields.length = int(value)
    elif name == b"transfer-encoding":
        if fields.chunked or value.lower() != b"chunked":
            raise error("the only transfer coding is chunked, once", hint="send Transfer-Encoding: chunked")
        fields.chunked = True
    elif name == b"connection":
        options = [option.strip(b" \t").lower() for option in value.split(b",")]
        if any(option and not NAME.fullmatch(option) for option in options):
            raise error("Connection is not a list of names", hint="separate the names by commas")
        fields.connection |= frozenset(option for option in options if option)
    elif name == b"host":
        # A reply may carry a line of that name, where it means nothing.
        if error is MalformedRequest and not valid_host(value):
            raise error("Host is not a host with or without a port", hint="send the address's host as in a URL")
        fields.hosts += (value,)
    elif name == b"upgrade":
        fields.upgrade = fields.upgrade + b", " + value if fields.upgrade else value
    else:
        if fields.expect is not None:
            raise error("Expect is there twice", hint="send it once")
        fields.expect = value


def _carried_upgrade(fields: Fields) -> bytes:
    """The protocol to switch to; HTTP/2 and TLS over a tunnel would pass by every check here, so they are not."""
    if not fields.upgrade or b"upgrade" not in fields.connection:
        return b""
    wanted = fields.upgrade.lower()
    if wanted.startswith((b"h2", b"http/", b"tls/")) or b"," in wanted:
        return b""
    return fields.upgrade


def _twin_is_cut(name: bytes, cut: frozenset[bytes], cut_prefix: tuple[bytes, ...]) -> bool:
    twin = name.replace(b"_", b"-")
    return twin in HOP_BY_HOP or twin in cut or twin == b"host" or twin.startswith(cut_prefix)


def _too_many_lines(error: type[SeptetError]) -> SeptetError:
    message = f"the head has more than {MAX_LINES} header lines"
    kind = HeadTooLarge if error is MalformedRequest else error
    return kind(message, hint="send fewer header lines", limit=f"header_lines {MAX_LINES}")


def _block_error(block: bytes, error: type[SeptetError]) -> SeptetError:
    """Which rule the block broke, in words."""
    if BARE.search(block):
        return error("a header line has a bare CR or LF", hint="end every line with CRLF")
    for line in block.split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):
            return error("a header line is folded over two lines", hint="send each header on one line")
        name, colon, value = line.partition(b":")
        if line and not colon:
            return error("a header line has no colon", hint="send name: value")
        if line and not NAME.fullmatch(name):
            return error("a header name has a byte that is not allowed there", hint="no blanks before the colon")
        if not _TEXT.fullmatch(value):
            return error("a header value has a control byte", hint="leave control bytes out")
    return error("the header lines do not each end in CRLF", hint="end every line with CRLF")
