"""The whole error tree: whose fault it is, and whether trying again can help. No HTTP in here.

Each API maps these classes to its own statuses and bodies, totally: a class without a mapping fails a test.
`code` is stable and is what clients match on; `message` says what happened; `hint` says what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

Fault = Literal["caller", "function", "platform"]
Stage = Literal["route", "queue", "build", "start", "init", "user code", "limit", "reply", "control"]


class SeptetError(Exception):
    """Anything the platform refuses or fails to do.

    `stage` names where a call failed, `limit` which limit fired (its name and value), `retry_after` is in
    seconds, `details` carries machine-readable extras (for example the end of a build's log).
    """

    code: ClassVar[str] = "internal"
    fault: ClassVar[Fault] = "platform"
    retryable: ClassVar[bool] = False
    default_stage: ClassVar[Stage] = "control"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        stage: Stage | None = None,
        limit: str = "",
        retry_after: float | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.stage: Stage = stage or self.default_stage
        self.limit = limit
        self.retry_after = retry_after
        self.details: dict[str, object] = dict(details or {})

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


# -- the caller's fault ---------------------------------------------------------------------------------------


class CallerError(SeptetError):
    """The request cannot be served as it is; the caller has to change it."""

    code = "bad-request"
    fault: ClassVar[Fault] = "caller"


class InvalidInput(CallerError):
    """A field, a name, a head or a file breaks a rule; `details["field"]` names it where one field does."""

    code = "invalid-input"


class MalformedRequest(CallerError):
    """The bytes are not HTTP as RFC 9112 has it; the connection is closed after the answer."""

    code = "malformed-request"
    default_stage: ClassVar[Stage] = "route"


class Unauthenticated(CallerError):
    """No credential, or one that is unknown or expired."""

    code = "unauthenticated"
    default_stage: ClassVar[Stage] = "route"


class Forbidden(CallerError):
    """The credential is good, but not for this."""

    code = "forbidden"
    default_stage: ClassVar[Stage] = "route"


class NotFound(CallerError):
    """No such object or path; `details` has `kind` and `name` for an object."""

    code = "not-found"
    default_stage: ClassVar[Stage] = "route"


class MethodNotAllowed(CallerError):
    """The path exists, the method does not; `details["allow"]` lists those that do."""

    code = "method-not-allowed"
    default_stage: ClassVar[Stage] = "route"


class Conflict(CallerError):
    """The object changed meanwhile, exists already, or is still referred to."""

    code = "conflict"


class Expired(CallerError):
    """A watch or a page asked for a version that is no longer kept: list again and go on from there."""

    code = "expired"


class PayloadTooLarge(CallerError):
    code = "payload-too-large"
    default_stage: ClassVar[Stage] = "limit"


class HeadTooLarge(CallerError):
    code = "head-too-large"
    default_stage: ClassVar[Stage] = "limit"


class RequestTimeout(CallerError):
    """The client did not finish sending its request in time."""

    code = "request-timeout"
    default_stage: ClassVar[Stage] = "limit"


class QuotaExceeded(CallerError):
    """A quota of the namespace or the token; `limit` names it."""

    code = "quota-exceeded"
    retryable = True
    default_stage: ClassVar[Stage] = "limit"


class ClientGone(CallerError):
    """The client closed the connection; nobody reads this error, but the record has it."""

    code = "client-gone"
    default_stage: ClassVar[Stage] = "reply"


# -- the function's fault -------------------------------------------------------------------------------------


class FunctionError(SeptetError):
    code = "function-error"
    fault: ClassVar[Fault] = "function"
    default_stage: ClassVar[Stage] = "user code"


class BuildFailed(FunctionError):
    """`details["log"]` is the end of the build's log."""

    code = "build-failed"
    default_stage: ClassVar[Stage] = "build"


class StartFailed(FunctionError):
    """The process ended, or never accepted connections, before it was ready."""

    code = "start-failed"
    default_stage: ClassVar[Stage] = "start"


class InitFailed(FunctionError):
    """The handler could not be loaded (import error, missing handler); `details["trace"]` has the trace."""

    code = "init-failed"
    default_stage: ClassVar[Stage] = "init"


class FunctionCrashed(FunctionError):
    """The process ended while it ran this call."""

    code = "function-crashed"


class FunctionRaised(FunctionError):
    """The handler raised; `details["trace"]` has the trace for those who may see it."""

    code = "function-raised"


class FunctionOutOfMemory(FunctionError):
    code = "function-out-of-memory"
    default_stage: ClassVar[Stage] = "limit"


class FunctionTimeout(FunctionError):
    code = "function-timeout"
    default_stage: ClassVar[Stage] = "limit"


class BadReply(FunctionError):
    """What the function answered is not HTTP, or breaks a limit on replies."""

    code = "bad-reply"
    default_stage: ClassVar[Stage] = "reply"


# -- the platform's fault, or nobody's ------------------------------------------------------------------------


class PlatformError(SeptetError):
    code = "internal"
    fault: ClassVar[Fault] = "platform"


class QueueFull(PlatformError):
    code = "queue-full"
    retryable = True
    default_stage: ClassVar[Stage] = "queue"


class QueueTimeout(PlatformError):
    """The call waited for an instance for as long as it may."""

    code = "queue-timeout"
    retryable = True
    default_stage: ClassVar[Stage] = "queue"


class NodeFull(PlatformError):
    """The sum of all instances' memory would exceed the node's budget."""

    code = "node-full"
    retryable = True
    default_stage: ClassVar[Stage] = "start"


class ShuttingDown(PlatformError):
    code = "shutting-down"
    retryable = True
    default_stage: ClassVar[Stage] = "queue"


class Unavailable(PlatformError):
    """Something the platform needs does not work: a driver, the store, the disk."""

    code = "unavailable"
    retryable = True


class Corrupt(PlatformError):
    """A stored row or file does not match its checksum; it is refused, never served."""

    code = "corrupt"


class InstanceLost(PlatformError):
    """The instance vanished before the call was started; internal, so that a call can move elsewhere."""

    code = "instance-lost"
    retryable = True
    default_stage: ClassVar[Stage] = "start"


def all_errors() -> list[type[SeptetError]]:
    """Every class of the tree, the root first."""
    found: list[type[SeptetError]] = [SeptetError]
    for cls in found:
        found.extend(cls.__subclasses__())
    return found
