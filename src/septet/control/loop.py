"""Control as a whole: its parts put together, run under a lease of the store, and run again when one breaks."""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence

from septet.control.ahead import Ahead
from septet.control.birth import Birth
from septet.control.collector import Collector
from septet.control.deployer import Deployer
from septet.control.fleet import Fleet
from septet.control.mirror import Mirror
from septet.control.recollecting import Recollecting
from septet.control.reserving import Reserving
from septet.control.revising import Revising
from septet.control.room import Room
from septet.control.routing import Routing
from septet.control.scaler import Scaler
from septet.control.settings import ControlSettings
from septet.control.status import Statuses
from septet.model.errors import SeptetError, Unavailable
from septet.model.function import Revision
from septet.model.runtime import Runtime
from septet.policy import retry
from septet.ports.blobs import Blobs, Trees, Vault
from septet.ports.builder import Builder
from septet.ports.clock import Clock
from septet.ports.contract import Contract
from septet.ports.logs import Logs
from septet.ports.sandbox import Sandbox
from septet.ports.signals import Pool
from septet.ports.store import Store

log = logging.getLogger("septet.control")

LEASE = "control"


class Control:
    """Makes the world match the model.

    `scaler` is the data plane's `Demand`; `fleet.on_event` is the handler for `Sandbox.open`; `fleet` lists and
    watches instances; `memory` is what the builder asks for its share. Sandboxes are opened before `start` and closed
    after `stop`, by whoever made them.
    """

    def __init__(
        self,
        store: Store,
        sandboxes: Mapping[str, Sandbox],
        contracts: Mapping[str, Contract],
        pool: Pool,
        builder: Builder,
        vault: Vault,
        trees: Trees,
        blobs: Blobs,
        logs: Logs,
        clock: Clock,
        runtimes: Mapping[str, Runtime],
        settings: ControlSettings,
        number: Callable[[], float] = random.random,
        holder: str = "",
        whole: bool = False,
    ) -> None:
        """`whole`: the mirror keeps every function, as those need who hand all of it on."""
        self._store = store
        self._clock = clock
        self._settings = settings
        self._number = number
        # A name that outlives the process lets it take its own lease back at once after a crash.
        self._holder = holder or uuid.uuid4().hex
        self._tasks: list[asyncio.Task[None]] = []
        self._keeper: asyncio.Task[None] | None = None
        self._held_until = 0.0
        self.mirror = Mirror(store, whole=whole)
        self.mirror.spare(self._in_use)
        statuses = Statuses(store, self.mirror)
        birth = Birth(store, self.mirror, sandboxes, contracts, vault, logs, clock, runtimes, settings)
        self.fleet = Fleet(self.mirror, birth, sandboxes, pool, clock, settings)
        self.scaler = Scaler(self.mirror, self.fleet, pool, clock, settings, birth.concurrency, number)
        self._recollecting = Recollecting(store, self.scaler.keeping, self.mirror, clock)
        room = Room(self.mirror, self.fleet, pool, settings)
        self.memory = Reserving(self.fleet, room, self.scaler.evict, clock, settings)
        revising = Revising(
            self.mirror, statuses, birth, builder, blobs, logs, clock, settings, self.scaler.trial, self.scaler.trouble
        )
        self.deployer = Deployer(store, self.mirror, statuses, revising, clock, settings)
        self.ahead = Ahead(self.mirror, self.fleet, birth, sandboxes, settings)
        self.routing = Routing(self.mirror, statuses, clock)
        self.collector = Collector(
            store,
            self.mirror,
            statuses,
            self.fleet,
            self.scaler,
            self.deployer,
            self.routing,
            blobs,
            trees,
            logs,
            clock,
            settings,
        )

    async def start(self) -> None:
        """Takes the lease, reads the store, adopts instances, and begins; returns when that is done."""
        await self._take_lease()
        self._keeper = asyncio.create_task(self._again("lease", self._keep_lease), name="control-lease")
        await self._begin()

    async def stop(self) -> None:
        """Ends the loops, then the instances that no later life can adopt, and gives the lease back."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self._halt()
        await self._recollecting.save()
        await self.fleet.close()
        try:
            await self._store.release(LEASE, self._holder)
        except SeptetError as error:
            log.warning("the lease of control is not given back: %s", error)

    def _in_use(self, revisions: Sequence[Revision]) -> bool:
        keys = [(revision.meta.namespace, revision.meta.name) for revision in revisions]
        return any(self.scaler.remembers(key) or self.fleet.members(key) for key in keys)

    async def _begin(self) -> None:
        self._tasks.append(self._supervise("mirror", self.mirror.run))
        await self.mirror.synced.wait()
        await self._recollecting.load()
        await self.fleet.adopt()
        for name, run in (
            ("scaler", self.scaler.run),
            ("deployer", self.deployer.run),
            ("routing", self.routing.run),
            ("collector", self.collector.run),
            ("recollecting", self._recollecting.run),
        ):
            self._tasks.append(self._supervise(name, run))

    async def _halt(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _take_lease(self) -> None:
        """Waits for the lease as long as it takes."""
        waited = False
        while await self._store.acquire(LEASE, self._holder, self._settings.lease) is None:
            if not waited:
                log.info("another process has the lease of control; waiting for it")
                waited = True
            await self._clock.sleep(self._settings.lease / 10)
        self._held_until = self._clock.now() + self._settings.lease

    async def _keep_lease(self) -> None:
        """Renews the lease; who has lost it, or cannot tell, changes nothing until it is theirs again."""
        while True:
            await self._clock.sleep(self._settings.lease / 3)
            asked = self._clock.now()
            try:
                grant = await self._store.acquire(LEASE, self._holder, self._settings.lease)
            except Unavailable as error:
                log.warning("the lease of control is not renewed: %s", error)
                if asked < self._held_until:
                    continue
                grant = None
            if grant is not None:
                self._held_until = asked + self._settings.lease
                continue
            log.warning("the lease of control is lost; its loops stop")
            await self._halt()
            await self._take_lease()
            await self._begin()

    def _supervise(self, name: str, run: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        return asyncio.create_task(self._again(name, run), name=f"control-{name}")

    async def _again(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """A loop that breaks is run again, later and later while it goes on breaking."""
        failures = 0
        while True:
            began = self._clock.now()
            try:
                await run()
                return
            except SeptetError as error:
                log.warning("the %s loop stopped: %s", name, error)
            except Exception:
                log.exception("the %s loop broke", name)
            lasted = self._clock.now() - began > self._settings.backoff.ceiling
            failures = 1 if lasted else failures + 1
            await self._clock.sleep(retry.delay(failures, self._settings.backoff, self._number()))
