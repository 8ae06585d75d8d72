"""Header lines on their way: what a function gets of its caller's, and a caller of its function's."""

from __future__ import annotations

import re

from septet.dataplane.dispatch import CallTarget, Peer
from septet.wire.fields import HOP_BY_HOP, cut_lines
from septet.wire.http1 import RequestHeadFacts

_OWN_REPLY_NAMES = frozenset({b"x-request-id", b"septet-invocation-id", b"traceparent", *HOP_BY_HOP})
# Beginning with a plain byte, the search skips from line to line.
_NOTED = re.compile(rb"\n(?i:" + b"|".join(sorted(_OWN_REPLY_NAMES | {b"date"})) + rb"):")


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
