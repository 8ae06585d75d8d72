"""Calls one after the other in the main thread, or, with a concurrency above one, in threads."""

import os
import sys
from collections import deque

from septet_runtime import frames
from septet_runtime.calls import Cancelled, Context, Head, Request, normalise, piece, raised, reply_head
from septet_runtime.load import arity
from septet_runtime.output import capture


class Ended(Exception):
    """The link is closed: there is nobody to serve."""


class Call:
    """One stream: what came of its request, and how much of its reply may be sent."""

    def __init__(self, link, stream, head, body, ended):
        self.link = link
        self.stream = stream
        self.head = head
        self.chunks = deque((body,) if body else ())
        self.ended = ended
        self.cancelled = False
        self.started = False
        self.window = frames.WINDOW_SIZE
        self.taken = 0

    def read(self):
        return b"".join(self.pieces())

    def pieces(self):
        """The body as it comes, giving credit back as it is taken."""
        while True:
            while self.chunks:
                chunk = self.chunks.popleft()
                self.taken += len(chunk)
                if self.taken >= frames.CREDIT_STEP and not self.ended:
                    self.link.send(frames.window(self.stream, self.taken))
                    self.taken = 0
                yield chunk
            if self.ended:
                return
            self.wait()

    def wait(self):
        """Until something came for this call."""
        self.link.wait(self)
        if self.cancelled:
            raise Cancelled

    def write(self, data, end=False):
        """Body bytes, as the window allows."""
        view = memoryview(data)
        while len(view):
            while self.window <= 0:
                self.wait()
            if self.cancelled:
                raise Cancelled
            part = view[: min(self.window, frames.PIECE)]
            view = view[len(part) :]
            self.window -= len(part)
            last = end and not len(view)
            self.link.send(frames.encode(frames.DATA, self.stream, b"", bytes(part), frames.END if last else 0))
        if end and not data:
            self.link.send(frames.encode(frames.DATA, self.stream, flags=frames.END))

    def reply(self, head, body=b"", end=True):
        """The head, with as much of a small body as fits."""
        if end and len(body) <= min(self.window, frames.PIECE):
            self.window -= len(body)
            self.link.send(frames.encode(frames.REPLY, self.stream, head, body, frames.END))
            return
        self.link.send(frames.encode(frames.REPLY, self.stream, head))
        if body or end:
            self.write(body, end)


class Link:
    """The blocking link. In threads, one thread reads and every call waits on its own condition."""

    def __init__(self, fd, lock=None):
        self.fd = fd
        self.calls = {}
        self.queue = deque()
        self.draining = False
        self.lock = lock
        self.condition = None
        self._decoder = frames.Decoder()
        self._out = []
        self._batch = False

    def send(self, data):
        if self.lock is not None:
            with self.lock:
                self._write(data)
        elif self._batch:
            self._out.append(data)
        else:
            self._write(data)

    def _write(self, data):
        while data:
            data = data[os.write(self.fd, data) :]

    def flush(self):
        if self._out:
            data, self._out = b"".join(self._out), []
            self._write(data)

    def pump(self):
        """Reads once, and files what came."""
        self.flush()
        data = os.read(self.fd, 65536)
        if not data:
            raise Ended
        for type_, flags, stream, head, body in self._decoder.feed(data):
            self._take(type_, flags, stream, head, body)

    def wait(self, call):
        if self.condition is None:
            self.pump()
            return
        with self.condition:
            self.condition.wait_for(lambda: call.chunks or call.ended or call.cancelled or call.window > 0, timeout=60)

    def _take(self, type_, flags, stream, head, body):
        call = self.calls.get(stream)
        if type_ == frames.REQUEST:
            call = self.calls[stream] = Call(self, stream, Head(head), body, bool(flags & frames.END))
            self.queue.append(call)
        elif type_ == frames.DRAIN:
            self.draining = True
        elif call is None:
            return
        elif type_ == frames.DATA:
            if body:
                call.chunks.append(body)
            call.ended = call.ended or bool(flags & frames.END)
        elif type_ == frames.WINDOW:
            call.window += frames.credit(body)
        elif type_ == frames.CANCEL:
            call.cancelled = True
            if not call.started:
                del self.calls[stream]
                self.queue = deque(other for other in self.queue if other is not call)
                self.send(frames.encode(frames.GONE, stream, flags=frames.NEVER_STARTED))


def run(link, call, handler, kind, count, finish):
    """One call, from start to end."""
    call.started = True
    try:
        if kind == "wsgi":
            from septet_runtime.wsgi import answer

            answer(call, handler)
        else:
            request, context = Request(call.head, call), Context(call.head)
            result = handler(*(request, context)[:count])
            _answer(call, result)
    except Cancelled:
        link.send(frames.encode(frames.GONE, call.stream))
    except Ended:
        raise
    except (Exception, SystemExit) as error:
        finish(call.stream)
        link.send(frames.encode(frames.ERROR, call.stream, b"", raised(error)))
        print_error(error)
    else:
        finish(call.stream)
        if call.cancelled:
            link.send(frames.encode(frames.GONE, call.stream))
    finally:
        link.calls.pop(call.stream, None)


def print_error(error):
    """The trace goes to the function's log, whoever gets the answer."""
    from traceback import print_exception

    print_exception(type(error), error, error.__traceback__)


def _answer(call, result):
    status, pairs, body = normalise(result)
    head = reply_head(status, pairs)
    if isinstance(body, bytes):
        call.reply(head, body)
        return
    if not hasattr(body, "__next__"):
        raise TypeError("a sync handler cannot return an async iterator: make it `async def`")
    call.reply(head, end=False)
    call.link.flush()
    try:
        for value in body:
            data = piece(value)
            if data:
                call.write(data)
                call.link.flush()
            if call.cancelled:
                raise Cancelled
        call.write(b"", end=True)
    finally:
        if hasattr(body, "close"):
            body.close()


def serve(fd, handler, kind, concurrency, ready):
    """Until the link ends, or it drained and the last call is over."""
    count = arity(handler)
    try:
        if concurrency == 1:
            _serve_one(fd, handler, kind, count, ready)
        else:
            _serve_threads(fd, handler, kind, count, concurrency, ready)
    except (Ended, BrokenPipeError, ConnectionResetError):
        pass
    sys.stdout = sys.__stdout__
    sys.stderr = sys.__stderr__
    os._exit(0)


def _serve_one(fd, handler, kind, count, ready):
    link = Link(fd)
    running = [0]
    finish = capture(link.send, lambda: running[0])
    link.send(ready)
    while True:
        while not link.queue:
            if link.draining and not link.calls:
                raise Ended
            link.pump()
        call = link.queue.popleft()
        running[0] = call.stream
        # The start goes out at once: until it does, the platform may give the call to another instance.
        link._batch = False
        link.send(frames.encode(frames.STARTED, call.stream))
        run(link, call, handler, kind, count, finish)
        running[0] = 0


def _serve_threads(fd, handler, kind, count, concurrency, ready):
    import threading
    from queue import SimpleQueue

    link = Link(fd, threading.Lock())
    link.condition = threading.Condition()
    local = threading.local()
    finish = capture(link.send, lambda: getattr(local, "stream", 0))
    work = SimpleQueue()

    def worker():
        while True:
            call = work.get()
            if call.cancelled:
                continue
            local.stream = call.stream
            try:
                run(link, call, handler, kind, count, finish)
            except (Ended, OSError):
                os._exit(0)
            finally:
                local.stream = 0

    most = concurrency if concurrency > 0 else 256
    threads = 0
    link.send(ready)
    while True:
        if link.draining and not link.calls:
            raise Ended
        data = os.read(fd, 65536)
        if not data:
            raise Ended
        with link.condition:
            for type_, flags, stream, head, body in link._decoder.feed(data):
                link._take(type_, flags, stream, head, body)
            link.condition.notify_all()
        while link.queue:
            call = link.queue.popleft()
            call.started = True
            link.send(frames.encode(frames.STARTED, call.stream))
            if threads < min(most, len(link.calls)):
                threads += 1
                threading.Thread(target=worker, daemon=True).start()
            work.put(call)
