"""One call on a frame link: windows in both directions, and what the reply may and may not do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec

from septet.model.errors import BadReply, FunctionRaised, SeptetError
from septet.ports.contract import Reply, ReplyHead, RequestHead
from septet.wire import frames
from septet.wire.http1 import ReplyHeadsCache

CREDIT_STEP = frames.WINDOW_SIZE // 4
PIECE = 64 * 1024
PATIENCE = 2.0
"""Seconds that a cancelled call may take to stop before its instance is given up."""


class Wire(Protocol):
    """What a stream needs of its link."""

    loop: asyncio.AbstractEventLoop
    writable: bool
    parse: ReplyHeadsCache

    def send(self, data: bytes) -> None: ...

    def forget(self, stream: int) -> None: ...

    def give_up(self, why: str) -> None: ...


class Raised(msgspec.Struct, frozen=True):
    """The body of an ERROR frame, and of a READY frame that is not ok."""

    type: str = "Error"
    message: str = ""
    trace: str = ""


class FrameStream:
    """Implements `ports.contract.Upload` for one call."""

    __slots__ = (
        "_cancelled",
        "_ended",
        "_head_seen",
        "_held",
        "_left",
        "_number",
        "_on_gone",
        "_outgoing",
        "_owed",
        "_paused",
        "_reply",
        "_request",
        "_stalled",
        "_timer",
        "_up_done",
        "_window",
        "_wire",
        "_writable_window",
        "started",
    )

    def __init__(self, wire: Wire, number: int, request: RequestHead, reply: Reply) -> None:
        self._wire = wire
        self._number = number
        self._request = request
        self._reply = reply
        self._window = frames.WINDOW_SIZE
        self._writable_window = frames.WINDOW_SIZE
        self._outgoing: list[bytes] = []
        self._up_done = False
        self._stalled = False
        self._held: list[tuple[bytes, bool]] = []
        self._paused = False
        self._owed = 0
        self._left: int | None = None
        self._head_seen = False
        self._ended = False
        self._cancelled = False
        self._on_gone: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.started = False

    @property
    def invocation(self) -> str:
        return self._request.invocation

    def open(self) -> None:
        request = self._request
        length = b"" if request.length is None else b"content-length: %d\r\n" % request.length
        upgrade = b"upgrade: %b\r\n" % request.upgrade if request.upgrade else b""
        head = b"%b %b HTTP/1.1\r\n%b%b%b" % (request.method, request.target, request.lines, length, upgrade)
        bodiless = request.length == 0 and not request.upgrade
        self._up_done = bodiless
        self._wire.send(frames.encode(frames.REQUEST, self._number, head, b"", frames.END if bodiless else 0))

    def resume_from(self, started: bool) -> None:
        """Takes over a call whose request went out whole."""
        self._up_done = True
        self.started = started

    # -- Upload

    def write(self, chunk: bytes) -> None:
        if self._up_done or self._cancelled or self._ended:
            return
        self._outgoing.extend(chunk[at : at + PIECE] for at in range(0, len(chunk), PIECE))
        self.flush()

    def end(self) -> None:
        if self._up_done or self._cancelled or self._ended:
            return
        self._up_done = True
        if not self._outgoing:
            self._wire.send(frames.encode(frames.DATA, self._number, flags=frames.END))

    def cancel(self, on_gone: Callable[[], None]) -> None:
        if self._ended:
            on_gone()
            return
        self._cancelled = True
        self._on_gone = on_gone
        self._outgoing.clear()
        self._held.clear()
        self._wire.send(frames.encode(frames.CANCEL, self._number))
        self._timer = self._wire.loop.call_later(PATIENCE, self._lose_patience)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        while self._held and not self._paused and not self._ended:
            body, end = self._held.pop(0)
            self._deliver(body, end)

    # -- from the link

    def flush(self) -> None:
        """Sends what window and link allow; tells the sender to wait or to go on."""
        while self._outgoing and self._writable_window and self._wire.writable:
            chunk = self._outgoing.pop(0)
            size = min(len(chunk), self._writable_window, PIECE)
            if size < len(chunk):
                self._outgoing.insert(0, chunk[size:])
                chunk = chunk[:size]
            self._writable_window -= size
            last = self._up_done and not self._outgoing
            self._wire.send(frames.encode(frames.DATA, self._number, b"", chunk, frames.END if last else 0))
        if self._outgoing and not self._stalled:
            self._stalled = True
            self._reply.pause_upload()
        elif self._stalled and not self._outgoing:
            self._stalled = False
            if not self._ended:
                self._reply.resume_upload()

    def receive(self, frame: frames.Frame) -> None:
        """One frame of this stream; FrameError when the process breaks the protocol."""
        if self._cancelled:
            self._after_cancel(frame)
        elif frame.type == frames.DATA:
            self._data(frame.body, bool(frame.flags & frames.END))
        elif frame.type == frames.REPLY:
            self._head(frame)
        elif frame.type == frames.STARTED:
            self._start()
        elif frame.type == frames.WINDOW:
            self._writable_window += frames.decode_window(frame.body)
            if self._writable_window > frames.WINDOW_SIZE:
                raise frames.FrameError("more credit was given than taken")
            self.flush()
        elif frame.type == frames.ERROR:
            self.fail(_raised(frame.body))
        else:
            raise frames.FrameError(f"a frame of type {frame.type} inside a call")

    def fail(self, error: SeptetError) -> None:
        """The call is over with an error; the link has forgotten it."""
        if self._ended:
            return
        if self._cancelled:
            self._gone()
            return
        self._end()
        self._reply.failed(error)

    # -- inside

    def _start(self) -> None:
        if not self.started:
            self.started = True
            self._reply.started()

    def _head(self, frame: frames.Frame) -> None:
        if self._head_seen:
            raise frames.FrameError("a second head in one call")
        self._start()
        try:
            head = self._wire.parse(frame.head, self._request.method)
        except BadReply as error:
            self._bad(error)
            return
        if head.status < 200 and head.status != 101:
            self._reply.informational(head.status, head.lines)
            return
        self._head_seen = True
        if head.status != 101:
            self._left = head.length
        end = bool(frame.flags & frames.END)
        bodiless = self._request.method == b"HEAD" or head.status == 304
        length = head.declared if bodiless else head.length
        self._reply.head(ReplyHead(head.status, head.lines, length, head.upgrade))
        if not self._ended and not self._cancelled and (frame.body or end):
            self._data(frame.body, end)

    def _data(self, body: bytes, end: bool) -> None:
        if not self._head_seen:
            raise frames.FrameError("a body before its head")
        self._window -= len(body)
        if self._window < 0:
            raise frames.FrameError("more was sent than the window allows")
        if self._paused or self._held:
            self._held.append((body, end))
        else:
            self._deliver(body, end)

    def _deliver(self, body: bytes, end: bool) -> None:
        if body and self._request.method == b"HEAD":
            self._credit(len(body))
            body = b""
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (end and self._left and self._request.method != b"HEAD"):
                self._bad(BadReply("the function's body is not as long as its Content-Length says"))
                return
        if body:
            self._reply.data(body)
            self._credit(len(body))
        if end and not self._ended and not self._cancelled:
            self._end()
            self._reply.end()

    def _credit(self, size: int) -> None:
        self._owed += size
        if self._owed >= CREDIT_STEP and not self._ended:
            self._wire.send(frames.encode_window(self._number, self._owed))
            self._window += self._owed
            self._owed = 0

    def _bad(self, error: BadReply) -> None:
        """The reply is told now; the process is told to stop, and may take its time."""
        reply = self._reply
        self.cancel(_nothing)
        reply.failed(error)

    def _after_cancel(self, frame: frames.Frame) -> None:
        last = frame.type in (frames.DATA, frames.REPLY) and frame.flags & frames.END
        if frame.type in (frames.GONE, frames.ERROR) or last:
            self._gone()

    def _gone(self) -> None:
        self._end()
        on_gone, self._on_gone = self._on_gone, None
        if on_gone is not None:
            on_gone()

    def _end(self) -> None:
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._wire.forget(self._number)

    def _lose_patience(self) -> None:
        if not self._ended:
            self._wire.give_up("a cancelled call did not stop")


def _nothing() -> None:
    pass


# What the kernel says when a wall of the sandbox is met, as the languages repeat it.
_WALLS = (
    ("tmp", ("[Errno 28]", "ENOSPC", "No space left on device")),
    ("open files", ("[Errno 24]", "EMFILE", "Too many open files", "too many open files")),
    ("memory", ("[Errno 12]", "ENOMEM", "Cannot allocate memory", "MemoryError", "NoMemoryError")),
    ("pids", ("[Errno 11]", "EAGAIN", "can't start new thread", "Resource temporarily unavailable")),
)


def limit_of(raised: Raised) -> str:
    """The limit that an exception tells of, as the spec names it; empty when it tells of none."""
    said = f"{raised.type}: {raised.message}"
    return next((name for name, words in _WALLS if any(word in said for word in words)), "")


def _raised(body: bytes) -> FunctionRaised:
    try:
        raised = msgspec.json.decode(body, type=Raised)
    except msgspec.DecodeError as error:
        raise frames.FrameError("an ERROR frame that is no JSON") from error
    limit = limit_of(raised)
    where = f"it met its limit of {limit} and has to use less, or to be given more; " if limit else ""
    return FunctionRaised(
        f"the function raised {raised.type}: {raised.message}",
        hint=f"{where}`septet logs` has the whole trace",
        limit=limit,
        details={"type": raised.type, "trace": raised.trace},
    )
