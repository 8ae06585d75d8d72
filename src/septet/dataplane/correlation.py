"""Request ids and W3C trace context: what the caller sent is kept when it is sane, else replaced."""

from __future__ import annotations

import re

from septet.dataplane.ids import IdSource
from septet.wire.fields import Fields

_SANE_ID = re.compile(rb"[A-Za-z0-9._~:/+=@\-]{1,128}")
_TRACEPARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

PLATFORM_NAMES = frozenset({b"x-request-id", b"traceparent", b"tracestate", b"forwarded", b"x-real-ip"})
PLATFORM_PREFIXES = (b"x-forwarded-", b"septet-")


def request_id(fields: Fields, invocation: bytes) -> bytes:
    """The caller's X-Request-Id when there is exactly one and it is sane, else the invocation's id."""
    given = fields.all(b"x-request-id")
    if len(given) == 1 and _SANE_ID.fullmatch(given[0]):
        return given[0]
    return invocation


def trace_context(fields: Fields, invocation: bytes, ids: IdSource) -> tuple[bytes, bytes]:
    """(traceparent, tracestate) to send on: the caller's trace with a span of ours, or a new trace.

    A new trace has the invocation's id and is not sampled. Without a valid traceparent there is no tracestate.
    """
    span = ids.span().encode()
    given = fields.all(b"traceparent")
    found = _TRACEPARENT.fullmatch(given[0]) if len(given) == 1 else None
    if found is None or (found[1] == b"00" and found[5] is not None):
        return b"00-%b-%b-00" % (invocation, span), b""
    state = b",".join(fields.all(b"tracestate"))
    return b"00-%b-%b-%b" % (found[2], span, found[4]), state if len(state) <= 512 else b""
