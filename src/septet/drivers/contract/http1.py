"""The http1 contract: any HTTP/1.1 server on $PORT, one connection for each call under way.

Connections are kept and used again. A cancelled call's connection is closed: HTTP has no other word for it, and
none that says when the process has really stopped, so the instance counts as free of the call at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from septet.drivers.contract.http1_connection import Connection, Transfer
from septet.drivers.contract.opening import connect_until, not_in_time
from septet.model.errors import FunctionCrashed, InstanceLost, NotFound, SeptetError, StartFailed, Unavailable
from septet.model.function import FunctionTemplate, Readiness
from septet.model.instance import InstanceInfo
from septet.ports.contract import Connect, Link, LogHandler, Reply, ReplyHead, RequestHead, Upload

KEPT = 64
"""Idle connections that are kept when the function has no concurrency of its own."""
FRESH = 1.0
"""Seconds of idleness after which a request that may not be sent twice gets a new connection: servers close idle
ones, some after two seconds, and a request that crosses the closing would be lost."""
EARLY = 64 * 1024
"""Bytes of a body that wait for the connection before the sender is held."""
PROBES = 5
PROBE_PAUSE = 0.1

_REPEATABLE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})


class HttpCall:
    """Implements `ports.contract.Upload`: a call, on its first connection or, when that was stale, its second."""

    __slots__ = ("_cancelled", "_early", "_early_size", "_ended", "_link", "_paused", "_transfer", "reply", "request")

    def __init__(self, link: Http1Link, request: RequestHead, reply: Reply) -> None:
        self.request = request
        self.reply = reply
        self._link = link
        self._transfer: Transfer | None = None
        self._early: list[bytes] = []
        self._early_size = 0
        self._ended = False
        self._paused = False
        self._cancelled = False

    @property
    def repeatable(self) -> bool:
        """It may be sent twice, and nothing of a body would be missing the second time."""
        return self.request.method in _REPEATABLE and self.request.length == 0 and not self.request.upgrade

    def write(self, chunk: bytes) -> None:
        if self._transfer is not None:
            self._transfer.write(chunk)
        elif not self._cancelled:
            held = self._early_size >= EARLY
            self._early.append(chunk)
            self._early_size += len(chunk)
            if self._early_size >= EARLY and not held:
                self.reply.pause_upload()

    def end(self) -> None:
        self._ended = True
        if self._transfer is not None:
            self._transfer.end()

    def cancel(self, on_gone: Callable[[], None]) -> None:
        self._cancelled = True
        self._early.clear()
        if self._transfer is not None:
            self._transfer.cancel()
        self._link.over(self)
        on_gone()

    def pause(self) -> None:
        self._paused = True
        if self._transfer is not None:
            self._transfer.pause()

    def resume(self) -> None:
        self._paused = False
        if self._transfer is not None:
            self._transfer.resume()

    # -- from the link

    def use(self, connection: Connection, started: bool = True) -> bool:
        """Sends the request over the connection; False when nobody wants it any more."""
        if self._cancelled:
            return False
        stale_possible = connection.used

        def over(answered: bool) -> bool:
            if stale_possible and not answered and self.repeatable:
                self._transfer = None
                self._link.retry(self)
                return True
            self._link.over(self)
            return False

        transfer = self._transfer = Transfer(connection, self.request, self.reply, over)
        if started:
            self.reply.started()
        if self._paused:
            transfer.pause()
        transfer.begin()
        held, self._early_size = self._early_size >= EARLY, 0
        early, self._early = self._early, []
        for chunk in early:
            transfer.write(chunk)
        if self._ended:
            transfer.end()
        if held and not transfer.over and not self._cancelled:
            self.reply.resume_upload()
        return True

    def fail(self, error: SeptetError) -> None:
        if self._cancelled:
            return
        self._cancelled = True
        transfer, self._transfer = self._transfer, None
        if transfer is not None:
            if transfer.over:
                return
            transfer.cancel()
        self._link.over(self)
        self.reply.failed(error)


class Http1Link:
    """A link that makes connections as calls need them."""

    def __init__(
        self, connect: Connect, instance: InstanceInfo, template: FunctionTemplate, on_lost: Callable[[], None]
    ) -> None:
        self.instance = instance
        self._connect = connect
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        concurrency = template.limits.concurrency
        self._kept = concurrency if concurrency > 0 else KEPT
        self._idle: list[Connection] = []
        self._connections: set[Connection] = set()
        self._calls: set[HttpCall] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._lost = False
        self._probing = False
        self._quiet: asyncio.Event | None = None

    # -- Link

    def begin(self, head: RequestHead, reply: Reply) -> Upload:
        if self._closing or self._lost:
            raise InstanceLost("the link to the instance is closed")
        call = HttpCall(self, head, reply)
        self._calls.add(call)
        connection = self._take_idle(call)
        if connection is not None:
            call.use(connection)
        else:
            self._start(self._dial(call))
        return call

    async def close(self, grace: float) -> None:
        self._closing = True
        if self._calls and grace > 0 and not self._lost:
            self._quiet = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._quiet.wait(), grace)
        self._end("the link was closed")

    # -- for connections and calls

    def add(self, connection: Connection) -> None:
        """A connection that carries no call yet."""
        self._connections.add(connection)
        self.free(connection)

    def free(self, connection: Connection) -> None:
        if self._closing or self._lost or len(self._idle) >= self._kept:
            connection.abort()
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)

    def gone(self, connection: Connection, suspect: bool) -> None:
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if suspect and not self._closing and not self._lost and not self._probing:
            self._probing = True
            self._start(self._probe())

    def over(self, call: HttpCall) -> None:
        self._calls.discard(call)
        if self._quiet is not None and not self._calls:
            self._quiet.set()

    def retry(self, call: HttpCall) -> None:
        """The connection was stale: the server closed it before it saw the request."""
        self._start(self._dial(call, again=True))

    # -- inside

    def _take_idle(self, call: HttpCall) -> Connection | None:
        """The one that was used last, so that the others can time out."""
        if self._idle and not call.repeatable and self._loop.time() - self._idle[-1].idle_since > FRESH:
            return None
        return self._idle.pop() if self._idle else None

    async def _dial(self, call: HttpCall, again: bool = False) -> None:
        connection = Connection(self)
        try:
            await self._connect(lambda: connection)
        except NotFound:
            self._end("the process ended")
            call.fail(_lost_error(again))
            return
        except (InstanceLost, Unavailable):
            call.fail(_lost_error(again))
            return
        if self._closing or self._lost:
            connection.abort()
            call.fail(_lost_error(again))
            return
        self._connections.add(connection)
        if not call.use(connection, started=not again):
            self.free(connection)

    async def _probe(self) -> None:
        """A connection was closed: is the process still there?"""
        for _ in range(PROBES):
            try:
                transport = await self._connect(asyncio.Protocol)
            except NotFound:
                break
            except (InstanceLost, Unavailable):
                await asyncio.sleep(PROBE_PAUSE)
                continue
            transport.abort()
            self._probing = False
            return
        self._end("the process accepts no connection any more")

    def _end(self, why: str) -> None:
        if self._lost:
            return
        self._lost = True
        self._on_lost()
        for call in list(self._calls):
            call.fail(FunctionCrashed(f"the function's process ended while it ran this call: {why}"))
        for connection in list(self._connections):
            connection.abort()
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()

    def _start(self, work: asyncio._CoroutineLike[None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Answer:
    """The reply to a readiness request: its status, or None when there was none."""

    def __init__(self) -> None:
        self.status: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    def started(self) -> None: ...

    def informational(self, status: int, lines: bytes) -> None: ...

    def head(self, head: ReplyHead) -> None:
        self._tell(head.status)

    def data(self, chunk: bytes) -> None: ...

    def end(self) -> None: ...

    def failed(self, error: SeptetError) -> None:
        self._tell(None)

    def pause_upload(self) -> None: ...

    def resume_upload(self) -> None: ...

    def _tell(self, status: int | None) -> None:
        if not self.status.done():
            self.status.set_result(status)


class Http1Contract:
    """Opens links to HTTP/1.1 servers (`ports.contract.Contract`)."""

    name = "http1"

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
        opened = False

        def lost() -> None:
            if opened:
                on_lost()

        link = Http1Link(connect, instance, template, lost)
        connection = Connection(link)
        await connect_until(connect, lambda: connection, deadline)
        # It is kept for the first call: a server with one thread would sit and wait on it.
        link.add(connection)
        try:
            if template.readiness.path:
                await _until_ready(link, connect, template.readiness, deadline)
        except BaseException:
            await link.close(0)
            raise
        opened = True
        return link

    async def specialise(self, link: Link, template: FunctionTemplate, artifact: str, *, deadline: float) -> Link:
        raise Unavailable("an HTTP server cannot be made another function's", hint="start a new instance")


async def _until_ready(link: Http1Link, connect: Connect, readiness: Readiness, deadline: float) -> None:
    """Asks for the readiness path until it answers 2xx or 3xx."""
    loop = asyncio.get_running_loop()
    last: int | None = None
    while loop.time() < deadline:
        last = await _ask(link, readiness, min(readiness.timeout, deadline - loop.time()))
        if last is not None and 200 <= last < 400:
            return
        await asyncio.sleep(min(readiness.period, max(0.0, deadline - loop.time())))
    told = f"{readiness.path} answered {last}" if last else f"{readiness.path} was not answered"
    raise not_in_time(told)


async def _ask(link: Http1Link, readiness: Readiness, patience: float) -> int | None:
    answer = _Answer()
    head = RequestHead(
        b"GET", readiness.path.encode("latin-1"), b"Host: localhost\r\nUser-Agent: septet-readiness\r\n", 0, "", 0.0
    )
    try:
        upload = link.begin(head, answer)
    except InstanceLost as error:
        raise StartFailed("the process ended before it was ready", hint="see its log") from error
    try:
        return await asyncio.wait_for(answer.status, patience)
    except TimeoutError:
        return None
    finally:
        upload.cancel(_nothing)


def _nothing() -> None:
    pass


def _lost_error(again: bool) -> SeptetError:
    if again:
        return FunctionCrashed("the function closed its connection without a reply, and accepts no other")
    return InstanceLost("the instance was lost before the call began")
