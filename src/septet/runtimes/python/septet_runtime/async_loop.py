"""Calls of async handlers and ASGI applications on one event loop."""

import asyncio
import contextvars
import os
import socket
import sys

from septet_runtime import frames
from septet_runtime.calls import Cancelled, Context, Head, Request, normalise, piece, raised, reply_head
from septet_runtime.load import arity
from septet_runtime.output import capture

_running = contextvars.ContextVar("stream", default=0)


class Call:
    """One stream of the link."""

    def __init__(self, link, stream, head, body, ended):
        self.link = link
        self.stream = stream
        self.head = head
        self.chunks = [body] if body else []
        self.ended = ended
        self.cancelled = False
        self.window = frames.WINDOW_SIZE
        self.taken = 0
        self.task = None
        self.news = asyncio.Event()

    async def piece(self):
        """The next piece of the body; empty at its end."""
        while not self.chunks:
            if self.ended:
                return b""
            self.news.clear()
            await self.news.wait()
        chunk = self.chunks.pop(0)
        self.taken += len(chunk)
        if self.taken >= frames.CREDIT_STEP and not self.ended:
            self.link.send(frames.window(self.stream, self.taken))
            self.taken = 0
        return chunk

    async def pieces(self):
        while chunk := await self.piece():
            yield chunk

    async def write(self, data, end=False):
        view = memoryview(data)
        while len(view):
            while self.window <= 0 or self.link.full:
                self.news.clear()
                await self.news.wait()
            part = view[: min(self.window, frames.PIECE)]
            view = view[len(part) :]
            self.window -= len(part)
            last = end and not len(view)
            self.link.send(frames.encode(frames.DATA, self.stream, b"", bytes(part), frames.END if last else 0))
        if end and not data:
            self.link.send(frames.encode(frames.DATA, self.stream, flags=frames.END))

    async def reply(self, head, body=b"", end=True):
        if end and len(body) <= min(self.window, frames.PIECE):
            self.window -= len(body)
            self.link.send(frames.encode(frames.REPLY, self.stream, head, body, frames.END))
            return
        self.link.send(frames.encode(frames.REPLY, self.stream, head))
        if body or end:
            await self.write(body, end)


class WholeBody:
    """The body of a request for an async handler: read before the call, or taken piece by piece."""

    def __init__(self, call):
        self._call = call
        self.whole = None

    def read(self):
        if self.whole is None:
            raise RuntimeError("the body is streamed: use `async for chunk in request`, or `await request.read()`")
        return self.whole

    def pieces(self):
        if self.whole is None:
            return self._call.pieces()
        return _once(self.whole)


async def _once(data):
    if data:
        yield data


class AsyncRequest(Request):
    """A request whose body may still be on its way."""

    async def read(self):
        if self._read is None:
            self._read = b"".join([chunk async for chunk in self.stream()])
        return self._read


class Link(asyncio.Protocol):
    def __init__(self, answer, ended):
        self.calls = {}
        self.full = False
        self.draining = False
        self.transport = None
        self._answer = answer
        self._ended = ended
        self._decoder = frames.Decoder()

    def send(self, data):
        self.transport.write(data)

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, error):
        self._ended.set()

    def pause_writing(self):
        self.full = True

    def resume_writing(self):
        self.full = False
        for call in self.calls.values():
            call.news.set()

    def data_received(self, data):
        for type_, flags, stream, head, body in self._decoder.feed(data):
            self._take(type_, flags, stream, head, body)

    def _take(self, type_, flags, stream, head, body):
        if type_ == frames.REQUEST:
            call = self.calls[stream] = Call(self, stream, Head(head), body, bool(flags & frames.END))
            self.send(frames.encode(frames.STARTED, stream))
            call.task = asyncio.get_running_loop().create_task(self._run(call))
            return
        if type_ == frames.DRAIN:
            self.draining = True
            self._rest()
            return
        call = self.calls.get(stream)
        if call is None:
            return
        if type_ == frames.DATA:
            if body:
                call.chunks.append(body)
            call.ended = call.ended or bool(flags & frames.END)
        elif type_ == frames.WINDOW:
            call.window += frames.credit(body)
        elif type_ == frames.CANCEL:
            call.cancelled = True
            call.task.cancel()
        call.news.set()

    async def _run(self, call):
        _running.set(call.stream)
        try:
            await self._answer(call)
            if call.cancelled:
                self.send(frames.encode(frames.GONE, call.stream))
        except (asyncio.CancelledError, Cancelled):
            self.send(frames.encode(frames.GONE, call.stream))
        except (Exception, SystemExit) as error:
            self.finish(call.stream)
            self.send(frames.encode(frames.ERROR, call.stream, b"", raised(error)))
            from traceback import print_exception

            print_exception(type(error), error, error.__traceback__)
        finally:
            self.finish(call.stream)
            self.calls.pop(call.stream, None)
            self._rest()

    def _rest(self):
        if self.draining and not self.calls:
            self._ended.set()


def _handler_answer(handler):
    count = arity(handler)

    async def answer(call):
        body = WholeBody(call)
        if call.ended:
            body.whole = b"".join(call.chunks)
            call.chunks.clear()
        else:
            await _read_early(call, body)
        request, context = AsyncRequest(call.head, body), Context(call.head)
        result = handler(*(request, context)[:count])
        if hasattr(result, "__await__"):
            result = await result
        status, pairs, content = normalise(result)
        head = reply_head(status, pairs)
        if isinstance(content, bytes):
            await call.reply(head, content)
            return
        await call.reply(head, end=False)
        if hasattr(content, "__anext__"):
            try:
                async for value in content:
                    await call.write(piece(value))
            finally:
                await content.aclose()
        else:
            for value in content:
                await call.write(piece(value))
                await asyncio.sleep(0)
        await call.write(b"", end=True)

    return answer


async def _read_early(call, body):
    """A body of known, modest length is read first, so that `request.body` works as in a sync handler."""
    length = call.head.headers.get("content-length", "")
    if length.isdigit() and int(length) <= 8 * 1024 * 1024:
        body.whole = b"".join([chunk async for chunk in call.pieces()])


async def _serve(fd, handler, kind, ready):
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    stop = None
    if kind == "asgi":
        from septet_runtime.asgi import application

        answer, stop = await application(handler)
    else:
        answer = _handler_answer(handler)
    link = Link(answer, ended)
    await loop.connect_accepted_socket(lambda: link, socket.socket(fileno=fd))
    link.finish = capture(link.send, _running.get)
    link.send(ready)
    await ended.wait()
    if stop is not None:
        await stop()


def serve(fd, handler, kind, concurrency, ready):
    """Until the link ends, or it drained and the last call is over."""
    try:
        asyncio.run(_serve(fd, handler, kind, ready))
    except Exception as error:
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        answer = raised(error)[:-1] + b', "ok": false}'
        try:
            os.write(fd, frames.encode(frames.READY, 0, b"", answer))
        except OSError:
            pass
        os._exit(1)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    os._exit(0)
