"""Everything that runs, put together: the only place that knows every concrete choice."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import septet
from septet import registry
from septet.apis.native.app import NativeSettings
from septet.apis.native.surface import MakeSurface
from septet.app.host import available_memory, host_memory
from septet.app.workers.calls import SharedCalls
from septet.app.workers.messages import CONTROL, ListenerPlan
from septet.app.workers.rates import SharedAdmission
from septet.app.workers.sockets import SharedAddress
from septet.app.workers.supervisor import Plan, Workers
from septet.app.workers.tokens import SharedCredentials
from septet.app.workers.told import ToldLogs, ToldView
from septet.build.builder import BuildSettings, SourceBuilder
from septet.build.cache import BuildCache
from septet.build.task import TaskRunner
from septet.control.loop import Control
from septet.control.settings import ControlSettings
from septet.control.view import View
from septet.dataplane.admission import Admission
from septet.dataplane.calls import Calls
from septet.dataplane.certificates import Certificate, Certificates
from septet.dataplane.dispatch import ListenerFacts
from septet.dataplane.front import FrontDesk
from septet.dataplane.listener import Listener
from septet.dataplane.metrics import Metrics
from septet.dataplane.pool import InstancePool
from septet.dataplane.router import Router
from septet.dataplane.surfaces import Surface, Surfaces, shared_claims
from septet.dataplane.table import Table
from septet.drivers.blobs.files import FileBlobs
from septet.drivers.blobs.trees import DirectoryTrees
from septet.drivers.clock.system import SystemClock
from septet.drivers.logs.files import FileLogs
from septet.drivers.sandbox.process.driver import ProcessSandbox
from septet.drivers.sandbox.process.settings import ProcessSettings
from septet.drivers.sandbox.process.versions import Versions
from septet.drivers.store.sqlite.store import SqliteStore
from septet.drivers.vault.aesgcm import AesGcmVault, load_key
from septet.model.errors import Unavailable
from septet.model.function import Function
from septet.model.instance import InstanceEvent, InstanceInfo
from septet.model.objects import AnyObject, kind_of
from septet.model.runtime import Runtime
from septet.policy import warm_pool
from septet.ports.contract import Contract
from septet.ports.logs import LogLine, Stream
from septet.ports.sandbox import Sandbox
from septet.ports.signals import RevisionKey
from septet.ports.store import Change
from septet.service.authenticate import Credentials
from septet.service.bootstrap import bootstrap
from septet.service.context import Ports, ServiceSettings
from septet.service.service import Service
from septet.settings import ListenerSettings, Settings

log = logging.getLogger("septet")

MIB = 1024 * 1024
BUILD_MIB = 2048
"""What a build step may use where neither it nor the function says otherwise, on a node that has so much."""


@dataclass
class Platform:
    """Everything that runs, put together."""

    settings: Settings
    clock: SystemClock = field(default_factory=SystemClock)
    ready: bool = False
    stopping: bool = False
    listeners: dict[str, Listener] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)
    workers: Workers | None = None

    async def open(self) -> None:
        """State, drivers, control, data plane; nothing listens yet."""
        data = self.settings.data_dir
        loop = asyncio.get_running_loop()
        self.store = SqliteStore(data / "store.db", self.clock)
        self.admin_token = await bootstrap(self.store, data)
        self.vault = AesGcmVault(load_key(data / "vault.key"))
        self.blobs = FileBlobs(data / "blobs")
        self.trees = DirectoryTrees(data / "trees")
        self.logs = FileLogs(data / "logs", self.clock, limit=self.settings.log_bytes)
        self.runtimes = registry.runtimes()
        self.metrics = Metrics()
        self.pool = InstancePool(loop)
        if self.settings.workers > 1:
            self.workers = Workers(self.settings.workers, self.logs, self.metrics)
        self.table = Table(self.runtimes)
        self.desks: dict[str, FrontDesk] = {}
        level: Literal["none", "full"] = "none" if self.settings.sandbox == "none" else "full"
        self.sandbox = process_sandbox(
            self.runtimes,
            self.trees,
            data / "sandbox",
            self.clock,
            ProcessSettings(
                level=level,
                zygotes=not self.settings.no_zygote,
                pool_size=self._pool_size,
                shared_namespaces=self.settings.shared_namespace,
            ),
        )
        await refuse_without_walls(self.sandbox, level)
        self.tasks = TaskRunner(self.sandbox)
        self.budget = self.settings.memory_budget or host_memory() * 3 // 4
        self._make_control()
        self._make_service()
        self._make_calls(loop)
        await self.sandbox.open(self._on_event, self, self._on_gateway)
        await self.control.start()

    def _pool_size(self, starts: Sequence[float], waiting: int, each: int) -> int:
        """Only memory that no instance may use is given to sandboxes which merely wait."""
        unpromised = self.budget - self.control.fleet.memory()
        room = warm_pool.room(waiting, each / MIB, unpromised, available_memory(), host_memory())
        return warm_pool.size(starts, self.clock.now(), room, self.settings.warm_pool)

    def _make_control(self) -> None:
        builder = SourceBuilder(
            blobs=self.blobs,
            trees=self.trees,
            tasks=self.tasks,
            cache=BuildCache(self.settings.data_dir / "cache" / "builds", self.trees),
            runtimes=self.runtimes,
            salt=Versions(registry.runtime_folder),
            settings=BuildSettings(env=self.settings.build_env, memory=min(BUILD_MIB, self.budget)),
        )
        contracts: dict[str, Contract] = {
            name: registry.load(registry.CONTRACTS, name)() for name in registry.CONTRACTS
        }
        if self.workers is not None:
            contracts.update(self.workers.contracts(tuple(contracts)))
        sandboxes: dict[str, Sandbox] = {"process": self.sandbox}
        self.control = Control(
            self.store,
            sandboxes,
            contracts,
            self.workers.pool if self.workers is not None else self.pool,
            builder,
            self.vault,
            self.trees,
            self.blobs,
            self.logs,
            self.clock,
            self.runtimes,
            ControlSettings(memory=self.budget, keep_alive=self.settings.kept),
            holder=f"node {self.settings.data_dir}",
            # Workers are told of all functions when they start.
            whole=self.workers is not None,
        )
        if self.workers is not None:
            self.control.fleet.freezing.vacated = self.workers.pool.vacated
        self.control.mirror.listen(self._on_change)
        self.control.mirror.read(self._on_read, self._on_drop)
        self.table.attach(lambda namespace, name: self.control.mirror.get(Function, namespace, name))
        self.pool.attach(self.control.scaler)
        builder.attach(self.control.memory)
        facts = (
            self.control.mirror,
            self.control.fleet,
            self.control.scaler,
            sandboxes,
            "process",
            self.budget,
            self.clock,
            self.control.ahead.count,
        )
        self.view = View(*facts) if self.workers is None else ToldView(*facts, settle=self.workers.settle)

    def _make_service(self) -> None:
        self.credentials = (
            SharedCredentials(self.store, self.clock, self.table.touch, self.workers.tell, self.workers.settle)
            if self.workers is not None
            else Credentials(self.store, self.clock, self.table.touch)
        )
        ports = Ports(
            store=self.store,
            blobs=self.blobs,
            trees=self.trees,
            vault=self.vault,
            logs=self.logs if self.workers is None else ToldLogs(self.logs, self.workers.settle),
            clock=self.clock,
            fleet=self.view,
            metrics=self._render_metrics,
        )
        self.service = Service(
            ports,
            ServiceSettings(
                runtimes=self.runtimes,
                base_url=lambda: self.url,
                key_file=self.settings.data_dir / "vault.key",
                temporary=self.settings.data_dir,
                shared_namespaces=self.settings.shared_namespace,
            ),
            self.credentials,
        )
        self.surfaces = {
            listener.name: Surfaces(self._surfaces(listener), frozenset(listener.anonymous))
            for listener in self.settings.listeners()
        }
        self.metrics.gauges(self._gauges)

    def _make_calls(self, loop: asyncio.AbstractEventLoop) -> None:
        authenticate, clock = self.credentials.authenticate, self.clock
        rest: dict[str, Any] = {
            "router": Router(self.table, random.random),
            "pool": self.pool,
            "demand": self.control.scaler,
            "logs": self.logs,
            "metrics": self.metrics,
            "loop": loop,
        }
        workers = self.workers
        if workers is None:
            self.calls = Calls(admission=Admission(self.table, authenticate, clock.now, clock.wall), **rest)
            return
        # Calls that begin here, inside instances for one, are lent places by the workers.
        self.calls = SharedCalls(
            place=CONTROL,
            owners=workers.owners,
            mover=workers.neighbours.mover,
            lines=workers.neighbours.line,
            admission=SharedAdmission(self.table, authenticate, clock.now, clock.wall, workers.memory),
            **rest,
        )
        assert isinstance(self.credentials, SharedCredentials)
        workers.attach(self.control.mirror, self.control.scaler, self.credentials, self.calls)

    def _surfaces(self, listener: ListenerSettings) -> list[Surface]:
        """The APIs of a listener, in its order; InvalidInput for an unknown one."""
        found = []
        for name in listener.apis:
            make: MakeSurface = registry.load(registry.APIS, name)
            native = NativeSettings(
                version=septet.__version__, ready=self._readiness, public_metrics=self.settings.public_metrics
            )
            face = make(self.service, native, listener.namespace)
            found.append(Surface(name, face.call_routes, face.prefixes, face.app))
        for claim in shared_claims(found):
            log.warning("listener %s: %s", listener.name, claim)
        return found

    async def listen(self) -> None:
        """Binds every listener."""
        if self.workers is not None:
            await self._share(self.workers)
            self.ready = True
            return
        pairs = zip(self.settings.tls_cert, self.settings.tls_key, strict=True)
        certificates = tuple(Certificate(Path(cert), Path(key)) for cert, key in pairs)
        for wanted in self.settings.listeners():
            listener = Listener(
                self.calls,
                self._facts(wanted),
                address=wanted.address,
                certificates=Certificates(certificates) if wanted.tls else None,
            )
            await listener.start()
            self.listeners[wanted.name] = listener
            self.urls[wanted.name] = listener.url
        self.ready = True

    def _facts(self, wanted: ListenerSettings) -> ListenerFacts:
        return ListenerFacts(
            name=wanted.name,
            secure=wanted.tls,
            trusted=self.settings.trusted_proxies,
            context=self.surfaces[wanted.name],
        )

    async def _share(self, workers: Workers) -> None:
        """Binds every listener for the workers, and starts these; here only connections arrive that they send."""
        loop = asyncio.get_running_loop()
        plans, addresses = [], []
        for wanted in self.settings.listeners():
            address = SharedAddress(wanted.address, workers.count, wanted.tls)
            addresses.append(address)
            plans.append(ListenerPlan(wanted.name, wanted.apis, wanted.namespace, wanted.anonymous, wanted.tls))
            workers.neighbours.desks[wanted.name] = FrontDesk(loop, self.calls, self._facts(wanted))
            self.urls[wanted.name] = address.url
        pairs = zip(self.settings.tls_cert, self.settings.tls_key, strict=True)
        plan = Plan(
            tuple(plans), tuple(addresses), self.settings.trusted_proxies, tuple(pairs), self.settings.log_level
        )
        await workers.start(plan)

    @property
    def url(self) -> str:
        """Where the main listener is; empty before it is bound."""
        return next(iter(self.urls.values()), "")

    async def close(self) -> None:
        """Lets calls end, then instances, then state."""
        self.stopping = True
        grace = self.settings.drain_timeout
        if self.workers is not None:
            await self.workers.drain(grace, tuple(self.workers.neighbours.desks.values()))
        await asyncio.gather(*(each.drain(grace) for each in self.listeners.values()))
        self.calls.close()
        await self.control.stop()
        await self.sandbox.close()
        if self.workers is not None:
            await self.workers.close()
        await self.logs.close()
        await self.store.close()

    # -- what the store tells

    def _on_read(self, obj: AnyObject) -> None:
        """A function at rest, or a revision of it, was fetched."""
        self.table.learn(obj)
        if self.workers is not None:
            self.workers.changed(Change(obj.meta.resource_version, "put", kind_of(obj), obj))

    def _on_drop(self, function: tuple[str, str], revisions: Sequence[RevisionKey]) -> None:
        """A function at rest was let go: here nothing of it is kept either."""
        self.table.drop(function)
        for key in revisions:
            self.pool.forget(key)

    def _on_change(self, change: Change) -> None:
        self.table.apply(change)
        if self.workers is not None:
            self.workers.changed(change)
        if change.type == "delete" and change.kind == "Revision":
            self.pool.forget((change.obj.meta.namespace, change.obj.meta.name))
        elif change.type == "delete" and change.kind == "Function":
            self.metrics.forget(change.obj.meta.namespace, change.obj.meta.name)

    # -- what drivers tell

    def _on_event(self, event: InstanceEvent) -> None:
        if self.tasks.on_event(event):
            return
        if event.instance.state == "stopped":
            self.desks.pop(event.instance.id, None)
        self.control.fleet.on_event(event)

    def line(self, instance: InstanceInfo, stream: Stream, data: bytes) -> None:
        """Output of an instance (`ports.sandbox.OutputSink`)."""
        if self.tasks.line(instance, data):
            return
        self.logs.write(
            LogLine(
                at=self.clock.wall(),
                namespace=instance.namespace,
                function=instance.function,
                revision=instance.revision,
                instance=instance.id,
                stream=stream,
                text=data.decode("utf-8", "backslashreplace"),
            )
        )

    def _on_gateway(self, instance: InstanceInfo) -> asyncio.Protocol:
        """A connection from inside an instance: its own desk, which knows who is there."""
        desk = self.desks.get(instance.id)
        if desk is None:
            main = next(iter(self.surfaces.values()))
            facts = ListenerFacts(name="inner", context=main.behind(instance))
            desk = self.desks[instance.id] = FrontDesk(asyncio.get_running_loop(), self.calls, facts)
        return desk()

    # -- what is asked of it

    async def _render_metrics(self) -> bytes:
        if self.workers is not None:
            await self.workers.settle()
        return self.metrics.render()

    def _readiness(self) -> tuple[bool, str]:
        if self.stopping:
            return False, "the platform is stopping"
        return self.ready, "" if self.ready else "the platform is starting"

    def _gauges(self) -> list[tuple[str, str, dict[tuple[str, ...], float], tuple[str, ...]]]:
        counts: dict[tuple[str, ...], float] = {}
        for info in self.control.fleet.instances():
            key = (info.namespace, info.function, info.state)
            counts[key] = counts.get(key, 0) + 1
        node = self.view.node()
        return [
            ("septet_instances", "Instances by state.", counts, ("namespace", "function", "state")),
            ("septet_memory_budget_bytes", "Memory that all instances may use.", {(): node.memory_budget * MIB}, ()),
            ("septet_memory_reserved_bytes", "Memory limits of all instances.", {(): node.memory_used * MIB}, ()),
            ("septet_warm_pool", "Prepared sandboxes that wait.", {(): float(self.sandbox.pooled)}, ()),
            (
                "septet_cold_starts_total",
                "Instances by what they were made from.",
                {(tier,): float(count) for tier, count in self.sandbox.starts.items()},
                ("tier",),
            ),
            (
                "septet_thaws_total",
                "Frozen instances that a call woke.",
                {(): float(self.control.fleet.freezing.thaws)},
                (),
            ),
            (
                "septet_prewarms_total",
                "Instances started for a call that was expected.",
                {(): float(self.control.scaler.prewarms)},
                (),
            ),
            (
                "septet_calls_open",
                "Calls that wait or run.",
                {(): float(self.calls.open + (self.workers.open if self.workers is not None else 0))},
                (),
            ),
            (
                "septet_workers",
                "Processes that serve calls.",
                {(): float(self.workers.serving if self.workers is not None else 1)},
                (),
            ),
        ]


def process_sandbox(
    runtimes: Mapping[str, Runtime], trees: DirectoryTrees, state: Path, clock: SystemClock, settings: ProcessSettings
) -> ProcessSandbox:
    driver: ProcessSandbox = registry.load(registry.SANDBOXES, "process")(
        runtimes=runtimes,
        runtime_folder=registry.runtime_folder,
        trees=trees,
        state_dir=state,
        settings=settings,
        clock=clock,
    )
    return driver


async def refuse_without_walls(sandbox: Sandbox, level: str) -> None:
    """A host without the walls is no place for functions, unless the operator says so."""
    if level == "none":
        log.warning("functions run WITHOUT ISOLATION (--sandbox none): run only what you trust")
        return
    checks = await sandbox.probe()
    missing = [check for check in checks if check.state == "missing" and check.required]
    if missing:
        raise Unavailable(
            "this host cannot isolate functions: " + "; ".join(f"{c.name}: {c.detail}" for c in missing),
            hint=f"{missing[0].fix or '`septet doctor` says more'}; `--sandbox none` runs them without isolation",
        )
    if sandbox.capabilities().limits == "best effort":
        log.warning("limits: best effort (no control group can be written to); `septet doctor` says why")
