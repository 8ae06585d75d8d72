"""Calls that other processes send to instances that this one owns: the answering side of a line."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Protocol, cast

import msgspec

from septet.app.workers.lease import GRANT, LEASE, RELEASE, Grant, LeaseRequest, LentHead, encode
from septet.app.workers.messages import carry
from septet.dataplane.pool import InstancePool, Waiter
from septet.model.errors import InstanceLost, SeptetError
from septet.model.instance import ColdReason
from septet.ports.contract import Link, ReplyHead, RequestHead, Upload
from septet.ports.signals import RevisionKey
from septet.wire import frames
from septet.wire.http1 import status_line

PIECE = 64 * 1024
CREDIT_STEP = frames.WINDOW_SIZE // 4

_leases = msgspec.msgpack.Decoder(LeaseRequest)
_heads = msgspec.msgpack.Decoder(LentHead)


class Owner(Protocol):
    """Who lends."""

    @property
    def pool(self) -> InstancePool: ...

    def owns(self, key: RevisionKey) -> bool: ...

    def cold_reason(self, key: RevisionKey) -> ColdReason: ...


class Loan:
    """A place that was asked for: in the queue, then granted, then used by a request or given back."""

    __slots__ = ("_lender", "cold", "key", "link", "number", "on_done", "over")

    def __init__(self, lender: Lender, number: int, key: RevisionKey) -> None:
        self._lender = lender
        self.number = number
        self.key = key
        self.cold: ColdReason = ""
        self.link: Link | None = None
        self.on_done: Callable[[], None] | None = None
        self.over = False

    def assign(self, link: Link, on_done: Callable[[], None]) -> None:
        self.link, self.on_done = link, on_done
        self._lender.answer(self, Grant(link.instance.id, self.cold))

    def fail(self, error: SeptetError) -> None:
        self.over = True
        self._lender.answer(self, Grant(failure=carry(error)))

    def free(self) -> None:
        """The instance has room again, once."""
        on_done, self.on_done = self.on_done, None
        if on_done is not None:
            on_done()


class Visit:
    """One call of another process in an instance of ours (`ports.contract.Reply`)."""

    __slots__ = (
        "_credit",
        "_ended",
        "_held",
        "_held_size",
        "_lender",
        "_loan",
        "_number",
        "_over",
        "_owed",
        "_stalled",
        "_up_ended",
        "_up_paused",
        "_upload",
    )

    def __init__(self, lender: Lender, number: int, loan: Loan) -> None:
        self._lender = lender
        self._number = number
        self._loan = loan
        self._upload: Upload | None = None
        self._credit = frames.WINDOW_SIZE
        self._held: list[bytes] = []
        self._held_size = 0
        self._ended = False
        self._over = False
        self._owed = 0
        self._stalled = False
        self._up_ended = False
        self._up_paused = False

    # -- from the caller's process

    def begin(self, head: RequestHead) -> None:
        link = self._loan.link
        assert link is not None
        self._up_ended = head.length == 0 and not head.upgrade
        try:
            upload = link.begin(head, self)
        except SeptetError as error:
            self.failed(error)
            return
        if self._over:
            upload.cancel(_nothing)
            return
        self._upload = upload
        if self._up_ended:
            upload.end()
        if self._stalled:
            upload.pause()

    def body(self, chunk: bytes, end: bool) -> None:
        upload = self._upload
        if upload is None or self._over:
            return
        if chunk:
            upload.write(chunk)
            self._owed += len(chunk)
            self._return_credit()
        if end and not self._over and not self._up_ended:
            self._up_ended = True
            upload.end()

    def credit(self, size: int) -> None:
        self._credit += size
        self.flush()

    def cancel(self, tell: bool = True) -> None:
        """Its caller is gone. The place is free when the function has let go."""
        upload, self._upload = self._upload, None
        if not self._over:
            self._over = True
            if upload is not None:
                upload.cancel(self._loan.free)
            else:
                self._loan.free()
        if tell:
            self._lender.send(frames.encode(frames.GONE, self._number))
            self._lender.forget(self._number)

    # -- ports.contract.Reply

    def started(self) -> None:
        if not self._over:
            self._lender.send(frames.encode(frames.STARTED, self._number))

    def informational(self, status: int, lines: bytes) -> None:
        if not self._over:
            self._lender.send(frames.encode(frames.REPLY, self._number, status_line(status) + lines))

    def head(self, head: ReplyHead) -> None:
        if self._over:
            return
        framing = b"" if head.length is None else b"content-length: %d\r\n" % head.length
        if head.status == 101:
            framing = b"connection: upgrade\r\nupgrade: %b\r\n" % head.upgrade
        self._lender.send(frames.encode(frames.REPLY, self._number, status_line(head.status) + head.lines + framing))

    def data(self, chunk: bytes) -> None:
        if self._over:
            return
        self._held.extend(chunk[at : at + PIECE] for at in range(0, len(chunk), PIECE))
        self.flush()

    def end(self) -> None:
        if self._over or self._ended:
            return
        self._ended = True
        upload = self._upload
        if upload is not None and not self._up_ended:
            upload.cancel(self._loan.free)
        else:
            self._loan.free()
        self.flush()

    def failed(self, error: SeptetError) -> None:
        if self._over:
            return
        self._over = True
        self._upload = None
        self._lender.send(frames.encode(frames.ERROR, self._number, b"", encode(carry(error))))
        self._lender.forget(self._number)
        self._loan.free()

    def pause_upload(self) -> None:
        self._up_paused = True

    def resume_upload(self) -> None:
        self._up_paused = False
        self._return_credit()

    # -- inside

    def flush(self) -> None:
        """Sends what the window and the line allow; holds the instance back while more is here."""
        while self._held and self._credit > 0 and self._lender.writable:
            chunk = self._held.pop(0)
            if len(chunk) > self._credit:
                self._held.insert(0, chunk[self._credit :])
                chunk = chunk[: self._credit]
            self._credit -= len(chunk)
            self._lender.send(frames.encode(frames.DATA, self._number, b"", chunk))
        if self._over:
            return
        if self._ended:
            if not self._held:
                self._over = True
                self._lender.send(frames.encode(frames.DATA, self._number, flags=frames.END))
                self._lender.forget(self._number)
        elif bool(self._held) != self._stalled:
            self._stalled = bool(self._held)
            if self._upload is not None:
                if self._stalled:
                    self._upload.pause()
                else:
                    self._upload.resume()

    def _return_credit(self) -> None:
        if self._owed >= CREDIT_STEP and not self._up_paused and not self._over:
            self._lender.send(frames.encode_window(self._number, self._owed))
            self._owed = 0


class Lender(asyncio.Protocol):
    """One line from another process."""

    def __init__(self, owner: Owner, on_gone: Callable[[Lender], None]) -> None:
        self._owner = owner
        self._on_gone = on_gone
        self._transport: asyncio.Transport | None = None
        self._decoder = frames.FrameDecoder()
        self._loans: dict[int, Loan] = {}
        self._visits: dict[int, Visit] = {}
        self.writable = True

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            self._receive(frame)

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        for visit in list(self._visits.values()):
            visit.flush()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._transport = None
        for number in list(self._loans):
            self._release(number)
        visits, self._visits = self._visits, {}
        for visit in visits.values():
            visit.cancel(tell=False)
        self._on_gone(self)

    # -- for loans and visits

    def send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def forget(self, visit: int) -> None:
        self._visits.pop(visit, None)

    def answer(self, loan: Loan, grant: Grant) -> None:
        if loan.over:
            self._loans.pop(loan.number, None)
        self.send(frames.encode(GRANT, loan.number, b"", encode(grant)))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # -- inside

    def _receive(self, frame: frames.Frame) -> None:
        visit = self._visits.get(frame.stream)
        if frame.type == LEASE:
            self._lease(frame.stream, _leases.decode(frame.body))
        elif frame.type == RELEASE:
            self._release(frame.stream)
        elif frame.type == frames.REQUEST:
            self._request(frame)
        elif visit is None:
            return
        elif frame.type == frames.DATA:
            visit.body(frame.body, bool(frame.flags & frames.END))
        elif frame.type == frames.WINDOW:
            visit.credit(frames.decode_window(frame.body))
        elif frame.type == frames.CANCEL:
            visit.cancel()

    def _lease(self, number: int, asked: LeaseRequest) -> None:
        loan = self._loans[number] = Loan(self, number, asked.key)
        if not self._owner.owns(asked.key):
            loan.fail(InstanceLost("another worker owns the revision"))
            return
        pool = self._owner.pool.of(asked.key)
        pool.submit(cast("Waiter", loan), asked, asked.again)
        if loan.link is None and not loan.over:
            loan.cold = self._owner.cold_reason(asked.key)

    def _release(self, number: int) -> None:
        loan = self._loans.pop(number, None)
        if loan is None:
            return
        if loan.link is None:
            self._owner.pool.of(loan.key).withdraw(loan)
        loan.free()

    def _request(self, frame: frames.Frame) -> None:
        line, _, rest = frame.head.partition(b"\r\n")
        method, target, _ = line.split(b" ")
        first, _, lines = rest.partition(b"\r\n")
        lent = _heads.decode(base64.b64decode(first.partition(b": ")[2]))
        # The link that carried it here put these two behind the lines.
        if lent.upgrade:
            lines = lines.removesuffix(b"upgrade: %b\r\n" % lent.upgrade)
        if lent.length is not None:
            lines = lines.removesuffix(b"content-length: %d\r\n" % lent.length)
        loan = self._loans.pop(lent.lease, None)
        if loan is None or loan.link is None:
            self.send(frames.encode(frames.ERROR, frame.stream, b"", encode(carry(InstanceLost("no such lease")))))
            return
        visit = self._visits[frame.stream] = Visit(self, frame.stream, loan)
        visit.begin(RequestHead(method, target, lines, lent.length, lent.invocation, lent.deadline, lent.upgrade))


def _nothing() -> None:
    pass
