"""The link to the platform and the calls on it.

Everything is written with blocking writes: the platform always reads, and what may be under way is bounded by the
windows. How one waits differs: a serial loop reads the link itself, threads wait for the one that reads, tasks
await. That is `Link.waits`.
"""

import os
import select
from _thread import RLock, allocate_lock
from collections import deque

from septet_runtime import frames


class Cancelled(BaseException):
    """The call's reader is gone. No Exception, so that a handler's `except Exception` does not swallow it."""


class LinkClosed(BaseException):
    """The platform closed the link: the process ends."""


class Call:
    """One call's state. Body bytes wait in `chunks`; `credit` less `sent` is what may still be sent.

    The one that reads the link changes `credit` and `chunks`, the one that answers `sent`: so no lock is needed.
    """

    __slots__ = (
        "cancelled",
        "chunks",
        "complete",
        "credit",
        "finished",
        "head",
        "head_sent",
        "line",
        "link",
        "method",
        "number",
        "owed",
        "sent",
        "started",
        "waiters",
    )

    def __init__(self, link, number, head, body, complete):
        self.link = link
        self.number = number
        self.head = head
        self.method = head[: head.find(b" ")]
        self.chunks = deque([body] if body else ())
        self.complete = complete
        self.credit = frames.WINDOW_SIZE
        self.sent = 0
        self.owed = 0
        self.cancelled = False
        self.started = False
        self.head_sent = False
        self.finished = False
        self.waiters = []
        self.line = {"stdout": "", "stderr": ""}

    def start(self):
        """Says that the call is taken up; raises Cancelled when it must not run any more."""
        if self.cancelled:
            self.finish(frames.encode(frames.GONE, self.number, flags=frames.NEVER_STARTED))
            raise Cancelled
        self.started = True
        self.link.send(frames.encode(frames.STARTED, self.number))

    # -- the request's body

    def has_body(self):
        return bool(self.chunks) or self.complete or self.cancelled

    def take(self):
        """The next piece of the body that is here; empty at its end. Gives its room back to the sender."""
        if self.cancelled:
            raise Cancelled
        if not self.chunks:
            return b""
        chunk = self.chunks.popleft()
        self.owed += len(chunk)
        if self.owed >= frames.WINDOW_SIZE // 4 and not self.complete:
            self.link.send(frames.encode_window(self.number, self.owed))
            self.owed = 0
        return chunk

    # -- the reply

    @property
    def window(self):
        return self.credit - self.sent

    def may_send(self):
        return self.credit > self.sent or self.cancelled

    def check(self):
        if self.cancelled:
            raise Cancelled

    def send_head(self, head, body=b"", end=False):
        """`body` must fit the window: it does when nothing was sent before and it is at most a piece."""
        self.check()
        self.head_sent = True
        self.sent += len(body)
        if end:
            self.finish(frames.encode(frames.REPLY, self.number, head, body, frames.END))
        else:
            self.link.send(frames.encode(frames.REPLY, self.number, head, body))

    def send_piece(self, data):
        """Sends what the window lets through of `data`, at most a piece; returns how many bytes that were."""
        self.check()
        size = min(len(data), self.window, frames.PIECE)
        self.sent += size
        self.link.send(frames.encode(frames.DATA, self.number, b"", bytes(data[:size])))
        return size

    def end(self):
        self.check()
        self.finish(frames.encode(frames.DATA, self.number, flags=frames.END))

    def fail(self, body):
        """Ends the call with an ERROR frame's JSON."""
        self.finish(frames.encode(frames.ERROR, self.number, b"", body))

    def gone(self):
        self.finish(frames.encode(frames.GONE, self.number))

    def finish(self, last):
        if not self.finished:
            self.flush_lines()
            self.finished = True
            self.link.forget(self)
            self.link.send_last(last)

    # -- its output

    def log(self, name, text):
        """Takes printed text and sends each whole line."""
        text = self.line[name] + text
        if "\n" in text:
            lines = text.split("\n")
            text = lines.pop()
            for line in lines:
                self._send_line(name, line)
        if len(text) > frames.PIECE:
            self._send_line(name, text)
            text = ""
        self.line[name] = text

    def flush_lines(self):
        for name, text in self.line.items():
            if text:
                self.line[name] = ""
                self._send_line(name, text)

    def _send_line(self, name, line):
        data = line.encode("utf-8", "replace")
        for at in range(0, max(len(data), 1), frames.PIECE):
            self.link.send(frames.encode(frames.LOG, self.number, name.encode(), data[at : at + frames.PIECE]))


class Link:
    """Reads and writes frames on a descriptor. `waiting` are the calls that nobody took up yet."""

    def __init__(self, descriptor):
        os.set_blocking(descriptor, True)
        os.set_inheritable(descriptor, False)
        self.descriptor = descriptor
        self.waiting = deque()
        self.open = {}
        self.draining = False
        self.closed = False
        self.waits = None
        self._decoder = frames.Decoder()
        self._kept = []
        self._new = []
        self._lock = RLock()
        self._reading = allocate_lock()

    def pump(self, block=True):
        """Reads once and takes in the frames; raises LinkClosed at the end of the stream."""
        with self._reading:
            self._pump(block)

    def glance(self):
        """As `pump(False)`, from another thread than the one that serves, while that one runs a handler."""
        if self._reading.acquire(False):
            try:
                self._pump(False)
            finally:
                self._reading.release()

    def _pump(self, block):
        if not block and not select.select([self.descriptor], [], [], 0)[0]:
            return
        if block and self._kept:
            self.send(b"")
        try:
            data = os.read(self.descriptor, frames.PIECE)
        except ConnectionError:
            data = b""
        if not data:
            self.closed = True
            raise LinkClosed
        for frame in self._decoder.feed(data):
            self._receive(*frame)
        # Only now, so that a call whose cancellation came along is not begun.
        new, self._new = self._new, []
        if new:
            self.waits.arrived([call for call in new if not call.cancelled])

    def send(self, data):
        with self._lock:
            if self._kept:
                self._kept.append(data)
                data, self._kept = b"".join(self._kept), []
            try:
                sent = os.write(self.descriptor, data) if data else 0
                while sent < len(data):
                    sent += os.write(self.descriptor, memoryview(data)[sent:])
            except ConnectionError:
                self.closed = True
                raise LinkClosed from None

    def send_last(self, data):
        """The last frame of a call; a serial loop keeps it until the next thing that is sent."""
        if self.waits.keeps_last:
            self._kept.append(data)
        else:
            self.send(data)

    def forget(self, call):
        self.open.pop(call.number, None)

    def _receive(self, type_, flags, stream, head, body):
        if type_ == frames.REQUEST:
            call = Call(self, stream, head, body, bool(flags & frames.END))
            self.open[stream] = call
            self.waiting.append(call)
            self._new.append(call)
        elif type_ == frames.AHEAD:
            self.waits.ahead()
        elif type_ == frames.RECALL:
            self._give_back()
        elif type_ == frames.DRAIN:
            self.draining = True
            self.waits.drained()
        elif call := self.open.get(stream):
            self._to_call(call, type_, flags, body)

    def _give_back(self):
        """All calls that nobody took up, the last one first, so that they line up again in their order."""
        gone = []
        while self.waiting:
            try:
                call = self.waiting.pop()
            except IndexError:  # it was taken up just now
                break
            self.forget(call)
            gone.append(frames.encode(frames.GONE, call.number, flags=frames.NEVER_STARTED))
        if gone:
            self.send(b"".join(gone))

    def _to_call(self, call, type_, flags, body):
        if type_ == frames.DATA:
            if body:
                call.chunks.append(body)
            if flags & frames.END:
                call.complete = True
        elif type_ == frames.WINDOW:
            call.credit += frames.decode_window(body)
        elif type_ == frames.CANCEL:
            call.cancelled = True
            try:
                self.waiting.remove(call)
            except ValueError:  # it was taken up, if only just now
                self.waits.cancel(call)
            else:
                self.forget(call)
                self.send(frames.encode(frames.GONE, call.number, flags=frames.NEVER_STARTED))
                return
        self.waits.wake(call)
