"""Serving synchronous handlers: one call after the other in the main thread, or several in threads."""

from time import monotonic

from septet_runtime import frames
from septet_runtime.link import Cancelled, LinkClosed
from septet_runtime.output import current
from septet_runtime.reply import Outcome, encode_chunk, encode_head, may_have_body, plain
from septet_runtime.request import Context, Request

MOST_THREADS = 64
JUST_NOW = 0.001
"""Seconds in which what was read is still news."""


class Serial:
    """Waiting for a serial loop: it reads the link itself."""

    keeps_last = True

    def __init__(self, link):
        self._link = link
        self.lookout = None

    def ahead(self):
        """Calls may wait here behind a running one: somebody must hear it when the platform wants them back."""
        if self.lookout is None:
            from septet_runtime.lookout import Lookout

            try:
                self.lookout = Lookout(self._link)
            except RuntimeError:  # no thread is to be had: then none shall wait here
                return
        self._link.send(frames.encode(frames.AHEAD, 0))

    def until(self, call, ready):
        while not ready():
            self._link.pump()

    def poll(self):
        self._link.pump(block=False)

    def arrived(self, calls):
        pass

    def drained(self):
        pass

    def cancel(self, call):
        pass

    def wake(self, call):
        pass


def serve_serial(link, answer):
    """Runs until the platform says that no call will come."""
    serial = link.waits = Serial(link)
    read = 0.0
    while True:
        if not link.waiting:
            if link.draining:
                link.send(b"")
                return
            link.pump()
            read = monotonic()
            continue
        # A call may have been cancelled while the one before it ran.
        if monotonic() - read > JUST_NOW:
            link.pump(block=False)
            read = monotonic()
        try:
            call = link.waiting.popleft()
        except IndexError:  # it was cancelled, or given back
            continue
        lookout = serial.lookout
        if lookout is None:
            run(call, answer)
        else:
            lookout.begin()
            run(call, answer)
            lookout.end()


class Threads:
    """Waiting for threads: the main thread reads and wakes them.

    The thread that rested last works first, so that calls which come one by one find one warm thread.
    """

    keeps_last = False

    def __init__(self, link, most):
        import threading

        self._link = link
        self._most = most
        self._changed = threading.Condition()
        self._lock = threading.Lock()
        self._resting = []
        self._threads = []

    def until(self, call, ready):
        with self._changed:
            while not ready():
                self._changed.wait()

    def poll(self):
        pass

    def arrived(self, calls):
        for _ in calls:
            self._room()

    def _room(self):
        """A call came: a thread that rests takes it, or a new one, or the next that is free."""
        with self._lock:
            if self._resting:
                self._resting.pop().release()
                return
        import threading

        if len(self._threads) < self._most:
            thread = threading.Thread(target=self._work, daemon=True)
            self._threads.append(thread)
            thread.start()

    def ahead(self):
        pass

    def drained(self):
        with self._changed:
            self._changed.notify_all()

    def cancel(self, call):
        pass

    def wake(self, call):
        with self._changed:
            self._changed.notify_all()

    def serve(self, answer):
        self._answer = answer
        while not self._link.draining:
            self._link.pump()
        while self._link.open:
            self._link.pump()

    def _work(self):
        from _thread import allocate_lock

        rest = allocate_lock()
        rest.acquire()
        waiting = self._link.waiting
        while True:
            try:
                call = waiting.popleft()
            except IndexError:
                with self._lock:
                    # A call that comes from here on finds this thread among those that rest.
                    if waiting:
                        continue
                    self._resting.append(rest)
                rest.acquire()
                continue
            try:
                run(call, self._answer)
            except LinkClosed:  # the main thread sees it too, and ends the process
                return


def run(call, answer):
    """One call, whatever it does."""
    token = current.set(call)
    try:
        call.start()
        answer(call)
    except (Cancelled, LinkClosed):
        if call.link.closed:
            raise LinkClosed from None
        call.gone()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a handler's sys.exit() is no reason to take other calls down
        fail(call, error)
    finally:
        current.reset(token)


def fail(call, error):
    """Answers with the error, and logs it for `septet logs`."""
    if call.cancelled:
        call.gone()
        return
    try:
        from septet_runtime.raised import describe, trace_of
    except OSError:
        # A handler that used up every descriptor leaves none to import with.
        name, words = type(error).__name__, str(error).translate({34: "'", 92: "/"})
        words = "".join(c for c in words if c.isprintable())[:2000]
        call.log("stderr", f"{name}: {words}")
        call.fail(f'{{"type": "{name}", "message": "{words}", "trace": ""}}'.encode())
        return
    call.log("stderr", trace_of(error))
    call.fail(describe(error))


def handler_answer(handler):
    """How a call to a synchronous handler is answered."""

    def answer(call):
        request = Request(call)
        result = handler(request, Context(request))
        if hasattr(result, "__await__"):
            result = _await(result)
        reply(call, result)

    return answer


def _await(result):
    """A synchronous function gave back a coroutine, as a decorator may make it do."""
    import asyncio

    async def whole():
        return await result

    return asyncio.run(whole())


def reply(call, result):
    whole = plain(call.method, result)
    if whole is not None:
        call.send_head(*whole, end=True)
        return
    outcome = Outcome(result)
    chunks = outcome.chunks
    if outcome.achunks is not None:
        raise TypeError("an async generator needs `async def` to make it, not a synchronous function")
    if chunks is None:
        send_whole(call, outcome)
        return
    try:
        _stream(call, outcome, chunks)
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()


def send_whole(call, outcome):
    body = outcome.body
    if may_have_body(call.method, outcome.status):
        outcome.headers.append(("content-length", len(body)))
    elif call.method == b"HEAD":
        outcome.headers.append(("content-length", len(body)))
        body = b""
    else:
        body = b""
    head = encode_head(outcome.status, outcome.headers)
    if len(body) <= 65536:
        call.send_head(head, body, end=True)
        return
    call.send_head(head)
    send_all(call, body)
    call.end()


def send_all(call, data):
    """Sends it all, as the window allows."""
    view = memoryview(data)
    while view:
        if not call.window:
            call.link.waits.until(call, call.may_send)
        view = view[call.send_piece(view) :]


def _stream(call, outcome, chunks):
    with_body = may_have_body(call.method, outcome.status)
    for value in chunks:
        data, kind = encode_chunk(value)
        if not call.head_sent:
            outcome.set_type(kind)
            call.send_head(encode_head(outcome.status, outcome.headers))
        if not with_body:
            break
        if data:
            send_all(call, data)
        call.link.waits.poll()
        call.check()
    if not call.head_sent:
        call.send_head(encode_head(outcome.status, outcome.headers))
    call.end()
