"""One call: between a client connection and a link to an instance, both push-based.

It waits for an instance (`assign` or `fail`), streams the body up and the reply down, holds the call's deadline, and
tells the dispatcher once when it is over.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from septet.dataplane.correlation import request_id, trace_context
from septet.dataplane.dispatch import CallTarget
from septet.dataplane.forwarding import forwarded_lines, invocation_lines
from septet.dataplane.refusals import raised_at, timed_out
from septet.model.errors import (
    BadReply,
    ClientGone,
    FunctionCrashed,
    FunctionRaised,
    InstanceLost,
    SeptetError,
)
from septet.model.instance import LimitMet
from septet.ports.contract import Link, ReplyHead, RequestHead, Upload
from septet.ports.signals import RevisionKey
from septet.wire.fields import lines_are_valid
from septet.wire.http1 import RequestHeadFacts

if TYPE_CHECKING:
    from septet.dataplane.front import Front

MAX_ATTEMPTS = 3
MAX_INFORMATIONAL = 16
REPLAY = 64 * 1024
"""So much of a body is remembered until the call began, in case its instance is lost before."""


class Exchange:
    """One call. Times are loop times, 0 for what did not happen; `queued_wall` is seconds since the epoch.

    `status` is what the client was told, 499 when it was gone; sizes are of bodies, in bytes.
    `error` is what went wrong, None for a call that got a whole reply, whatever its status; `limit` is the limit that
    its instance met meanwhile, when the function itself answered that it failed. `on_client_gone`,
    when set, is called when the client went away before the end.
    """

    __slots__ = (
        "_asked",
        "_attempts",
        "_body_done",
        "_crashed",
        "_front",
        "_head",
        "_held",
        "_held_size",
        "_holding",
        "_informational",
        "_on_done",
        "_over",
        "_replay",
        "_reply_paused",
        "_state",
        "_up_ended",
        "_upload",
        "bytes_in",
        "bytes_out",
        "deadline",
        "ended_at",
        "error",
        "first_byte_at",
        "instance",
        "invocation",
        "limit",
        "on_client_gone",
        "queued_at",
        "queued_wall",
        "request_id",
        "running",
        "started_at",
        "status",
        "target",
        "traceparent",
        "tunnel",
    )

    def __init__(self, front: Front, head: RequestHeadFacts, target: CallTarget) -> None:
        desk = front.desk
        self._front = front
        self._head = head
        self.target = target
        self.invocation = desk.ids.invocation()
        name = self.invocation.encode()
        self.request_id = request_id(head.fields, name)
        self.traceparent, self._state = trace_context(head.fields, name, desk.ids)
        self.queued_at = desk.loop.time()
        self.queued_wall = time.time()
        self.started_at = self.first_byte_at = self.ended_at = 0.0
        self.deadline = math.inf
        self.bytes_in = self.bytes_out = self.status = 0
        self.instance = ""
        self.error: SeptetError | None = None
        self.on_client_gone: Callable[[], None] | None = None
        self.running = False
        self.tunnel = False
        self._on_done: Callable[[], None] | None = None
        self._upload: Upload | None = None
        self._held: list[bytes] = []
        self._held_size = 0
        self._replay: list[bytes] | None = []
        self._body_done = head.length == 0
        self._up_ended = False
        self._reply_paused = False
        self._over = False
        self._crashed = False
        self._asked = False
        self._holding = False
        self.limit = ""
        self._attempts = 0
        self._informational = 0

    def take_over(self, invocation: bytes, traceparent: bytes, queued: float, wall: float, body: bytes) -> None:
        """Becomes a call that came whole at `queued` (loop time)."""
        self.invocation = invocation.decode()
        self.request_id = invocation
        self.traceparent = traceparent
        self.queued_at = queued
        self.queued_wall = wall
        self.bytes_in = self._held_size = len(body)
        self._held = [body] if body else []
        self._replay = [body] if body else []
        self._body_done = True

    def go_on(self, instance: str, started: float, running: bool, upload: Upload, on_done: Callable[[], None]) -> None:
        """The call that was taken over was sent whole to an instance at `started`."""
        self.instance = instance
        self.started_at = started
        self.deadline = started + self.target.timeout
        self._upload = upload
        self._on_done = on_done
        self._up_ended = True
        self._attempts = 1
        self._held, self._held_size = [], 0
        if running:
            self.started()

    # -- what the dispatcher reads

    @property
    def key(self) -> RevisionKey:
        return self.target.key

    @property
    def request(self) -> RequestHeadFacts:
        return self._head

    @property
    def over(self) -> bool:
        return self._over

    # -- from the dispatcher: an instance, or none

    def assign(self, link: Link, on_done: Callable[[], None]) -> None:
        """An instance has room for this call; `on_done` is called once, when it has left it."""
        if self._over:
            on_done()
            return
        front = self._front
        now = front.desk.loop.time()
        self._attempts += 1
        self._on_done = on_done
        self.instance = link.instance.id
        self.started_at = now
        self.deadline = now + self.target.timeout
        front.rearm()
        try:
            upload = link.begin(self._request(time.time() + self.target.timeout), self)
        except SeptetError as error:
            self.failed(error)
            return
        if self._over or self._on_done is not on_done:
            # It was over, or lost, before `begin` returned; an unfinished body goes nowhere.
            if self._over and self.error is None and self._head.length == 0:
                upload.end()
            elif self._over:
                upload.cancel(_nothing)
            return
        self._upload = upload
        if self._reply_paused:
            upload.pause()
        self._send_held()

    def fail(self, error: SeptetError) -> None:
        """There is no instance for this call."""
        self._finish(error)

    def _request(self, deadline: float) -> RequestHead:
        head, target = self._head, self.target
        name = self.invocation.encode()
        front = self._front
        forwarded, front.forwarded = forwarded_lines(front.forwarded, head, target, front.peer)
        lines = b"%b%bseptet-deadline: %d\r\n%b" % (
            forwarded,
            invocation_lines(name, self.traceparent, self._state, self.request_id),
            deadline * 1000,
            target.lines,
        )
        return RequestHead(head.method, target.path, lines, head.length, self.invocation, deadline, head.upgrade)

    def _send_held(self) -> None:
        upload, front = self._upload, self._front
        if upload is None:
            return
        held, self._held = self._held, []
        self._held_size = 0
        for chunk in held:
            upload.write(chunk)
            if self._over:
                return
        if self._body_done:
            self._end_upload()
        else:
            front.send_continue()
        if not self._over:
            front.resume_body()

    def _end_upload(self) -> None:
        """An upload that may become a tunnel stays open until the reply says otherwise."""
        if self._upload is not None and not self._up_ended and not (self._head.upgrade and not self._answered()):
            self._up_ended = True
            self._upload.end()

    def _answered(self) -> bool:
        answer = self._front.answer
        return answer is not None and answer.started

    # -- from the client

    def body(self, chunk: bytes) -> None:
        self.bytes_in += len(chunk)
        if self._replay is not None and not self.tunnel:
            self._replay.append(chunk)
            if self.bytes_in > REPLAY:
                self._replay = None
        if self._upload is not None:
            self._upload.write(chunk)
            return
        self._held.append(chunk)
        self._held_size += len(chunk)
        if self._held_size >= self._front.desk.settings.early_body:
            self._front.pause_body()

    def body_end(self) -> None:
        self._body_done = True
        self._end_upload()

    def broken(self, error: SeptetError) -> None:
        self._finish(error, cancel=True)

    def client_gone(self) -> None:
        self._finish(ClientGone("the client closed the connection"), cancel=True)
        if self.on_client_gone is not None:
            self.on_client_gone()

    def expired(self) -> None:
        self.deadline = math.inf
        self._front.rearm()
        self._front.desk.dispatcher.limits(self, self._time_out)

    def _time_out(self, met: tuple[LimitMet, ...]) -> None:
        self._finish(timed_out(self.target.timeout, met), cancel=True)

    def pause_reply(self) -> None:
        self._reply_paused = True
        if self._upload is not None:
            self._upload.pause()

    def resume_reply(self) -> None:
        self._reply_paused = False
        if self._upload is not None and not self._holding:
            self._upload.resume()

    # -- from the instance (ports/contract.Reply)

    def started(self) -> None:
        self.running = True
        self._replay = None

    def informational(self, status: int, lines: bytes) -> None:
        if self._over:
            return
        self._informational += 1
        if self._informational > MAX_INFORMATIONAL:
            self._bad_reply(
                f"the function sent more than {MAX_INFORMATIONAL} heads before the final one",
                f"informational {MAX_INFORMATIONAL}",
            )
        elif not 102 <= status < 200 or not lines_are_valid(lines):
            self._bad_reply("the function sent an informational head that is not valid")
        elif self._front.answer is not None:
            self._front.answer.informational(status, lines)

    def head(self, head: ReplyHead) -> None:
        answer = self._front.answer
        if self._over or answer is None:
            return
        self.started()
        status = head.status
        own = self._front.desk.client_lines(head.lines)
        if answer.started or not (200 <= status <= 599 or status == 101) or own is None:
            self._bad_reply("the head of the function's answer is not valid")
            return
        if status >= 500 and not self._asked and self._upload is not None:
            self._asked = self._holding = True
            self._upload.pause()
            self._front.desk.dispatcher.limits(self, lambda met: self._failing(head, met))
            return
        self.first_byte_at = self._front.desk.loop.time()
        lines = self._reply_lines(*own)
        if status == 101:
            self._switch(head, lines)
            return
        answer.head(status, lines, head.length)
        if self._body_done:
            self._end_upload()

    def _failing(self, head: ReplyHead, met: tuple[LimitMet, ...]) -> None:
        """The function answers that it failed: its answer names the limits that it met."""
        self._holding = False
        if self._over or self._crashed:
            return
        self.limit = ", ".join(map(str, met))
        self.head(head)
        if self._upload is not None and not self._reply_paused:
            self._upload.resume()

    def data(self, chunk: bytes) -> None:
        answer = self._front.answer
        if self._over or answer is None:
            return
        if not answer.started:
            self._bad_reply("the function sent a body before a head")
        elif not answer.data(chunk):
            self._bad_reply("the function sent more than its Content-Length")

    def end(self) -> None:
        answer = self._front.answer
        if self._over or answer is None:
            return
        if not answer.started:
            self._bad_reply("the function ended its answer without a head")
        elif not answer.end():
            self._bad_reply("the function sent less than its Content-Length")
        else:
            self._finish(None, cancel=not self._up_ended)

    def failed(self, error: SeptetError) -> None:
        if self._over:
            return
        if isinstance(error, InstanceLost) and self._may_move():
            self._move()
        elif isinstance(error, FunctionCrashed) and not self._crashed:
            # Why it died is known a moment later than that it died.
            self._crashed = True
            self._upload = None
            self._front.desk.dispatcher.crashed(self, error)
        elif isinstance(error, FunctionRaised) and not error.limit and not self._asked:
            self._asked = True
            self._upload = None
            self._front.desk.dispatcher.limits(self, lambda met: self.failed(raised_at(error, met)))
        else:
            self._finish(error)

    def pause_upload(self) -> None:
        if not self._over:
            self._front.pause_body()

    def resume_upload(self) -> None:
        if not self._over:
            self._front.resume_body()

    # -- inside

    def _switch(self, head: ReplyHead, lines: bytes) -> None:
        answer = self._front.answer
        if not self._head.upgrade or answer is None:
            self._bad_reply("the function switched protocols without being asked")
            return
        self.tunnel = True
        self._body_done = False
        self.deadline = math.inf
        answer.switch(lines, head.upgrade or self._head.upgrade)
        self._front.tunnel()

    def _reply_lines(self, lines: bytes, dated: bool) -> bytes:
        """The function's own lines, those of the platform, and a Date when there is none yet."""
        if not dated:
            lines += self._front.desk.date()
        name = self.invocation.encode()
        own = b"%bX-Request-Id: %b\r\nSeptet-Invocation-Id: %b\r\ntraceparent: %b\r\n" % (
            lines,
            self.request_id,
            name,
            self.traceparent,
        )
        if self.limit:
            own += b"Septet-Limit: %b\r\n" % self.limit.encode()
        extra = self.target.route.reply_lines
        return own + extra.replace(b"{invocation}", name) if extra else own

    def _bad_reply(self, message: str, limit: str = "") -> None:
        self._finish(BadReply(message, hint="answer as HTTP/1.1 asks", limit=limit), cancel=True)

    def _may_move(self) -> bool:
        """Nothing of the call ran, and all that was sent of its body is still here."""
        return not self.running and self._replay is not None and self._attempts < MAX_ATTEMPTS

    def _move(self) -> None:
        """The instance was lost before it began: another one gets the call from the start."""
        self._held = list(self._replay or ())
        self._held_size = self.bytes_in
        self._upload = None
        self._up_ended = False
        self.deadline = math.inf
        self.instance = ""
        self.started_at = 0.0
        on_done, self._on_done = self._on_done, None
        self._front.rearm()
        if on_done is not None:
            on_done()
        self._front.desk.dispatcher.submit(self, True)

    def _finish(self, error: SeptetError | None, cancel: bool = False) -> None:
        """Once: the client gets its end, then the instance is free again, then the connection goes on."""
        if self._over:
            return
        self._over = True
        front = self._front
        self.ended_at = front.desk.loop.time()
        self.error = error
        upload, self._upload = self._upload, None
        self._held, self._replay = [], None
        on_done, self._on_done = self._on_done, None
        assigned = on_done is not None
        if upload is not None and cancel:
            # The instance is free when the function has let go of the call, which may take it a while.
            upload.cancel(on_done or _nothing)
            on_done = None
        answer = front.answer
        if error is not None:
            front.refuse(error, self.target.route.render_error, self.invocation, self._reply_lines(b"", False))
        if answer is not None and not isinstance(error, ClientGone):
            self.status, self.bytes_out = answer.status, answer.sent
        else:
            self.status, self.bytes_out = 499, answer.sent if answer is not None else 0
        dispatcher = front.desk.dispatcher
        if on_done is not None:
            on_done()
        elif not assigned and cancel:
            dispatcher.withdraw(self)
        dispatcher.finished(self)
        front.finished()


def _nothing() -> None:
    pass
