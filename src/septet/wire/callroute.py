"""Call routes as data: what an API tells the front about its calls, so that no framework stands in their way."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from septet.model.errors import SeptetError


class ErrorReply(NamedTuple):
    """How an API shows an error. `lines` are further header lines, each ending in CRLF."""

    status: int
    content_type: bytes
    body: bytes
    lines: bytes = b""


RenderError = Callable[[SeptetError, str], ErrorReply]
"""(error, invocation id or "") -> reply; pure, total over the error tree."""


class CallRoute(NamedTuple):
    """Requests whose path starts with `prefix` are calls of a function named by the segments that follow.

    With `namespaced` the first segment is the namespace, else `namespace` is used; the next one is the function,
    and the rest is the path that the function sees. Segments are percent-decoded after splitting. Header names
    are lower case: `drop` are not forwarded, `rename` maps old to new, `reply_lines` go onto every answer
    (with `{invocation}` replaced).
    """

    api: str
    prefix: bytes
    render_error: RenderError
    namespaced: bool = True
    namespace: str = "default"
    drop: frozenset[bytes] = frozenset()
    rename: tuple[tuple[bytes, bytes], ...] = ()
    reply_lines: bytes = b""
