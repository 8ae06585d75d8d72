"""The frames contract: many calls on one stream to a runtime of ours."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import cast

import msgspec

from septet.drivers.contract.frame_stream import FrameStream, Raised
from septet.drivers.contract.opening import connect_until, not_in_time
from septet.model.errors import FunctionCrashed, InitFailed, InstanceLost, SeptetError, StartFailed, Unavailable
from septet.model.function import FunctionTemplate
from septet.model.instance import InstanceInfo
from septet.ports.contract import Connect, Link, LogHandler, Reply, RequestHead, ShortCall, Upload
from septet.wire import frames
from septet.wire.http1 import ReplyHeadsCache


class Ready(msgspec.Struct, frozen=True):
    ok: bool
    concurrency: int = 1
    ahead: bool = False
    version: int = 1
    type: str = "Error"
    message: str = ""
    trace: str = ""


class FramesLink(asyncio.Protocol):
    """A link over one stream. It is lost when the stream ends or the process breaks the protocol."""

    def __init__(self, instance: InstanceInfo, on_lost: Callable[[], None], on_log: LogHandler) -> None:
        self.instance = instance
        self.loop = asyncio.get_running_loop()
        self.writable = True
        self.parse = ReplyHeadsCache()
        self.ready: asyncio.Future[Ready] = self.loop.create_future()
        self._on_lost = on_lost
        self._on_log = on_log
        self._transport: asyncio.Transport | None = None
        self._decoder = frames.FrameDecoder()
        self._streams: dict[int, FrameStream] = {}
        self._short: dict[int, ShortCall] = {}
        self._next = 0
        self._lost = False
        self._ahead: bool | None = None
        self._idle: asyncio.Event | None = None

    # -- Link

    def begin(self, head: RequestHead, reply: Reply) -> Upload:
        if self._lost or self._transport is None:
            raise InstanceLost("the link to the instance is closed")
        self._next += 1
        stream = self._streams[self._next] = FrameStream(self, self._next, head, reply)
        stream.open()
        return stream

    def ask(self, head: bytes, body: bytes, call: ShortCall) -> int:
        if self._lost or self._transport is None:
            raise InstanceLost("the link to the instance is closed")
        number = self._next = self._next + 1
        self._short[number] = call
        self._transport.write(frames.encode(frames.REQUEST, number, head, body, frames.END))
        return number

    def takes_ahead(self) -> bool:
        if self._ahead is None:
            # It gets ready for that when it hears of it, and says so.
            self._ahead = False
            if self.ready.done() and not self._lost and self.ready.result().ahead:
                self.send(frames.encode(frames.AHEAD, 0))
        return self._ahead

    def recall(self) -> None:
        self.send(frames.encode(frames.RECALL, 0))

    def unfold(self, number: int, head: RequestHead, reply: Reply) -> Upload:
        call = self._short.pop(number)
        stream = self._streams[number] = FrameStream(self, number, head, reply)
        stream.resume_from(call.running)
        return stream

    async def close(self, grace: float) -> None:
        if self._transport is None or self._lost:
            return
        self.send(frames.encode(frames.DRAIN, 0))
        if (self._streams or self._short) and grace > 0:
            self._idle = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), grace)
        self._lose("the link was closed")

    # -- for streams

    def send(self, data: bytes) -> None:
        if self._transport is not None and not self._lost:
            self._transport.write(data)

    def forget(self, stream: int) -> None:
        self._streams.pop(stream, None)
        if self._idle is not None and not self._streams and not self._short:
            self._idle.set()

    def give_up(self, why: str) -> None:
        self._lose(why)

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if not self._decoder.rest and self._short:
            data = self._answers(data)
            if not data:
                return
        try:
            for frame in self._decoder.feed(data):
                if self._lost:
                    return
                self._receive(frame)
        except frames.FrameError as error:
            self._lose(f"the runtime broke the frame protocol: {error}")

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        for stream in list(self._streams.values()):
            stream.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._read_rest()
        self._lose("the process ended")

    # -- inside

    def _read_rest(self) -> None:
        """A write that failed ends the stream before what the process said last was read: whether it had begun a
        call, for one, without which that call would run a second time elsewhere."""
        held = self._transport.get_extra_info("socket") if self._transport is not None else None
        with contextlib.suppress(OSError):
            while held is not None and (data := os.read(held.fileno(), 65536)):
                self.data_received(data)

    def _answers(self, data: bytes) -> bytes:
        """Takes whole replies of short calls off the front of what came; the rest is for the decoder, which also
        judges what breaks the protocol."""
        at, size, short = 0, len(data), self._short
        while size - at >= frames.HEADER_SIZE:
            length, number, type_, flags, head = frames.parse_header(data, at)
            body = at + frames.HEADER_SIZE + head
            end = at + frames.HEADER_SIZE + length
            call = short.get(number)
            if call is None or end > size or head > length:
                break
            if type_ == frames.REPLY and flags & frames.END:
                if not call.answered(data[body - head : body], data[body:end]):
                    break
                del short[number]
                if self._idle is not None:
                    self.forget(number)
            elif type_ == frames.STARTED:
                call.running = True
            else:
                break
            at = end
        return data[at:] if at else data

    def _receive(self, frame: frames.Frame) -> None:
        call = self._short.get(frame.stream)
        if call is not None:
            if frame.type == frames.STARTED:
                call.running = True
                return
            if frame.type == frames.LOG:
                self._on_log(call.invocation, "stderr" if frame.head == b"stderr" else "stdout", frame.body)
                return
            if frame.type == frames.GONE and frame.flags & frames.NEVER_STARTED:
                del self._short[frame.stream]
                call.returned()
                return
            call.unfold()
        if frame.type == frames.READY:
            self._be_ready(frame.body)
        elif frame.type == frames.AHEAD:
            self._ahead = True
        elif frame.type == frames.LOG:
            known = self._streams.get(frame.stream)
            name = "stderr" if frame.head == b"stderr" else "stdout"
            self._on_log(known.invocation if known else "", name, frame.body)
        elif stream := self._streams.get(frame.stream):
            stream.receive(frame)
        elif not 0 < frame.stream <= self._next:
            raise frames.FrameError(f"a frame for the call {frame.stream}, which there never was")

    def _be_ready(self, body: bytes) -> None:
        if self.ready.done():
            raise frames.FrameError("READY came twice")
        try:
            self.ready.set_result(msgspec.json.decode(body, type=Ready))
        except msgspec.DecodeError as error:
            raise frames.FrameError("a READY frame that is no JSON") from error

    def _lose(self, why: str) -> None:
        if self._lost:
            return
        self._lost = True
        if self._transport is not None:
            self._transport.abort()
        if not self.ready.done():
            self.ready.set_exception(StartFailed(f"the function was not ready: {why}", hint="see its log"))
            self.ready.exception()
        self._on_lost()
        for call in list(self._short.values()):
            call.unfold()
        for stream in list(self._streams.values()):
            stream.fail(_lost_error(stream.started, why))
        self._streams.clear()
        if self._idle is not None:
            self._idle.set()


class FramesContract:
    """Opens frame links (`ports.contract.Contract`)."""

    name = "frames"

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
        link: FramesLink | None = None
        opened = False

        def lost() -> None:
            if opened:
                on_lost()

        def make() -> FramesLink:
            nonlocal link
            link = FramesLink(instance, lost, on_log)
            return link

        await connect_until(connect, make, deadline)
        assert link is not None
        try:
            async with asyncio.timeout_at(deadline):
                ready = await asyncio.shield(link.ready)
        except TimeoutError as error:
            link.give_up("it was not ready in time")
            raise not_in_time("the runtime did not report that it loaded the handler") from error
        except asyncio.CancelledError:
            link.give_up("nobody waits for it")
            raise
        if not ready.ok:
            link.give_up("the handler could not be loaded")
            raise _init_failed(Raised(ready.type, ready.message, ready.trace))
        opened = True
        return link

    async def specialise(self, link: Link, template: FunctionTemplate, artifact: str, *, deadline: float) -> Link:
        raise Unavailable("instances of this platform are made for one function", hint="start a new instance")


def _init_failed(raised: Raised) -> InitFailed:
    return InitFailed(
        f"the handler could not be loaded: {raised.type}: {raised.message}",
        hint="fix the source and deploy again; a revision that serves already keeps serving",
        details={"type": raised.type, "trace": raised.trace},
    )


def _lost_error(started: bool, why: str) -> SeptetError:
    if started:
        return FunctionCrashed(f"the function's process ended while it ran this call: {why}")
    return InstanceLost(f"the instance was lost before the call began: {why}")
