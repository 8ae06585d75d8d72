"""Client connections: heads are checked, bodies are framed, one request at a time is served.

Callbacks only: no task, future, timer or log line for a call. Memory is bounded by pausing: a body that nobody takes
stops the reading, a client that takes nothing stops the reply.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from enum import Enum
from typing import cast

from septet.dataplane.answer import Answer
from septet.dataplane.asgi import ControlExchange
from septet.dataplane.desk import Desk
from septet.dataplane.dispatch import CallTarget, ControlTarget, Elsewhere, Peer, Refusal, Waits
from septet.dataplane.exchange import Exchange
from septet.dataplane.express import CALLER, ExpressCall, Lanes, repeats
from septet.dataplane.forwarding import Forwarded, function_lines
from septet.dataplane.patience import Patience
from septet.dataplane.refusals import rendered, slow_body, slow_head, too_large
from septet.model.errors import MalformedRequest, PlatformError, SeptetError
from septet.wire.callroute import RenderError
from septet.wire.chunked import ChunkedDecoder
from septet.wire.http1 import RequestHeadFacts, incomplete_head_error, parse_request_head
from septet.wire.problem import render_problem


class Reading(Enum):
    """What the next bytes from the client are."""

    HEAD = 1
    LENGTH = 2
    CHUNKED = 3
    NOTHING = 4
    TUNNEL = 5
    DISCARD = 6


class Front(asyncio.Protocol):
    """One client connection."""

    __slots__ = (
        "_buffer",
        "_chunks",
        "_closing",
        "_eof",
        "_expects",
        "_lanes",
        "_left",
        "_limit",
        "_patience",
        "_paused",
        "_reading",
        "_receiver",
        "_scanned",
        "_taken",
        "_working",
        "_write_paused",
        "answer",
        "bucket",
        "desk",
        "forwarded",
        "host",
        "peer",
        "transport",
        "when",
    )

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.when = math.inf
        self.bucket = 0
        self.answer: Answer | None = None
        self.forwarded: Forwarded | None = None
        self.host = b""
        self.peer = Peer(desk.facts, "", 0, False)
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._buffer = b""
        self._scanned = 0
        self._reading = Reading.HEAD
        self._receiver: Waits | None = None
        self._chunks: ChunkedDecoder | None = None
        self._left = 0
        self._limit = 0
        self._taken = 0
        self._expects = False
        self._working = False
        self._paused = False
        self._write_paused = False
        self._closing = False
        self._eof = False
        self._lanes: Lanes = {}
        self._patience = Patience(desk.settings)

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        address = transport.get_extra_info("peername")
        host, port = (address[0], address[1]) if isinstance(address, tuple) else ("", 0)
        self.peer = Peer(self.desk.facts, host, port, self.desk.facts.trusts(host))
        self._lanes = self.desk.lanes(self.peer.trusted)
        self.host = host.encode()
        self.desk.connections.add(self)
        if len(self.desk.connections) > self.desk.settings.max_connections or not self.welcome:
            self.transport.abort()
            return
        self._arm(self.desk.loop.time() + self.desk.settings.head_timeout)

    def data_received(self, data: bytes) -> None:
        if self._receiver is None and not self._buffer and self._lanes and self._express(data):
            return
        self._buffer = self._buffer + data if self._buffer else data
        self._work()

    def eof_received(self) -> bool:
        """A half-closed client still gets its answer, but one that is gone looks the same at first."""
        if self._receiver is None or self._reading is not Reading.NOTHING:
            if self._reading is Reading.TUNNEL and self._receiver is not None:
                self._eof = True
                self._receiver.body_end()
                return not self.secure
            return False
        self._eof = True
        self._patience.await_news(self.desk.loop.time(), self._sent)
        self.rearm()
        return not self.secure

    def connection_lost(self, exc: BaseException | None) -> None:
        self._closing = True
        self.desk.deadlines.drop(self)
        self.desk.connections.discard(self)
        if not self.desk.connections:
            self.desk.on_empty.set()
        receiver, self._receiver = self._receiver, None
        self._buffer = b""
        if self.answer is not None:
            self.answer.discard()
        if receiver is not None:
            receiver.client_gone()

    def pause_writing(self) -> None:
        self._write_paused = True
        if self._receiver is not None:
            self._receiver.pause_reply()

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._receiver is not None:
            self._receiver.resume_reply()
        else:
            self._work()

    # -- the express lane

    def _express(self, data: bytes) -> bool:
        """Whether these bytes are one request like one before, which is on its way now."""
        if self._reading is not Reading.HEAD or self._closing or self._write_paused or self.desk.draining:
            return False
        lane = self._lanes.get(data)
        if lane is not None:
            return not lane.body and lane.begin(self, b"")
        end = data.find(b"\r\n\r\n") + 4
        if not 4 < end < len(data):
            return False
        lane = self._lanes.get(data[:end])
        return lane is not None and len(data) - end == lane.body and lane.begin(self, data[end:])

    def busy(self, call: ExpressCall) -> None:
        self._receiver = call
        self._reading = Reading.NOTHING
        self.desk.deadlines.arm(self, call.deadline)

    @property
    def undisturbed(self) -> bool:
        """Nothing happened on the connection but the call that runs."""
        return not (self._closing or self._eof or self._paused or self._write_paused or self.desk.draining)

    def answered(self, data: bytes, now: float) -> None:
        """The whole answer to an express call: the connection is free for another request."""
        self._receiver = None
        self.transport.write(data)
        self._reading = Reading.HEAD
        self.desk.deadlines.arm(self, now + self.desk.settings.idle_timeout)

    def proceed(self) -> None:
        """A request that came meanwhile is read."""
        if self._buffer and not self._closing:
            self._work()

    def unfold(self, exchange: Exchange, method: bytes, taken: int) -> None:
        """An express call became an exchange."""
        self.answer = Answer(self.transport, self.desk.flusher, method, 1, not self.desk.draining)
        self._receiver = exchange
        self._taken = taken
        self._expects = False
        if self._write_paused:
            exchange.pause_reply()

    def _learn(self, raw: bytes, head: RequestHeadFacts, target: CallTarget) -> None:
        """The connection sent this block twice: it may come again."""
        if self.forwarded is None or self.forwarded.fields is not head.fields or not repeats(head, len(raw)):
            return
        if not self.host:
            return
        lines = function_lines(head, target, self.peer._replace(host=CALLER))
        lane = self.desk.dispatcher.lane(head, target, lines)
        if lane is not None:
            known = self._lanes.get(raw)
            self.desk.remember(lane.weight - (known.weight if known is not None else 0))
            self._lanes[raw] = lane

    # -- the receiver's side

    @property
    def secure(self) -> bool:
        return self.desk.facts.secure

    @property
    def _sent(self) -> int:
        return self.answer.sent if self.answer is not None else 0

    def pause_body(self) -> None:
        """Read no more of the body: nobody takes it."""
        if not self._paused and not self._closing:
            self._paused = True
            self.transport.pause_reading()

    def resume_body(self) -> None:
        if self._paused and not self._closing:
            self._paused = False
            self.transport.resume_reading()
            if self._reading in (Reading.LENGTH, Reading.CHUNKED):
                self._patience.await_body(self.desk.loop.time(), self._taken)
                self.rearm()

    def send_continue(self) -> None:
        """The body is wanted: a client that waits to hear so is told, once."""
        if self._expects and not self._taken and self.answer is not None:
            self.answer.informational(100)
        self._expects = False

    def tunnel(self) -> None:
        """From now on every byte is the other protocol's."""
        self._reading = Reading.TUNNEL
        self._patience.await_tunnel(self.desk.loop.time(), self._taken + self._sent)
        self.rearm()
        self._work()

    def rearm(self) -> None:
        """The receiver's deadline, or one of the connection's own, moved."""
        receiver = self._receiver
        self._arm(min(self._patience.due, receiver.deadline if receiver else math.inf))

    def refuse(self, error: SeptetError, render: RenderError, invocation: str, lines: bytes) -> None:
        """Answers with an error, or, when an answer already began, cuts it off so that the client notices."""
        answer = self.answer
        if self._closing or answer is None:
            return
        if answer.started:
            self.cut()
            return
        if error.stage == "route" and isinstance(error, MalformedRequest):
            answer.keep_alive = False
        reply = rendered(render, error, invocation)
        if not self._keeps_after_body():
            answer.keep_alive = False
        answer.error(reply, lines + self.desk.date())

    def cut(self) -> None:
        """Ends a response that cannot be completed in a way that the client sees as truncated."""
        if self._closing:
            return
        answer = self.answer
        if answer is not None:
            answer.flush()
        if answer is not None and answer.until_close:
            # Only a reset tells a body that ends with the connection from a whole one.
            self._reset()
        self._closing = True
        if answer is not None and answer.until_close:
            self.transport.abort()
        else:
            self._close_softly()

    def finished(self) -> None:
        """The receiver is done; what follows depends on the answer and on what the client still sends."""
        answer, self.answer = self.answer, None
        self._receiver = None
        self._patience.clear()
        if self._closing:
            return
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        if answer is None or not answer.complete or not answer.keep_alive or self.desk.draining:
            self._end()
        elif self._eof and not self._buffer:
            self._close_softly()
        elif self._reading is Reading.NOTHING:
            self._next()
        elif self._keeps_after_body():
            self._arm(self.desk.loop.time() + self.desk.settings.linger)
        else:
            self._end()

    # -- leaving

    @property
    def welcome(self) -> bool:
        """Whether a new connection is served at all."""
        return not self.desk.draining

    @property
    def idle(self) -> bool:
        """Whether nothing of an earlier answer is still to be sent, and the client may send more."""
        return not (self._eof or self._write_paused or self._closing) and not self.transport.get_write_buffer_size()

    def leave(self) -> None:
        """The connection goes on elsewhere, with the request that has just begun; its bytes are the caller's."""
        self._closing = True
        self.answer = None
        self._receiver = None
        self._buffer = b""
        self.desk.deadlines.drop(self)
        self.desk.connections.discard(self)
        if not self.desk.connections:
            self.desk.on_empty.set()

    # -- draining

    def drain(self) -> None:
        """Closes when nothing is in progress; what runs ends with its connection."""
        if self._receiver is None and not self._closing:
            if self._reading is Reading.HEAD:
                self._close_softly()
        elif self.answer is not None and not self.answer.started:
            self.answer.keep_alive = False

    def abort(self) -> None:
        self.transport.abort()

    # -- reading

    def _work(self) -> None:
        """Works through what was received; a reply that comes at once must not recurse into here."""
        if self._working:
            return
        self._working = True
        try:
            while self._buffer and not self._closing and self._step():
                pass
        finally:
            self._working = False

    def _step(self) -> bool:
        """Takes one thing from the buffer; False when it must wait."""
        reading = self._reading
        if reading is Reading.HEAD:
            return not self._write_paused and self._read_head()
        if reading is Reading.LENGTH:
            self._read_length()
        elif reading is Reading.CHUNKED:
            self._read_chunks()
        elif reading is Reading.TUNNEL:
            data, self._buffer = self._buffer, b""
            self._taken += len(data)
            if self._receiver is not None:
                self._receiver.body(data)
        elif reading is Reading.DISCARD:
            self._buffer = b""
        else:
            if len(self._buffer) > self.desk.settings.pipeline:
                self.pause_body()
            return False
        return True

    def _read_head(self) -> bool:
        data = self._buffer
        if data[:2] == b"\r\n":
            # An empty line left over after the previous body is allowed (RFC 9112 section 2.2).
            data = self._buffer = data[2:]
            self._scanned = 0
        end = data.find(b"\r\n\r\n", max(0, self._scanned - 3))
        if end < 0:
            error = incomplete_head_error(data, self._scanned)
            if error is not None:
                self._bad_head(error)
            elif not self._scanned and data:
                self._arm(self.desk.loop.time() + self.desk.settings.head_timeout)
            self._scanned = len(data)
            return False
        self._scanned = 0
        self._buffer = data[end + 4 :]
        try:
            head = parse_request_head(data[: end + 2], self.desk.parse)
        except SeptetError as error:
            self._bad_head(error)
            return False
        self._begin(head, data[: end + 4])
        return True

    def _bad_head(self, error: SeptetError) -> None:
        self.answer = Answer(self.transport, self.desk.flusher, b"GET", 1, False)
        self._reading = Reading.DISCARD
        self._buffer = b""
        self.refuse(error, render_problem, "", b"")
        self.finished()

    def _begin(self, head: RequestHeadFacts, raw: bytes) -> None:
        desk = self.desk
        keep = head.keep_alive and not desk.draining
        self.answer = Answer(self.transport, desk.flusher, head.method, head.minor, keep)
        if head.chunked:
            self._reading = Reading.CHUNKED
            self._chunks = ChunkedDecoder()
        elif head.length:
            self._reading = Reading.LENGTH
            self._left = head.length
        else:
            self._reading = Reading.NOTHING
        self._taken = 0
        self._expects = head.expect
        target = self._target(head)
        if isinstance(target, Elsewhere):
            taken = target.take(self, raw + self._buffer)
            if taken is None:
                return
            target = taken
        if isinstance(target, Refusal):
            self._refuse_request(target)
            return
        self._limit = target.request_body
        if head.length is not None and head.length > self._limit:
            render = target.route.render_error if isinstance(target, CallTarget) else target.render_error
            self._refuse_request(Refusal(too_large(self._limit), render))
            return
        if isinstance(target, CallTarget):
            exchange = Exchange(self, head, target)
            self._receiver = exchange
            self._begin_body()
            self._learn(raw, head, target)
            self.desk.dispatcher.submit(exchange, False)
        else:
            control = ControlExchange(self, head, target)
            self._receiver = control
            self._begin_body()
            control.start()

    def _target(self, head: RequestHeadFacts) -> CallTarget | ControlTarget | Elsewhere | Refusal:
        try:
            return self.desk.dispatcher.route(head, self.peer)
        except SeptetError as error:
            return Refusal(error)
        except Exception as error:
            # A fault of ours must not look like a network fault to the client.
            self.desk.loop.call_exception_handler({"message": "a request could not be routed", "exception": error})
            return Refusal(PlatformError(f"the request could not be routed: {type(error).__name__}", stage="route"))

    def _begin_body(self) -> None:
        if self._reading is Reading.NOTHING:
            if self._eof:
                self._patience.await_news(self.desk.loop.time(), 0)
        else:
            self._patience.await_body(self.desk.loop.time(), 0)
        self.rearm()

    def _refuse_request(self, refusal: Refusal) -> None:
        self.refuse(refusal.error, refusal.render_error, "", b"")
        self.finished()

    def _read_length(self) -> None:
        data = self._buffer
        if len(data) > self._left:
            data, self._buffer = data[: self._left], data[self._left :]
        else:
            self._buffer = b""
        self._left -= len(data)
        self._taken += len(data)
        receiver = self._receiver
        if receiver is not None:
            receiver.body(data)
        if not self._left:
            self._body_complete()

    def _read_chunks(self) -> None:
        chunks = self._chunks
        data, self._buffer = self._buffer, b""
        if chunks is None:
            return
        try:
            pieces = chunks.feed(data)
        except SeptetError as error:
            self._break(error)
            return
        if chunks.done:
            self._buffer = chunks.rest
        receiver = self._receiver
        for piece in pieces:
            self._taken += len(piece)
            if self._taken > self._limit:
                self._break(too_large(self._limit))
                return
            if receiver is not None:
                receiver.body(piece)
        if chunks.done:
            self._chunks = None
            self._body_complete()

    def _body_complete(self) -> None:
        self._patience.body_complete()
        self._reading = Reading.NOTHING
        if self._receiver is not None:
            self._receiver.body_end()
        elif self.answer is None:
            self._next()

    def _break(self, error: SeptetError) -> None:
        """The request cannot be read to its end."""
        self._reading = Reading.DISCARD
        self._buffer = b""
        receiver = self._receiver
        if self.answer is not None:
            self.answer.keep_alive = False
        if receiver is not None:
            receiver.broken(error)
        else:
            self._end()

    def _next(self) -> None:
        """The connection waits for another request, which may have come already."""
        self._reading = Reading.HEAD
        self._scanned = 0
        self._arm(self.desk.loop.time() + self.desk.settings.idle_timeout)
        if self._buffer:
            self._work()
        if self._eof and self._receiver is None and self._reading is Reading.HEAD:
            self._close_softly()

    def _keeps_after_body(self) -> bool:
        """Whether the rest of the body is small enough to read and drop, and sure to come."""
        if self._expects and not self._taken and not self._buffer:
            return self._reading is Reading.NOTHING
        if self._reading is Reading.LENGTH:
            return self._left <= self.desk.settings.drain_body
        return self._reading is Reading.NOTHING

    # -- ending

    def _end(self) -> None:
        """Closes after everything was sent; the client may be sending still, and bytes that meet a closed socket
        reset the connection and with it the answer, so they are read and dropped for a while."""
        if self._closing:
            return
        self._reading = Reading.DISCARD
        self._buffer = b""
        if self.secure or not self.transport.can_write_eof() or self._eof:
            self._close_softly()
            return
        self.transport.write_eof()
        self._arm(self.desk.loop.time() + self.desk.settings.linger)

    def _close_softly(self) -> None:
        self._closing = True
        self._arm(self.desk.loop.time() + self.desk.settings.flush_timeout)
        self.transport.close()

    def _reset(self) -> None:
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    # -- deadlines

    def _arm(self, when: float) -> None:
        self.desk.deadlines.arm(self, when)

    def expired(self, now: float) -> None:
        """Called by Deadlines when `when` has passed."""
        receiver = self._receiver
        if self._closing or self._reading is Reading.DISCARD:
            self.transport.abort()
        elif receiver is None:
            self._expired_idle()
        elif receiver.deadline <= now:
            receiver.expired()
        elif self._patience.is_gone(now, self._sent):
            self._receiver = None
            self.transport.abort()
            receiver.client_gone()
        elif self._reading is Reading.TUNNEL:
            if self._patience.is_silent(now, self._taken + self._sent):
                self.transport.abort()
            else:
                self.rearm()
        elif self._patience.is_slow(now, self._taken, self._paused):
            self._break(slow_body(self.desk.settings.body_rate))
        else:
            self.rearm()

    def _expired_idle(self) -> None:
        if self._buffer and self._reading is Reading.HEAD and not self._write_paused:
            self._bad_head(slow_head(self.desk.settings.head_timeout))
        elif self._write_paused:
            self.transport.abort()
        else:
            self._buffer = b""
            self._close_softly()


class FrontDesk(Desk):
    """A desk that makes connections: the protocol factory of a listener, or of an inner gateway."""

    def __call__(self) -> Front:
        return Front(self)
