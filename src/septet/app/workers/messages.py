"""What the control process and its workers tell each other; some carry a descriptor beside the message."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from septet.model import errors
from septet.model.errors import PlatformError, SeptetError
from septet.model.function import FunctionTemplate
from septet.model.instance import ColdReason, InstanceExit, InstanceInfo, LimitMet
from septet.model.invocation import InvocationRecord
from septet.model.objects import AnyObject, Token
from septet.ports.logs import LogLine
from septet.ports.signals import RevisionKey

CONTROL = -1
"""The control process's number; workers count from 0."""


class Failure(msgspec.Struct, frozen=True):
    """An error of the tree on its way between processes."""

    name: str
    message: str
    hint: str = ""
    stage: errors.Stage = "control"
    limit: str = ""
    retry_after: float | None = None
    details: dict[str, object] = {}


def carry(error: SeptetError) -> Failure:
    return Failure(
        type(error).__name__, error.message, error.hint, error.stage, error.limit, error.retry_after, error.details
    )


_ERRORS = {each.__name__: each for each in errors.all_errors()}


def uncarry(failure: Failure) -> SeptetError:
    return _ERRORS.get(failure.name, PlatformError)(
        failure.message,
        hint=failure.hint,
        stage=failure.stage,
        limit=failure.limit,
        retry_after=failure.retry_after,
        details=failure.details,
    )


class ListenerPlan(msgspec.Struct, frozen=True):
    """One listener that a worker serves; its socket comes along, in the same order."""

    name: str
    apis: tuple[str, ...]
    namespace: str
    anonymous: tuple[str, ...]
    secure: bool


class Begin(msgspec.Struct, tag=True):
    """The first message to a worker. Descriptors: the memory of the rates, then one listening socket for each
    listener."""

    slot: int
    listeners: tuple[ListenerPlan, ...]
    trusted: tuple[str, ...]
    certificates: tuple[tuple[str, str], ...]
    log_level: str


class Changed(msgspec.Struct, tag=True):
    """An object of the store that calls depend on."""

    version: int
    deleted: bool
    object: AnyObject


class Tokens(msgspec.Struct, tag=True):
    """All tokens: any other is worth nothing."""

    tokens: tuple[Token, ...]


class Synced(msgspec.Struct, tag=True):
    """All objects were told; from now on calls may be answered."""


class Owned(msgspec.Struct, tag=True):
    """Which workers live, and which revisions stay where they are whatever the hash says."""

    live: tuple[int, ...]
    pins: tuple[tuple[RevisionKey, int], ...] = ()


class Open(msgspec.Struct, tag=True):
    """Open a link to this instance; `deadline` is in seconds of the monotonic clock."""

    number: int
    instance: InstanceInfo
    template: FunctionTemplate
    deadline: float


class Stream(msgspec.Struct, tag=True):
    """The stream that was asked for, as the descriptor; `early` are bytes that were read from it already."""

    number: int
    early: bytes = b""


class NoStream(msgspec.Struct, tag=True):
    number: int
    failure: Failure


class Add(msgspec.Struct, tag=True):
    key: RevisionKey
    instance: str
    concurrency: int


class Quiesce(msgspec.Struct, tag=True):
    """No new calls for this instance; Loads tell when it runs nothing."""

    key: RevisionKey
    instance: str


class Remove(msgspec.Struct, tag=True):
    key: RevisionKey
    instance: str


class Close(msgspec.Struct, tag=True):
    instance: str
    grace: float


class FailWaiting(msgspec.Struct, tag=True):
    key: RevisionKey
    failure: Failure


class Emptied(msgspec.Struct, tag=True):
    """Why the next call of a revision without instances will have to wait."""

    key: RevisionKey
    reason: ColdReason


class Explained(msgspec.Struct, tag=True):
    number: int
    exit: InstanceExit | None


class AskLimits(msgspec.Struct, tag=True):
    number: int
    instance: str
    age: float


class Limited(msgspec.Struct, tag=True):
    number: int
    met: tuple[LimitMet, ...]


class Meet(msgspec.Struct, tag=True):
    """A line to another process, as the descriptor. On "asks" we ask for places in its instances, on "answers" it asks
    for places in ours; "moves" carries connections both ways."""

    peer: int
    line: Literal["asks", "answers", "moves"]


class Cover(msgspec.Struct, tag=True):
    """Accept what is for a worker that is away, too. Descriptors: its sockets, as in Begin."""

    slot: int


class Uncover(msgspec.Struct, tag=True):
    """That worker is back."""

    slot: int


class Hold(msgspec.Struct, tag=True):
    """The platform is about to stop: send no connection to another process from now on."""


class Drain(msgspec.Struct, tag=True):
    """Accept no more, let what runs end within `grace` seconds, and say Drained; borrowed instances go on."""

    grace: float


class Ping(msgspec.Struct, tag=True):
    number: int


class Pong(msgspec.Struct, tag=True):
    """Everything that was sent before the ping of this number is in effect, and all that happened was told."""

    number: int


# -- from workers


class Listening(msgspec.Struct, tag=True):
    """The worker knows everything, and accepts connections as soon as it is named among the living."""


class Connect(msgspec.Struct, tag=True):
    """A stream to an instance is wanted."""

    number: int
    instance: str


class Opened(msgspec.Struct, tag=True):
    number: int


class NotOpened(msgspec.Struct, tag=True):
    number: int
    failure: Failure


class Lost(msgspec.Struct, tag=True):
    """The link to an instance broke."""

    instance: str


class Closed(msgspec.Struct, tag=True):
    instance: str


class Vacated(msgspec.Struct, tag=True):
    """An instance that was removed has no call in it any more."""

    instance: str


class SlotLoad(msgspec.Struct, frozen=True, array_like=True):
    """One instance: calls inside, since when (monotonic seconds) it has none, and whether it takes no more."""

    instance: str
    running: int
    idle_since: float
    draining: bool


class RevisionLoad(msgspec.Struct, frozen=True, array_like=True):
    """One revision since it was last told: `area` is concurrency times seconds."""

    key: RevisionKey
    area: float
    arrived: float
    waiting: int
    running: int
    slots: tuple[SlotLoad, ...]


class Loads(msgspec.Struct, tag=True):
    """`open` is the number of calls that this worker's clients wait for."""

    open: int
    revisions: tuple[RevisionLoad, ...]


class Wanted(msgspec.Struct, tag=True):
    """Calls of this revision wait and no instance has room."""

    load: RevisionLoad


class Explain(msgspec.Struct, tag=True):
    number: int
    instance: str


class Tally(msgspec.Struct, frozen=True, array_like=True):
    """What one series of the metrics grew by."""

    key: tuple[str, str, str, str]
    status: dict[str, tuple[list[int], list[float]]]
    errors: int
    timeouts: int
    cold: dict[str, int]
    bytes_in: int
    bytes_out: int


class Told(msgspec.Struct, tag=True):
    """Records, lines and numbers of calls, in batches. `encoded` are records as JSON, with their function."""

    records: tuple[InvocationRecord, ...] = ()
    encoded: tuple[tuple[tuple[str, str], bytes], ...] = ()
    lines: tuple[LogLine, ...] = ()
    tallies: tuple[Tally, ...] = ()


class Drained(msgspec.Struct, tag=True):
    clean: bool


class Moved(msgspec.Struct, tag=True):
    """A client connection, as the descriptor, with the bytes read so far.

    `moved_at` is when (monotonic seconds). `host` and `port` are the client's, where the descriptor cannot tell:
    it is then our end of a pair, whose other end copies to and from the client.
    """

    listener: str
    data: bytes
    moved_at: float
    host: str = ""
    port: int = 0
    copied: bool = False


Message: TypeAlias = (
    Begin
    | Changed
    | Tokens
    | Synced
    | Owned
    | Open
    | Stream
    | NoStream
    | Add
    | Quiesce
    | Remove
    | Close
    | FailWaiting
    | Emptied
    | Explained
    | Limited
    | Meet
    | Cover
    | Uncover
    | Hold
    | Drain
    | Ping
    | Pong
    | Listening
    | Connect
    | Opened
    | NotOpened
    | Lost
    | Closed
    | Vacated
    | Loads
    | Wanted
    | Explain
    | AskLimits
    | Told
    | Drained
    | Moved
)
