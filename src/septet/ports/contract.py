"""How one speaks with the process inside an instance, whatever started it.

A contract opens a link over the sandbox's byte stream; a link carries exchanges. An exchange is push-based on
both sides: the caller writes the request into an Upload, the link writes the answer into a Reply. Nothing here
awaits, so that no task and no future is needed for a call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, runtime_checkable

from septet.model.errors import SeptetError
from septet.model.function import FunctionTemplate
from septet.model.instance import InstanceInfo
from septet.ports.sandbox import ProtocolFactory


class RequestHead:
    """What goes to the function: already checked, hop-by-hop lines cut, platform headers added.

    `lines` are complete header lines, each ending in CRLF, without Content-Length, Transfer-Encoding,
    Connection, Upgrade. `length` is the body's length, None when it is not known (chunked). `upgrade` is the
    Upgrade header's value or empty.
    """

    __slots__ = ("deadline", "invocation", "length", "lines", "method", "target", "upgrade")

    def __init__(
        self,
        method: bytes,
        target: bytes,
        lines: bytes,
        length: int | None,
        invocation: str,
        deadline: float,
        upgrade: bytes = b"",
    ) -> None:
        self.method = method
        self.target = target
        self.lines = lines
        self.length = length
        self.invocation = invocation
        self.deadline = deadline
        self.upgrade = upgrade


class ReplyHead:
    """What came from the function: checked, hop-by-hop lines cut.

    `lines` as above. `length` is the declared length, None when not known. Status 101 turns the exchange into
    a two-way stream of bytes.
    """

    __slots__ = ("length", "lines", "status", "upgrade")

    def __init__(self, status: int, lines: bytes, length: int | None, upgrade: bytes = b"") -> None:
        self.status = status
        self.lines = lines
        self.length = length
        self.upgrade = upgrade


class Reply(Protocol):
    """The receiver of an answer. The order is: informational*, head, data*, then end or failed, exactly once.

    `failed` may come at any time instead, also before the head, and is the last call.
    """

    def started(self) -> None:
        """The process began to run this call: from now on it must not be sent elsewhere."""
        ...

    def informational(self, status: int, lines: bytes) -> None:
        """A 1xx head other than 100 and 101."""
        ...

    def head(self, head: ReplyHead) -> None: ...

    def data(self, chunk: bytes) -> None: ...

    def end(self) -> None: ...

    def failed(self, error: SeptetError) -> None: ...

    def pause_upload(self) -> None:
        """The link's buffer is full: write no more until `resume_upload`."""
        ...

    def resume_upload(self) -> None: ...


class Upload(Protocol):
    """The sender's side of an exchange."""

    def write(self, chunk: bytes) -> None:
        """contract.1  Never blocks; past the high-water mark `pause_upload` is called before it returns."""
        ...

    def end(self) -> None:
        """The request's body is complete."""
        ...

    def cancel(self, on_gone: Callable[[], None]) -> None:
        """The caller is gone or out of time: the reply gets no further call. `on_gone` is called once, when the
        instance is free of the call, or lost.

        contract.2  A call that was not started never runs; one that runs is told, and, when it does not stop
                    within the link's patience, its instance is no longer used.
        """
        ...

    def pause(self) -> None:
        """Deliver no more data until `resume`; contract.3  what the link then holds is bounded (1 MiB)."""
        ...

    def resume(self) -> None: ...


class Link(Protocol):
    """An open, ready channel to one instance."""

    instance: InstanceInfo

    def begin(self, head: RequestHead, reply: Reply) -> Upload:
        """Starts an exchange.

        contract.4  Exchanges beyond the concurrency the link was opened with are the caller's fault, not
                    checked here; the pool counts.
        contract.5  When the instance dies, every open exchange gets `failed` with FunctionCrashed (or, before
                    `started`, InstanceLost), and `on_lost` is called once: before any InstanceLost, since a call
                    that moves elsewhere must not find the dead instance again.
        """
        ...

    async def close(self, grace: float) -> None:
        """Lets open exchanges end within `grace` seconds, then fails them and closes the stream."""
        ...


class ShortCall(Protocol):
    """A call whose request went out whole, in one step, and whose reply mostly comes back in one piece."""

    running: bool
    """Set by the link when the process began to run it: `Reply.started`."""

    @property
    def invocation(self) -> str: ...

    def answered(self, head: bytes, body: bytes) -> bool:
        """The whole reply: an unchecked head as the process sent it, and the body. True when it was passed on, and
        the call is over. False, and nothing happened, when it cannot be: the link then calls `unfold`."""
        ...

    def unfold(self) -> None:
        """From now on it is a call like any other: it calls the link's `unfold` at once."""
        ...

    def returned(self) -> None:
        """After `recall`: the process had not begun it and never will; the link has forgotten it."""
        ...


@runtime_checkable
class ShortLink(Link, Protocol):
    """A link that takes calls whose request is whole in one step, without an object for each."""

    def ask(self, head: bytes, body: bytes, call: ShortCall) -> int:
        """Sends the request and returns the call's number.

        `head` is the request line and all header lines, Content-Length too, each ending in CRLF.

        contract.7  Raises InstanceLost when the link is lost; the call then heard nothing.
        contract.8  `answered` is called with a reply that comes in one piece; with anything else, and when it
                    declines or the instance is lost, `unfold` is called and all goes on as after `begin`.
        """
        ...

    def takes_ahead(self) -> bool:
        """Whether calls may be sent that wait inside a serial process behind the one that runs, because it gives
        them back when it is asked to, even while a handler runs. False until the process said so."""
        ...

    def recall(self) -> None:
        """contract.9  Asks for the short calls that the process has not begun: each of them gets `returned`, and
        never runs there, while those that it began go on."""
        ...

    def unfold(self, number: int, head: RequestHead, reply: Reply) -> Upload:
        """Makes a call that `ask` began, and that is not over, one that `begin` could have begun. Called by the
        call's side at any time, once."""
        ...


Connect = Callable[[ProtocolFactory], Awaitable[asyncio.Transport]]
LogHandler = Callable[[str, str, bytes], None]
"""(invocation id or "", stream, line)"""


class Contract(Protocol):
    """How to open links, one implementation per protocol."""

    name: str

    async def open(
        self,
        connect: Connect,
        instance: InstanceInfo,
        template: FunctionTemplate,
        *,
        deadline: float,
        on_lost: Callable[[], None],
        on_log: LogHandler,
    ) -> Link:
        """Connects, waits until the process is ready, and returns the link; `deadline` is loop time.

        contract.6  Raises InitFailed (the handler cannot be loaded), StartFailed (never ready in time, or the
                    process ended); tries `connect` again while it raises InstanceLost.
        """
        ...

    async def specialise(self, link: Link, template: FunctionTemplate, artifact: str, *, deadline: float) -> Link:
        """Makes a generic instance this function's; Unavailable where the protocol has no such step."""
        ...
