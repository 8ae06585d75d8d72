"""One worker: a process with its own data plane, told by control what to serve and which instances are its."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import random
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from septet import registry
from septet.apis.native.app import NativeSettings
from septet.app.log import start_logging
from septet.app.workers import messages as m
from septet.app.workers.calls import SharedCalls
from septet.app.workers.channel import Channel
from septet.app.workers.handover import attach
from septet.app.workers.lend import Loan
from septet.app.workers.neighbours import Neighbours
from septet.app.workers.owners import Owners
from septet.app.workers.rates import SharedAdmission
from septet.app.workers.reports import OwnedPool, Reports
from septet.dataplane.certificates import Certificate, Certificates
from septet.dataplane.dispatch import ListenerFacts, Receive, Scope, Send
from septet.dataplane.exchange import Exchange
from septet.dataplane.express import ExpressCall
from septet.dataplane.listener import Listener
from septet.dataplane.metrics import Metrics
from septet.dataplane.pool import Slot
from septet.dataplane.router import Router
from septet.dataplane.surfaces import Surface, Surfaces
from septet.dataplane.table import Table
from septet.drivers.clock.system import SystemClock
from septet.model.errors import InstanceLost, PlatformError, SeptetError
from septet.model.function import Function, Revision
from septet.model.instance import ColdReason
from septet.model.objects import Token, kind_of
from septet.ports.contract import Contract, Link
from septet.ports.logs import LogLine, Logs
from septet.ports.sandbox import ProtocolFactory
from septet.ports.signals import RevisionKey
from septet.ports.store import Change, Store
from septet.service.authenticate import Credentials
from septet.service.service import Service

VACATE = 0.01
"""Seconds between two looks at an instance that was removed with a call in it."""
SETTLE = 0.05
"""Seconds in which connections that others sent before they were told to keep them are taken in."""


class Worker:
    """Everything of it lives on one event loop. `ended` is set when control has gone, or has no more use for it."""

    def __init__(self, sock: socket.socket) -> None:
        self.ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._clock = SystemClock()
        runtimes = registry.runtimes()
        self._table = Table(runtimes)
        # It never reads a store: control tells it of every token.
        self._credentials = Credentials(cast("Store", None), self._clock, self._table.touch)
        self._metrics = Metrics()
        self._owners = Owners()
        self._neighbours = Neighbours()
        self._contracts: dict[str, Contract] = {
            name: registry.load(registry.CONTRACTS, name)() for name in registry.CONTRACTS
        }
        self._links: dict[str, Link] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._openings: dict[str, asyncio.Task[None]] = {}
        self._streams: dict[int, asyncio.Future[tuple[int, bytes]]] = {}
        self._number = 0
        self._listeners: dict[str, Listener] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.pool = OwnedPool(self._loop)
        self._channel = Channel(sock, self._receive, self.ended.set)
        self._neighbours.know(m.CONTROL, self._channel)
        self._reports = Reports(self._channel, self.pool, self._metrics, lambda: self._calls.open)
        self._slot = -1
        self._accepting = False
        self._covered: set[int] = set()
        self._covers: dict[int, list[Callable[[], None]]] = {}
        self._calls: SharedCalls
        self._handlers: dict[type, Callable[[Any, list[int]], object]] = {
            m.Begin: self._begin,
            m.Changed: self._changed,
            m.Tokens: lambda said, _: self._credentials.replace(said.tokens),
            m.Synced: lambda _, __: self._channel.send(m.Listening()),
            m.Owned: self._owned,
            m.Open: self._open,
            m.Stream: self._stream,
            m.NoStream: self._no_stream,
            m.Add: self._add,
            m.Quiesce: self._quiesce,
            m.Remove: self._remove,
            m.Close: lambda said, _: self._start(self._close(said)),
            m.FailWaiting: lambda said, _: self.pool.fail_waiting(said.key, m.uncarry(said.failure)),
            m.Emptied: lambda said, _: self._reports.emptied(said.key, said.reason),
            m.Explained: lambda said, _: self._reports.explained(said.number, said.exit),
            m.Limited: lambda said, _: self._reports.limited(said.number, said.met),
            m.Meet: self._meet,
            m.Moved: self._neighbours.take,
            m.Cover: self._cover,
            m.Uncover: self._uncover,
            m.Hold: self._hold,
            m.Drain: lambda said, _: self._start(self._drain(said.grace)),
            m.Ping: self._ping,
        }

    # -- lend.Owner

    def owns(self, key: RevisionKey) -> bool:
        return self._owners.of(key) == self._slot

    def cold_reason(self, key: RevisionKey) -> ColdReason:
        return self._reports.cold_reason(key)

    # -- serving

    def _receive(self, message: m.Message, fds: list[int]) -> None:
        self._handlers[type(message)](message, fds)

    def _begin(self, said: m.Begin, fds: list[int]) -> None:
        start_logging(said.log_level)
        self._slot = said.slot
        clock = self._clock
        self._calls = SharedCalls(
            place=said.slot,
            owners=self._owners,
            mover=self._neighbours.mover,
            lines=self._neighbours.line,
            router=Router(self._table, random.random),
            admission=SharedAdmission(self._table, self._credentials.authenticate, clock.now, clock.wall, fds[0]),
            pool=self.pool,
            demand=self._reports,
            logs=cast("Logs", self._reports),
            metrics=self._metrics,
            loop=self._loop,
        )
        pairs = tuple(Certificate(Path(cert), Path(key)) for cert, key in said.certificates)
        for plan, fd in zip(said.listeners, fds[1:], strict=True):
            facts = ListenerFacts(name=plan.name, secure=plan.secure, trusted=said.trusted, context=_surfaces(plan))
            listener = self._listeners[plan.name] = Listener(
                self._calls,
                facts,
                sock=socket.socket(fileno=fd),
                certificates=Certificates(pairs) if plan.secure else None,
            )
            self._neighbours.desks[plan.name] = listener.desk

    async def _accept(self) -> None:
        # The table stays; the collector need not look at it again and again.
        gc.freeze()
        for listener in self._listeners.values():
            await listener.start()

    def _changed(self, said: m.Changed, fds: list[int]) -> None:
        obj = said.object
        change = Change(said.version, "delete" if said.deleted else "put", kind_of(obj), obj)
        if isinstance(obj, Token):
            self._credentials.apply(change)
            return
        self._table.apply(change)
        if said.deleted and isinstance(obj, Revision):
            self._reports.forget((obj.meta.namespace, obj.meta.name))
        elif said.deleted and isinstance(obj, Function):
            self._metrics.forget(obj.meta.namespace, obj.meta.name)

    def _meet(self, said: m.Meet, fds: list[int]) -> None:
        sock = socket.socket(fileno=fds[0])
        if said.line == "asks":
            self._neighbours.ask(said.peer, sock, self._calls)
        elif said.line == "answers":
            self._neighbours.answer(sock, self)
        else:
            self._neighbours.meet(said.peer, sock)

    def _owned(self, said: m.Owned, fds: list[int]) -> None:
        """What waits here for a revision that is another's now goes there. Who is named among the living accepts
        connections: from then on control waits for it before it calls a change done."""
        self._owners.set(said.live, said.pins)
        if self._slot in said.live and not self._accepting:
            self._accepting = True
            self._start(self._accept())
        for key in list(self.pool.keys()):
            pool = self.pool.find(key)
            if pool is None or self.owns(key):
                continue
            for waiter in pool.take_waiting():
                if isinstance(waiter, ExpressCall):
                    self._calls.resume(waiter.usual(), True)
                elif isinstance(waiter, Exchange):
                    self._calls.resume(waiter, True)
                else:
                    cast("Loan", waiter).fail(InstanceLost("another worker owns the revision"))
            self._reports.touch(key)
            self.pool.forget(key)

    def _cover(self, said: m.Cover, fds: list[int]) -> None:
        self._covered.add(said.slot)
        self._start(self._accept_for(said.slot, [socket.socket(fileno=fd) for fd in fds]))

    async def _accept_for(self, slot: int, socks: list[socket.socket]) -> None:
        for listener, sock in zip(self._listeners.values(), socks, strict=True):
            server = await listener.also(sock)
            self._covers.setdefault(slot, []).append(functools.partial(listener.no_more, server))
        if slot not in self._covered:
            self._end_covering(slot)

    def _uncover(self, said: m.Uncover, fds: list[int]) -> None:
        self._covered.discard(said.slot)
        self._end_covering(said.slot)

    def _end_covering(self, slot: int) -> None:
        for end in self._covers.pop(slot, []):
            end()

    # -- instances

    def _open(self, said: m.Open, fds: list[int]) -> None:
        task = self._openings[said.instance.id] = self._start(self._opened(said))
        task.add_done_callback(lambda _: self._openings.pop(said.instance.id, None))

    async def _opened(self, said: m.Open) -> None:
        instance = said.instance
        key = (instance.namespace, instance.revision)

        def lost() -> None:
            self._links.pop(instance.id, None)
            self.pool.remove(key, instance.id)
            self._channel.send(m.Lost(instance.id))

        def logged(invocation: str, stream: str, line: bytes) -> None:
            self._reports.write(
                LogLine(
                    at=self._clock.wall(),
                    namespace=instance.namespace,
                    function=instance.function,
                    revision=instance.revision,
                    instance=instance.id,
                    stream="stderr" if stream == "stderr" else "stdout",
                    text=line.decode(errors="replace"),
                    invocation=invocation,
                )
            )

        try:
            link = await self._contracts[instance.protocol].open(
                functools.partial(self._connect, instance.id),
                instance,
                said.template,
                deadline=said.deadline,
                on_lost=lost,
                on_log=logged,
            )
        except SeptetError as error:
            self._channel.send(m.NotOpened(said.number, m.carry(error)))
        except Exception as error:
            failure = PlatformError(f"the instance's link could not be opened: {type(error).__name__}: {error}")
            self._channel.send(m.NotOpened(said.number, m.carry(failure)))
        else:
            self._links[instance.id] = link
            self._channel.send(m.Opened(said.number))

    async def _connect(self, instance: str, factory: ProtocolFactory) -> asyncio.Transport:
        """A stream to the instance, which control has and gives."""
        self._number += 1
        number = self._number
        asked = self._streams[number] = self._loop.create_future()
        self._channel.send(m.Connect(number, instance))
        try:
            fd, early = await asked
        finally:
            self._streams.pop(number, None)
        return await attach(socket.socket(fileno=fd), factory(), early)

    def _stream(self, said: m.Stream, fds: list[int]) -> None:
        asked = self._streams.pop(said.number, None)
        if asked is None or asked.done():
            os.close(fds[0])
        else:
            asked.set_result((fds[0], said.early))

    def _no_stream(self, said: m.NoStream, fds: list[int]) -> None:
        asked = self._streams.pop(said.number, None)
        if asked is not None and not asked.done():
            asked.set_exception(m.uncarry(said.failure))

    def _add(self, said: m.Add, fds: list[int]) -> None:
        """One that was removed, and is back before its last call has ended, takes calls when that has."""
        leaving = self._leaving.get(said.instance)
        if leaving is not None:
            leaving.add_done_callback(lambda _: self._add(said, fds))
            return
        link = self._links.get(said.instance)
        if link is not None:
            self.pool.add(said.key, link, said.concurrency)

    def _remove(self, said: m.Remove, fds: list[int]) -> None:
        pool = self.pool.find(said.key)
        slot = pool.slots.get(said.instance) if pool is not None else None
        self.pool.remove(said.key, said.instance)
        if slot is None or not slot.running:
            self._channel.send(m.Vacated(said.instance))
            return
        task = self._leaving[said.instance] = self._start(self._vacate(said.instance, slot))
        task.add_done_callback(lambda _: self._leaving.pop(said.instance, None))

    async def _vacate(self, instance: str, slot: Slot) -> None:
        while slot.running:  # noqa: ASYNC110  (rare, and the pool tells nobody)
            await asyncio.sleep(VACATE)
        self._channel.send(m.Vacated(instance))

    def _quiesce(self, said: m.Quiesce, fds: list[int]) -> None:
        self.pool.drain(said.key, said.instance)
        self._reports.touch(said.key)
        self._reports.flush()

    async def _close(self, said: m.Close) -> None:
        opening = self._openings.get(said.instance)
        if opening is not None:
            opening.cancel()
        link = self._links.get(said.instance)
        if link is not None:
            await link.close(said.grace)
            self._links.pop(said.instance, None)
        self._channel.send(m.Closed(said.instance))

    def _ping(self, said: m.Ping, fds: list[int]) -> None:
        """Who asks may want to know what happened here, too."""
        self._reports.flush()
        self._channel.send(m.Pong(said.number))

    # -- the end

    def _hold(self, said: m.Hold, fds: list[int]) -> None:
        self._neighbours.mover.held = True

    async def _drain(self, grace: float) -> None:
        """Its own connections end; what it lends to others goes on until control lets go of it."""
        await asyncio.sleep(SETTLE)
        clean = await asyncio.gather(*(listener.drain(grace) for listener in self._listeners.values()))
        self._reports.flush()
        self._channel.send(m.Drained(all(clean)))

    def _start(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _surfaces(plan: m.ListenerPlan) -> Surfaces:
    """A listener's APIs: their calls are served here, their control requests never are."""
    found = []
    for name in plan.apis:
        make = registry.load(registry.APIS, name)
        face = make(cast("Service", None), NativeSettings(version="", ready=lambda: (False, "")), plan.namespace)
        found.append(Surface(name, face.call_routes, face.prefixes, _nowhere))
    return Surfaces(found, frozenset(plan.anonymous))


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("a worker answers no control request")


async def _serve(sock: socket.socket) -> None:
    worker = Worker(sock)
    await worker.ended.wait()


def main() -> None:
    """Serves until the channel ends, whose descriptor is the first argument; the second tells people which it is."""
    # A terminal and a service's supervisor signal all processes; control lets calls end and then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(socket.socket(fileno=int(sys.argv[1]))))
        # Nothing of it outlives control, whatever is still under way.
        os._exit(0)


if __name__ == "__main__":
    main()
