"""Header lines on their way: what a function gets of its caller's, and a caller of its function's."""

from __future__ import annotations

import re
from typing import NamedTuple

from septet.dataplane.dispatch import CallTarget, Peer
from septet.wire.callroute import CallRoute
from septet.wire.fields import HOP_BY_HOP, Fields, cut_lines, lines_are_valid
from septet.wire.http1 import RequestHeadFacts

_OWN_REPLY_NAMES = frozenset({b"x-request-id", b"septet-invocation-id", b"septet-limit", b"traceparent", *HOP_BY_HOP})
# Beginning with a plain byte, the search skips from line to line.
_MARK = b"Date: \r\n"
_NOTED = re.compile(rb"\n(?i:" + b"|".join(sorted(_OWN_REPLY_NAMES | {b"date"})) + rb"):")

MEMORY = 256
SIZE = 2048
"""So many blocks of at most so many bytes are remembered."""


class Forwarded(NamedTuple):
    """The lines of a connection's last call, and all that they came from besides the connection itself."""

    fields: Fields
    route: CallRoute
    cut: frozenset[bytes]
    lines: bytes


def forwarded_lines(
    last: Forwarded | None, head: RequestHeadFacts, target: CallTarget, peer: Peer
) -> tuple[bytes, Forwarded | None]:
    """`function_lines`, and what to remember for the connection's next call.

    Checked blocks are shared objects and never change, so the same object means the same lines. A head whose
    lines are not its block's (a target in absolute form) is made anew.
    """
    fields = head.fields
    if head.lines is not fields.lines or len(head.lines) > SIZE:
        return function_lines(head, target, peer), None
    if last is not None and last.fields is fields and last.route is target.route and last.cut == target.cut:
        return last.lines, last
    lines = function_lines(head, target, peer)
    return lines, Forwarded(fields, target.route, target.cut, lines)


class ClientLines:
    """Checks a function's lines and cuts those that are the platform's; remembers whole blocks that passed."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[bytes, bool]] = {}

    def __call__(self, lines: bytes) -> tuple[bytes, bool] | None:
        """(lines for the client, whether one of them is a Date); None for a block that is not valid."""
        found = self._known.get(lines)
        if found is None:
            if not lines_are_valid(lines):
                return None
            own = client_lines(lines, b"")
            found = (own, client_lines(lines, _MARK) == own)
            if len(lines) <= SIZE:
                if len(self._known) >= MEMORY:
                    self._known.clear()
                self._known[lines] = found
        return found


def function_lines(head: RequestHeadFacts, target: CallTarget, peer: Peer) -> bytes:
    """The caller's lines as the route wants them, and where the request came from.

    What the caller says of that is believed only of a trusted peer, else replaced.
    """
    lines, route = head.lines, target.route
    if target.cut or route.drop:
        lines = cut_lines(lines, target.cut | route.drop)
    if route.rename:
        lines = rename_lines(lines, dict(route.rename))
    host, fields = head.host, head.fields
    forwarded, proto = peer.host.encode(), b"https" if peer.listener.secure else b"http"
    if peer.trusted:
        before = b", ".join(fields.all(b"x-forwarded-for"))
        forwarded = b", ".join(part for part in (before, forwarded) if part)
        proto = fields.get(b"x-forwarded-proto") or proto
        host = fields.get(b"x-forwarded-host") or host
    return b"%bx-forwarded-for: %b\r\nx-forwarded-proto: %b\r\nx-forwarded-host: %b\r\n" % (
        lines,
        forwarded,
        proto,
        host,
    )


def invocation_lines(invocation: bytes, traceparent: bytes, tracestate: bytes, request: bytes) -> bytes:
    """Who this call is."""
    state = b"tracestate: %b\r\n" % tracestate if tracestate else b""
    return b"septet-invocation-id: %b\r\ntraceparent: %b\r\n%bx-request-id: %b\r\n" % (
        invocation,
        traceparent,
        state,
        request,
    )


def client_lines(lines: bytes, date: bytes) -> bytes:
    """A function's valid lines without those that are the platform's, and with `date` when they have none."""
    noted = {name.lower().strip(b"\n:") for name in _NOTED.findall(b"\n" + lines)}
    if noted - {b"date"}:
        lines = cut_lines(lines, _OWN_REPLY_NAMES)
    return lines if b"date" in noted else lines + date


def rename_lines(lines: bytes, names: dict[bytes, bytes]) -> bytes:
    """A valid block with header names changed; `names` maps lower-case old to new."""
    out = []
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        out.append(b"%b:%b\r\n" % (names.get(name.lower(), name), value))
    return b"".join(out)
