"""Errors as `application/problem+json` (RFC 9457): the native API's shape, and the front's own."""

from __future__ import annotations

import math

import msgspec

from septet.model import errors
from septet.model.errors import SeptetError
from septet.wire.callroute import ErrorReply

STATUS: dict[type[SeptetError], int] = {
    errors.SeptetError: 500,
    errors.CallerError: 400,
    errors.InvalidInput: 400,
    errors.MalformedRequest: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.Conflict: 409,
    errors.Expired: 410,
    errors.PayloadTooLarge: 413,
    errors.HeadTooLarge: 431,
    errors.RequestTimeout: 408,
    errors.QuotaExceeded: 429,
    errors.ClientGone: 499,
    errors.FunctionError: 502,
    errors.BuildFailed: 502,
    errors.StartFailed: 502,
    errors.InitFailed: 502,
    errors.FunctionCrashed: 502,
    errors.FunctionRaised: 500,
    errors.FunctionOutOfMemory: 502,
    errors.FunctionTimeout: 504,
    errors.BadReply: 502,
    errors.PlatformError: 500,
    errors.QueueFull: 429,
    errors.QueueTimeout: 503,
    errors.NodeFull: 503,
    errors.ShuttingDown: 503,
    errors.Unavailable: 503,
    errors.Corrupt: 500,
    errors.InstanceLost: 502,
}
"""One line for every class of the tree."""

CONTENT_TYPE = b"application/problem+json"


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body. `type` is `urn:septet:error:<code>`; members without a value are left out, but the first seven
    are always there. `details` holds what a caller may see."""

    type: str
    title: str
    status: int
    detail: str
    stage: str
    retryable: bool
    fault: str
    limit: str = ""
    hint: str = ""
    invocation: str = ""
    details: dict[str, object] = {}


_PRIVATE = frozenset({"trace", "log"})
"""Details that are the function owner's: whoever calls a public function must not read its source lines."""

_encoder = msgspec.json.Encoder(enc_hook=repr)


def status_of(error: SeptetError) -> int:
    """The HTTP status; a class made later is shown as its nearest ancestor."""
    if isinstance(error, errors.HeadTooLarge) and error.details.get("part") == "target":
        return 414
    for cls in type(error).__mro__:
        if cls in STATUS:
            return STATUS[cls]
    return 500


def title_of(error: SeptetError) -> str:
    """`queue-full` -> `Queue full`."""
    return error.code.replace("-", " ").capitalize()


def render_problem(error: SeptetError, invocation: str) -> ErrorReply:
    """A reply for any error of the tree, for whoever made a call; pure."""
    return _render(error, invocation, owner=False)


def _render(error: SeptetError, invocation: str, owner: bool) -> ErrorReply:
    status = status_of(error)
    problem = Problem(
        type=f"urn:septet:error:{error.code}",
        title=title_of(error),
        status=status,
        detail=error.message,
        stage=error.stage,
        retryable=error.retryable,
        fault=error.fault,
        limit=error.limit,
        hint=error.hint,
        invocation=invocation,
        details={name: value for name, value in error.details.items() if owner or name not in _PRIVATE},
    )
    return ErrorReply(status, CONTENT_TYPE, _encoder.encode(problem), error_lines(error, status))


def render_full_problem(error: SeptetError, invocation: str) -> ErrorReply:
    """As above with traces and build logs; for the control API, whose callers own what they see."""
    return _render(error, invocation, owner=True)


def error_lines(error: SeptetError, status: int) -> bytes:
    """The header lines that an error's status asks for: Retry-After, WWW-Authenticate, Allow."""
    lines = b""
    if error.retry_after is not None:
        lines += b"Retry-After: %d\r\n" % max(1, math.ceil(error.retry_after))
    elif status in (429, 503):
        lines += b"Retry-After: 1\r\n"
    if status == 401:
        lines += b'WWW-Authenticate: Bearer realm="septet"\r\n'
    if status == 405:
        allow = error.details.get("allow")
        methods = [str(method) for method in allow] if isinstance(allow, list | tuple) else []
        lines += b"Allow: %b\r\n" % ", ".join(methods).encode("ascii", "replace").translate(None, b"\r\n\0")
    return lines
