"""Serving coroutines and ASGI applications: one event loop, one task for each call."""

import asyncio
import threading

from septet_runtime import frames
from septet_runtime.link import Cancelled, LinkClosed
from septet_runtime.output import current
from septet_runtime.reply import Outcome, encode_chunk, encode_head, may_have_body, plain
from septet_runtime.request import PREFETCH, Context, Request
from septet_runtime.serving import fail
from septet_runtime.serving import reply as reply_now


class Tasks:
    """Waiting for tasks: the loop reads the link and wakes them."""

    keeps_last = False

    def __init__(self, link, answer):
        self.loop = asyncio.get_running_loop()
        self.done = self.loop.create_future()
        self._thread = threading.get_ident()
        self._link = link
        self._answer = answer
        self._tasks = {}
        self._begun = set()

    def read(self):
        try:
            self._link.pump()
        except LinkClosed:
            self.close()
        except ValueError as error:
            if not self.done.done():
                self.done.set_exception(error)

    def close(self):
        self.loop.remove_reader(self._link.descriptor)
        if not self.done.done():
            self.done.set_result(None)

    def until(self, call, ready):
        """For code that cannot await: the loop's own thread reads the link meanwhile."""
        if threading.get_ident() != self._thread:
            asyncio.run_coroutine_threadsafe(self.until_async(call, ready), self.loop).result()
            return
        while not ready():
            self._link.pump()

    async def until_async(self, call, ready):
        while not ready():
            waiter = self.loop.create_future()
            call.waiters.append(waiter)
            await waiter

    def poll(self):
        pass

    def arrived(self, calls):
        self._link.waiting.clear()
        for call in calls:
            call.started = True
        # What came together begins together: one write says so.
        self._link.send(b"".join([frames.encode(frames.STARTED, call.number) for call in calls]))
        for call in calls:
            self._tasks[call] = self.loop.create_task(self._run(call))

    def ahead(self):
        pass

    def drained(self):
        if not self._tasks:
            self.close()

    def cancel(self, call):
        task = self._tasks.get(call)
        if task is None:
            return
        task.cancel()
        if call not in self._begun:
            # A task that is cancelled before its first step never runs, so it cannot say so itself.
            del self._tasks[call]
            call.finish(frames.encode(frames.GONE, call.number, flags=frames.NEVER_STARTED))
            if self._link.draining:
                self.drained()

    def wake(self, call):
        waiters, call.waiters = call.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _run(self, call):
        current.set(call)
        self._begun.add(call)
        try:
            call.check()
            await self._answer(call)
        except LinkClosed:
            self.close()
        except Cancelled:
            call.gone()
        except asyncio.CancelledError as error:
            fail(call, error)
        except BaseException as error:  # a handler's sys.exit() is no reason to take other calls down
            fail(call, error)
        finally:
            self._tasks.pop(call, None)
            self._begun.discard(call)
            if self._link.draining:
                self.drained()


def serve_async(link, kind, handler, ready, refuse):
    asyncio.run(_serve(link, kind, handler, ready, refuse))


async def _serve(link, kind, handler, ready, refuse):
    lifespan = None
    if kind == "asgi":
        from septet_runtime.asgi import Lifespan, asgi_answer

        lifespan = Lifespan(handler)
        try:
            await lifespan.start()
        except Exception as error:
            refuse(link, error)
            return
        answer = asgi_answer(handler, lifespan.state)
    else:
        answer = handler_answer(handler)
    tasks = link.waits = Tasks(link, answer)
    ready(link)
    tasks.loop.add_reader(link.descriptor, tasks.read)
    await tasks.done
    if lifespan is not None:
        await lifespan.stop()
    if link.closed:
        raise LinkClosed


def handler_answer(handler):
    """How a call to a coroutine or an async generator is answered."""

    async def answer(call):
        request = Request(call)
        if not call.complete and int(request.headers.get("content-length", PREFETCH + 1)) <= PREFETCH:
            # A small body is awaited here, so that `request.body` does not hold up the other calls.
            await call.link.waits.until_async(call, lambda: call.complete or call.cancelled)
        result = handler(request, Context(request))
        if hasattr(result, "__await__"):
            result = await result
        await reply(call, result)

    return answer


async def reply(call, result):
    whole = plain(call.method, result)
    if whole is not None:
        call.send_head(*whole, end=True)
        return
    outcome = Outcome(result)
    if outcome.achunks is None and outcome.chunks is None:
        await _send_whole(call, outcome)
    elif outcome.achunks is None:
        # A synchronous iterator may block, as it may in a synchronous handler: it gets a thread.
        await asyncio.to_thread(reply_now, call, (outcome.chunks, outcome.status, outcome.headers))
    else:
        try:
            await _stream(call, outcome)
        finally:
            close = getattr(outcome.achunks, "aclose", None)
            if close is not None:
                await close()


async def _send_whole(call, outcome):
    body = outcome.body
    if may_have_body(call.method, outcome.status) or call.method == b"HEAD":
        outcome.headers.append(("content-length", len(body)))
    if not may_have_body(call.method, outcome.status):
        body = b""
    head = encode_head(outcome.status, outcome.headers)
    if len(body) <= 65536:
        call.send_head(head, body, end=True)
        return
    call.send_head(head)
    await send_all(call, body)
    call.end()


async def send_all(call, data):
    """Sends it all, as the window allows."""
    view = memoryview(data)
    while view:
        if not call.window:
            await call.link.waits.until_async(call, call.may_send)
        view = view[call.send_piece(view) :]


async def _stream(call, outcome):
    with_body = may_have_body(call.method, outcome.status)
    async for value in outcome.achunks:
        data, kind = encode_chunk(value)
        if not call.head_sent:
            outcome.set_type(kind)
            call.send_head(encode_head(outcome.status, outcome.headers))
        if not with_body:
            break
        if data:
            await send_all(call, data)
        # A generator that never waits would keep the link from being read.
        await asyncio.sleep(0)
        call.check()
    if not call.head_sent:
        call.send_head(encode_head(outcome.status, outcome.headers))
    call.end()
