"""The front's own errors, and how any error is shown."""

from __future__ import annotations

from septet.model.errors import (
    FunctionRaised,
    FunctionTimeout,
    PayloadTooLarge,
    PlatformError,
    RequestTimeout,
    SeptetError,
)
from septet.model.instance import LimitMet
from septet.wire.callroute import ErrorReply, RenderError
from septet.wire.problem import render_problem


def rendered(render: RenderError, error: SeptetError, invocation: str) -> ErrorReply:
    """An API's own rendering; when that fails, the front's, so that an answer always goes out."""
    try:
        return render(error, invocation)
    except Exception as broken:
        internal = PlatformError(f"an error could not be shown: {broken!r}", hint=f"the error was {error.code}")
        return render_problem(internal, invocation)


def too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"the body of the request has more than {limit} bytes",
        hint="send less, or raise limits.request_body",
        limit=f"request_body {limit} bytes",
    )


def slow_body(rate: float) -> RequestTimeout:
    return RequestTimeout(
        f"the body of the request came slower than {rate:g} bytes a second",
        hint="send the body faster",
        limit=f"body_rate {rate:g} bytes/s",
    )


def slow_head(limit: float) -> RequestTimeout:
    return RequestTimeout(
        f"the head of the request was not complete within {limit:g} s",
        hint="send the request at once",
        limit=f"head_timeout {limit:g} s",
    )


def timed_out(timeout: float, met: tuple[LimitMet, ...]) -> FunctionTimeout:
    """`met` are the limits that the instance met while the call ran, which may be why."""
    return FunctionTimeout(
        f"the function did not answer within {timeout:g} s{_while(met)}",
        hint="raise limits.timeout, or make the function faster",
        limit=", ".join((f"timeout {timeout:g} s", *map(str, met))),
    )


def raised_at(error: FunctionRaised, met: tuple[LimitMet, ...]) -> FunctionRaised:
    """What the handler raised, where it spoke of something else than the limit that its instance met."""
    if not met:
        return error
    return FunctionRaised(
        error.message + _while(met),
        hint=error.hint,
        stage=error.stage,
        limit=", ".join(map(str, met)),
        retry_after=error.retry_after,
        details=error.details,
    )


def _while(met: tuple[LimitMet, ...]) -> str:
    return f"; its instance met its limit of {', '.join(map(str, met))}" if met else ""
