"""Control's view of instances whose links are in workers: its pool, its contracts, its links."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, cast

from septet.app.workers.handover import descriptor
from septet.app.workers.messages import (
    Add,
    Close,
    Emptied,
    FailWaiting,
    Message,
    NoStream,
    Open,
    Quiesce,
    Remove,
    RevisionLoad,
    SlotLoad,
    Stream,
    carry,
)
from septet.model.errors import InstanceLost, SeptetError, StartFailed, Unavailable
from septet.model.function import FunctionTemplate
from septet.model.instance import InstanceInfo
from septet.ports.contract import Connect, Link, LogHandler, Reply, RequestHead, Upload
from septet.ports.signals import Demand, Load, RevisionKey

CLOSING = 2.0
"""Seconds beyond its grace that a link may take to be closed."""


class Crew(Protocol):
    """The workers, as instances see them."""

    def owner(self, key: RevisionKey) -> int:
        """The number of the worker that owns the revision; NOBODY when none lives."""
        ...

    def send(self, slot: int, message: Message, *fds: int) -> bool:
        """False when that worker is gone."""
        ...

    async def settle(self) -> None:
        """Returns when all that was sent to workers until now is in effect."""
        ...

    async def available(self) -> None:
        """Returns when a worker serves."""
        ...


class RemoteLink:
    """A link that a worker has; `lost` when it is no more."""

    def __init__(self, instance: InstanceInfo, connect: Connect, slot: int, on_lost: Callable[[], None]) -> None:
        self.instance = instance
        self.connect = connect
        self.slot = slot
        self.lost = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed = asyncio.Event()
        self.on_lost = on_lost
        self.close: Callable[[float], Awaitable[None]]

    @property
    def key(self) -> RevisionKey:
        return (self.instance.namespace, self.instance.revision)

    def begin(self, head: RequestHead, reply: Reply) -> Upload:
        raise InstanceLost("the instance's link is in another process")


class Links:
    """All links that workers have, and what they ask for them."""

    def __init__(self, crew: Crew, on_change: Callable[[RevisionKey], None]) -> None:
        self._crew = crew
        self._on_change = on_change
        self._links: dict[str, RemoteLink] = {}
        self._numbers: dict[int, RemoteLink] = {}
        self._count = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    def owners(self) -> dict[RevisionKey, int]:
        """Which worker has links of which revision."""
        return {link.key: link.slot for link in self._links.values()}

    def slot(self, instance: str) -> int | None:
        link = self._links.get(instance)
        return link.slot if link else None

    async def open(
        self,
        connect: Connect,
        instance: InstanceInfo,
        template: FunctionTemplate,
        deadline: float,
        on_lost: Callable[[], None],
    ) -> Link:
        """The owner opens it. Raises what its contract raises, and StartFailed when the owner ends meanwhile."""
        await self._crew.available()
        key = (instance.namespace, instance.revision)
        link = RemoteLink(instance, connect, self._crew.owner(key), on_lost)
        link.close = lambda grace: self._close(link, grace)
        number = next(self._count)
        self._links[instance.id] = self._numbers[number] = link
        try:
            if not self._crew.send(link.slot, Open(number, instance, template, deadline)):
                raise StartFailed("the worker that was to open the instance's link ended")
            await link.opened
        except BaseException:
            self._drop(link)
            self._crew.send(link.slot, Close(instance.id, 0.0))
            raise
        finally:
            self._numbers.pop(number, None)
        return cast("Link", link)

    # -- from workers

    def opened(self, number: int, error: SeptetError | None) -> None:
        link = self._numbers.get(number)
        if link is None or link.opened.done():
            return
        if error is None:
            link.opened.set_result(None)
        else:
            link.opened.set_exception(error)

    def lost(self, instance: str) -> None:
        link = self._links.get(instance)
        if link is not None:
            self._drop(link)
            link.on_lost()

    def closed(self, instance: str) -> None:
        link = self._links.get(instance)
        if link is not None:
            self._drop(link)

    def died(self, slot: int) -> None:
        """The worker is gone, and what it had with it."""
        for link in [link for link in self._links.values() if link.slot == slot]:
            if not link.opened.done():
                link.opened.set_exception(StartFailed("the worker that opened the instance's link ended"))
                continue
            self._drop(link)
            link.on_lost()

    def stream(self, slot: int, number: int, instance: str) -> None:
        """A worker asks for a stream to an instance."""
        task = asyncio.get_running_loop().create_task(self._stream(slot, number, instance))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- inside

    async def _stream(self, slot: int, number: int, instance: str) -> None:
        link = self._links.get(instance)
        try:
            if link is None or link.slot != slot:
                raise InstanceLost("the instance is gone")
            grab = Grab()
            transport = await link.connect(lambda: grab)
            fd = None
            if not grab.lost:
                transport.pause_reading()
                fd = descriptor(transport)
            transport.abort()
            if fd is None:
                raise InstanceLost("the stream ended as soon as it began")
            self._crew.send(slot, Stream(number, grab.early), fd)
        except SeptetError as error:
            self._crew.send(slot, NoStream(number, carry(error)))

    async def _close(self, link: RemoteLink, grace: float) -> None:
        if link.lost or not self._crew.send(link.slot, Close(link.instance.id, grace)):
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(link.closed.wait(), grace + CLOSING)
        self._drop(link)

    def _drop(self, link: RemoteLink) -> None:
        if link.lost:
            return
        link.lost = True
        link.closed.set()
        self._links.pop(link.instance.id, None)
        self._on_change(link.key)


class Grab(asyncio.Protocol):
    """Holds a stream until its descriptor is taken."""

    def __init__(self) -> None:
        self.early = b""
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.early += data

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = True


class RemoteContract:
    """Implements `ports.contract.Contract`: the revision's owner opens the links."""

    def __init__(self, name: str, links: Links) -> None:
        self.name = name
        self._links = links

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
        return await self._links.open(connect, instance, template, deadline, on_lost)

    async def specialise(self, link: Link, template: FunctionTemplate, artifact: str, *, deadline: float) -> Link:
        raise Unavailable("instances of this platform are made for one function", hint="start a new instance")


class Tallied:
    """What is known of one revision: calls now, and concurrency times seconds since the last sample."""

    def __init__(self, now: float) -> None:
        self.slot = -1
        self.area = 0.0
        self.arrived = 0.0
        self.waiting = 0
        self.running = 0
        self.told_at = now
        self.sampled_at = now


class Placed:
    """One instance in a worker's pool. `leaving`: it was asked to take no more calls."""

    def __init__(self, slot: int, now: float) -> None:
        self.slot = slot
        self.running = 0
        self.idle_since: float | None = now
        self.leaving = False
        self.left = False


class RemotePool:
    """Implements `ports.signals.Pool` over what workers were told and tell."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._loop = asyncio.get_running_loop()
        self._tallied: dict[RevisionKey, Tallied] = {}
        self._placed: dict[str, Placed] = {}
        self._leaving: dict[str, tuple[int, asyncio.Event]] = {}
        self._demand: Demand | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def attach(self, demand: Demand) -> None:
        self._demand = demand

    # -- Pool

    def add(self, key: RevisionKey, link: Link, concurrency: int) -> None:
        assert isinstance(link, RemoteLink)
        if link.lost:
            self._loop.call_soon(link.on_lost)
            return
        self._placed[link.instance.id] = Placed(link.slot, self._loop.time())
        self._crew.send(link.slot, Add(key, link.instance.id, concurrency))

    def drain(self, key: RevisionKey, instance: str) -> bool:
        placed = self._placed.get(instance)
        if placed is None:
            return True
        if not placed.leaving:
            placed.leaving = True
            self._start(self._quiesce(key, instance, placed))
        return placed.left and not placed.running

    def remove(self, key: RevisionKey, instance: str) -> None:
        placed = self._placed.pop(instance, None)
        if placed is not None:
            if self._crew.send(placed.slot, Remove(key, instance)):
                self._leaving[instance] = (placed.slot, asyncio.Event())
            # By then whoever removes it knows why.
            self._loop.call_soon(self._tell_reason, key)

    def idle_since(self, key: RevisionKey, instance: str) -> float | None:
        placed = self._placed.get(instance)
        return placed.idle_since if placed is not None and not self.running(key, instance) else None

    def running(self, key: RevisionKey, instance: str) -> int:
        placed = self._placed.get(instance)
        if placed is None:
            return 0
        # Until its worker says that it takes no more, a call may be on its way to it.
        return placed.running or int(placed.leaving and not placed.left)

    def sample(self, key: RevisionKey) -> Load:
        tallied = self._of(key)
        now = self._loop.time()
        busy = tallied.running + tallied.waiting
        tail = busy * max(0.0, now - tallied.told_at)
        span = now - tallied.sampled_at
        load = Load(
            average=max(0.0, tallied.area + tail) / span if span > 0 else float(busy),
            rate=tallied.arrived / span if span > 0 else 0.0,
            waiting=tallied.waiting,
            running=tallied.running,
        )
        # What the worker tells next includes the tail.
        tallied.area = -tail
        tallied.arrived = 0.0
        tallied.sampled_at = now
        return load

    def fail_waiting(self, key: RevisionKey, error: SeptetError) -> int:
        tallied = self._of(key)
        self._crew.send(self._crew.owner(key), FailWaiting(key, carry(error)))
        count, tallied.waiting = tallied.waiting, 0
        return count

    async def vacated(self, instance: str) -> None:
        """Returns when no call is in an instance that was removed: one may have come to it in the meantime."""
        leaving = self._leaving.get(instance)
        if leaving is not None:
            await leaving[1].wait()

    # -- from workers

    def empty(self, instance: str) -> None:
        """A worker says that an instance which was removed has no call in it."""
        leaving = self._leaving.pop(instance, None)
        if leaving is not None:
            leaving[1].set()

    def told(self, slot: int, load: RevisionLoad) -> None:
        """What a worker says of a revision; one in whose queue calls wait wants instances."""
        tallied = self._of(load.key)
        if slot not in (tallied.slot, self._crew.owner(load.key)):
            return
        tallied.slot = slot
        tallied.area += load.area
        tallied.arrived += load.arrived
        tallied.waiting, tallied.running = load.waiting, load.running
        tallied.told_at = self._loop.time()
        for each in load.slots:
            self._told_of(slot, each)
        if load.waiting and self._demand is not None:
            self._demand.wanted(load.key)

    def forget(self, key: RevisionKey) -> None:
        self._tallied.pop(key, None)

    def died(self, slot: int) -> None:
        for instance in [name for name, (held, _) in self._leaving.items() if held == slot]:
            self.empty(instance)
        for tallied in self._tallied.values():
            if tallied.slot == slot:
                tallied.waiting = tallied.running = 0

    # -- inside

    def _told_of(self, slot: int, load: SlotLoad) -> None:
        placed = self._placed.get(load.instance)
        if placed is not None and placed.slot == slot:
            placed.running = load.running
            placed.idle_since = None if load.running else load.idle_since
            placed.left = load.draining

    async def _quiesce(self, key: RevisionKey, instance: str, placed: Placed) -> None:
        """First every worker goes by the table in which the instance is not wanted any more, or a call that was
        routed by the old one would come too late."""
        await self._crew.settle()
        if not self._crew.send(placed.slot, Quiesce(key, instance)):
            placed.left = True

    def _tell_reason(self, key: RevisionKey) -> None:
        reason = self._demand.cold_reason(key) if self._demand is not None else "burst"
        if reason != "burst":
            self._crew.send(self._crew.owner(key), Emptied(key, reason))

    def _of(self, key: RevisionKey) -> Tallied:
        tallied = self._tallied.get(key)
        if tallied is None:
            tallied = self._tallied[key] = Tallied(self._loop.time())
        return tallied

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
