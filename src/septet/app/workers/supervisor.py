"""All workers: started, told, listened to, started again when they die, and drained at the end."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from septet.app.workers import messages as m
from septet.app.workers.calls import SharedCalls
from septet.app.workers.channel import pair
from septet.app.workers.handle import WorkerHandle
from septet.app.workers.neighbours import Neighbours
from septet.app.workers.owners import Owners
from septet.app.workers.rates import make_memory
from septet.app.workers.remote import Links, RemoteContract, RemotePool
from septet.app.workers.sockets import SharedAddress
from septet.app.workers.tokens import SharedCredentials
from septet.dataplane.desk import Desk
from septet.dataplane.listener import drain
from septet.dataplane.metrics import Metrics, Series
from septet.model.errors import Unavailable
from septet.model.function import Function, Revision
from septet.model.instance import InstanceExit, LimitMet
from septet.model.objects import AnyObject, Namespace, Route
from septet.ports.logs import Logs
from septet.ports.signals import Demand, RevisionKey
from septet.ports.store import Change

log = logging.getLogger("septet.workers")

KINDS: tuple[type[AnyObject], ...] = (Namespace, Function, Revision, Route)
"""What calls depend on, besides tokens."""
NAMES = frozenset(kind.__name__ for kind in KINDS)
BATCH = 256
BACKLOG = 4 * 1024 * 1024
PAUSE = 0.005
"""A worker that begins is told no more while it has so many bytes to take in; it is looked at so often (seconds)."""
STARTED = 60.0
"""Seconds that the first workers may take until they serve."""
LONG = 5.0
"""A worker that lived so many seconds is started again at once, others later and later."""
LATEST = 5.0
ATTEMPTS = 3
"""After so many short lives in a row at its start the platform gives up."""
GRACE = 5.0
"""Seconds beyond the drain timeout until a worker that does not end is killed."""


class Objects(Protocol):
    """The mirror, as workers need it."""

    def all(self, kind: type[Any]) -> Iterator[Any]: ...

    def get(self, kind: type[Any], namespace: str, name: str) -> Any: ...


@dataclass(frozen=True)
class Plan:
    """What all workers begin with; `addresses` in the order of `listeners`."""

    listeners: tuple[m.ListenerPlan, ...]
    addresses: tuple[SharedAddress, ...]
    trusted: tuple[str, ...]
    certificates: tuple[tuple[str, str], ...]
    log_level: str


class Workers:
    """Implements `remote.Crew`. Made first, since control's pool and contracts are its; told of the rest by
    `attach`, and started once all else runs."""

    def __init__(self, count: int, logs: Logs, metrics: Metrics) -> None:
        self.count = count
        self.memory = make_memory()
        self.owners = Owners()
        self.neighbours = Neighbours()
        self.links = Links(self, self._links_changed)
        self.pool = RemotePool(self)
        self._logs = logs
        self._metrics = metrics
        self._handles: dict[int, WorkerHandle] = {}
        self._serving = asyncio.Event()
        self._all_serving = asyncio.Event()
        self._hopeless = asyncio.Event()
        self._stopping = False
        self._keepers: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failed = ""
        self._away: set[int] = set()
        self._covers: dict[int, int] = {}
        self._plan: Plan
        self._objects: Objects
        self._demand: Demand
        self._credentials: SharedCredentials
        self._calls: SharedCalls
        self._unpinned = False

    def contracts(self, names: Sequence[str]) -> Mapping[str, RemoteContract]:
        return {name: RemoteContract(name, self.links) for name in names}

    def attach(self, objects: Objects, demand: Demand, credentials: SharedCredentials, calls: SharedCalls) -> None:
        self._objects, self._demand, self._credentials, self._calls = objects, demand, credentials, calls
        self.pool.attach(demand)

    # -- Crew

    def owner(self, key: RevisionKey) -> int:
        return self.owners.of(key)

    def send(self, slot: int, message: m.Message, *fds: int) -> bool:
        handle = self._handles.get(slot)
        if handle is None or handle.channel.closed:
            for fd in fds:
                os.close(fd)
            return False
        handle.send(message, fds)
        return True

    async def settle(self) -> None:
        await asyncio.gather(*(handle.ping() for handle in self._live()))

    async def available(self) -> None:
        await self._serving.wait()

    # -- life

    async def start(self, plan: Plan) -> None:
        """Returns when all serve. Raises Unavailable when one cannot be brought to."""
        self._plan = plan
        self._keepers = [asyncio.create_task(self._keep(slot)) for slot in range(self.count)]
        hopes = [asyncio.create_task(event.wait()) for event in (self._all_serving, self._hopeless)]
        await asyncio.wait(hopes, timeout=STARTED, return_when=asyncio.FIRST_COMPLETED)
        for hope in hopes:
            hope.cancel()
        if not self._all_serving.is_set():
            raise Unavailable(f"the workers do not serve: {self._failed or f'not after {STARTED:g} s'}")

    @property
    def serving(self) -> int:
        return len(self._live())

    @property
    def open(self) -> int:
        """Calls that wait or run for clients of workers."""
        return sum(handle.open for handle in self._handles.values())

    def tell(self, message: m.Message) -> None:
        """To all workers, those that begin included."""
        for handle in self._handles.values():
            handle.send(message)

    def changed(self, change: Change) -> None:
        """What the store tells; tokens take another way."""
        if change.kind in NAMES:
            self.tell(m.Changed(change.version, change.type == "delete", change.obj))
        if change.kind == "Revision" and change.type == "delete":
            self.pool.forget((change.obj.meta.namespace, change.obj.meta.name))

    async def drain(self, grace: float, desks: Sequence[Desk]) -> None:
        """No new connections; those that are there end, in workers and at `desks`."""
        self._stopping = True
        for address in self._plan.addresses if self._keepers else ():
            address.close()
        self.neighbours.mover.held = True
        self.tell(m.Hold())
        await self.settle()
        self.tell(m.Drain(grace))
        ended = [handle.drained for handle in self._handles.values()]
        await asyncio.gather(*(drain(desk, grace) for desk in desks))
        if ended:
            await asyncio.wait(ended, timeout=grace + GRACE)

    async def close(self) -> None:
        """Ends the processes."""
        self._stopping = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(handle.stop(GRACE) for handle in self._handles.values()))
        self._handles.clear()

    async def _keep(self, slot: int) -> None:
        """One worker after the other in this place."""
        loop = asyncio.get_running_loop()
        failures = 0
        while not self._stopping:
            began = loop.time()
            handle = self._handles[slot] = WorkerHandle(slot, self._receive, self._gone)
            try:
                await handle.start()
                await self._introduce(handle)
                watch = asyncio.create_task(handle.watch())
                how = await handle.wait()
                watch.cancel()
            except OSError as error:
                handle.channel.close()
                how = f"at once: {error}"
            if self._stopping:
                return
            self._failed = f"worker {slot} ended {how}"
            failures = 0 if loop.time() - began > LONG else failures + 1
            if failures >= ATTEMPTS:
                self._hopeless.set()
            log.warning("worker %d ended %s; another one takes its place", slot, how)
            if failures > 1:
                await asyncio.sleep(min(0.1 * 2**failures, LATEST))

    async def _introduce(self, handle: WorkerHandle) -> None:
        """Tells a new worker all that there is, in parts, while changes go to it as they come."""
        plan, objects = self._plan, self._objects
        begin = m.Begin(handle.slot, plan.listeners, plan.trusted, plan.certificates, plan.log_level)
        handle.send(begin, [os.dup(self.memory), *(address.copy(handle.slot) for address in plan.addresses)])
        handle.send(self._credentials.all())
        for kind in KINDS:
            keys = [(obj.meta.namespace, obj.meta.name) for obj in objects.all(kind)]
            for at, key in enumerate(keys):
                # As it is now, and not as it was when the list was made: a change may have been told since.
                obj = objects.get(kind, *key)
                if obj is not None:
                    handle.send(m.Changed(obj.meta.resource_version, False, obj))
                if at % BATCH == BATCH - 1:
                    await asyncio.sleep(0)
                    while handle.channel.backlog > BACKLOG and not handle.channel.closed:  # noqa: ASYNC110
                        await asyncio.sleep(PAUSE)
        handle.send(m.Synced())

    # -- from workers

    def _receive(self, handle: WorkerHandle, message: m.Message, fds: list[int]) -> None:
        slot = handle.slot
        if isinstance(message, m.Loads):
            handle.open = message.open
            for load in message.revisions:
                self.pool.told(slot, load)
        elif isinstance(message, m.Told):
            self._told(message)
        elif isinstance(message, m.Wanted):
            self.pool.told(slot, message.load)
            self._demand.wanted(message.load.key)
        elif isinstance(message, m.Moved):
            self.neighbours.mover.take(message, fds[0])
        elif isinstance(message, m.Connect):
            self.links.stream(slot, message.number, message.instance)
        elif isinstance(message, m.Opened):
            self.links.opened(message.number, None)
        elif isinstance(message, m.NotOpened):
            self.links.opened(message.number, m.uncarry(message.failure))
        elif isinstance(message, m.Lost):
            self.links.lost(message.instance)
        elif isinstance(message, m.Vacated):
            self.pool.empty(message.instance)
        elif isinstance(message, m.Closed):
            self.links.closed(message.instance)
        elif isinstance(message, m.Explain):
            self._explain(handle, message)
        elif isinstance(message, m.AskLimits):
            self._ask_limits(handle, message)
        elif isinstance(message, m.Listening):
            self._listening(handle)

    def _told(self, told: m.Told) -> None:
        for record in told.records:
            self._logs.record(record)
        for function, encoded in told.encoded:
            self._logs.record_encoded(function, encoded)
        for line in told.lines:
            self._logs.write(line)
        for tally in told.tallies:
            grown = Series()
            grown.status, grown.cold = tally.status, tally.cold
            grown.errors, grown.timeouts = tally.errors, tally.timeouts
            grown.bytes_in, grown.bytes_out = tally.bytes_in, tally.bytes_out
            self._metrics.merge(tally.key, grown)

    def _explain(self, handle: WorkerHandle, asked: m.Explain) -> None:
        def told(exit: InstanceExit | None) -> None:
            handle.send(m.Explained(asked.number, exit))

        self._demand.explain(asked.instance, told)

    def _ask_limits(self, handle: WorkerHandle, asked: m.AskLimits) -> None:
        def told(met: tuple[LimitMet, ...]) -> None:
            handle.send(m.Limited(asked.number, met))

        self._demand.limits(asked.instance, asked.age, told)

    def _listening(self, handle: WorkerHandle) -> None:
        """It serves: all others get their lines to it, and revisions their owners anew."""
        handle.listening = True
        self.neighbours.know(handle.slot, handle.channel)
        mine, theirs = pair()
        handle.send(m.Meet(m.CONTROL, "answers"), [theirs.detach()])
        self.neighbours.ask(handle.slot, mine, self._calls)
        for other in self._live():
            if other is not handle:
                self._join(handle, other)
        self._announce()
        self._back(handle.slot)
        self._cover()
        self._serving.set()
        if self.serving == self.count:
            self._all_serving.set()

    def _join(self, one: WorkerHandle, two: WorkerHandle) -> None:
        for asking, answering in ((one, two), (two, one)):
            asks, answers = pair()
            asking.send(m.Meet(answering.slot, "asks"), [asks.detach()])
            answering.send(m.Meet(asking.slot, "answers"), [answers.detach()])
        here, there = pair()
        one.send(m.Meet(two.slot, "moves"), [here.detach()])
        two.send(m.Meet(one.slot, "moves"), [there.detach()])

    def _gone(self, handle: WorkerHandle) -> None:
        """Its revisions are others' now, and its instances are replaced."""
        served, handle.listening = handle.listening, False
        handle.open = 0
        self.neighbours.forget(handle.slot)
        if not self._live():
            self._serving.clear()
        self._announce()
        self.pool.died(handle.slot)
        self.links.died(handle.slot)
        if served:
            self._away.add(handle.slot)
        self._cover()

    # -- whose connections somebody else accepts meanwhile

    def _cover(self) -> None:
        """Each worker that is away has another one that accepts for it: the least busy."""
        live = {handle.slot: handle for handle in self._live()}
        for slot in self._away:
            if live and self._covers.get(slot) not in live and not self._stopping:
                chosen = min(live.values(), key=lambda handle: handle.open)
                self._covers[slot] = chosen.slot
                chosen.send(m.Cover(slot), [address.copy(slot) for address in self._plan.addresses])

    def _back(self, slot: int) -> None:
        self._away.discard(slot)
        covering = self._covers.pop(slot, None)
        if covering is not None:
            self.send(covering, m.Uncover(slot))

    # -- who owns what

    def _announce(self) -> None:
        live = tuple(handle.slot for handle in self._live())
        self.owners.set(live)
        pins = {
            key: slot for key, slot in self.links.owners().items() if slot in live and self.owners.natural(key) != slot
        }
        self.owners.set(live, pins.items())
        self.tell(m.Owned(live, tuple(pins.items())))

    def _links_changed(self, key: RevisionKey) -> None:
        """A revision that stayed for its instances goes to its natural owner when the last one is gone."""
        if key in self.owners.pins and not self._unpinned:
            self._unpinned = True
            asyncio.get_running_loop().call_soon(self._unpin)

    def _unpin(self) -> None:
        self._unpinned = False
        known = self.links.owners()
        if not self._stopping and any(key not in known for key in self.owners.pins):
            self._announce()

    def _live(self) -> list[WorkerHandle]:
        return [handle for handle in self._handles.values() if handle.listening and not handle.channel.closed]
