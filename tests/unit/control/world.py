"""Control, the real pool, and a data plane reduced to picking a revision by traffic."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine
from typing import Any, cast

import msgspec
from fakes import (
    SMALL,
    Call,
    FakeBuilder,
    FakeContract,
    FakeLogs,
    FakeSandbox,
    FakeStorage,
    FakeVault,
    LoopClock,
    VirtualLoop,
)
from memory_store import MemoryStore

from septet.control.loop import Control
from septet.control.mirror import Mirror
from septet.control.settings import ControlSettings
from septet.dataplane.pool import InstancePool
from septet.model.errors import NotFound
from septet.model.function import Function, FunctionSpec, FunctionTemplate, Revision, Scale, TrafficTarget
from septet.model.meta import Condition, Meta
from septet.model.objects import Namespace, NamespaceSpec, Quota
from septet.model.runtime import Runtime
from septet.policy import traffic

RUNTIME = Runtime(
    name="python", command=("{interpreter}", "{runtime}/shim.py", "{code}", "{handler}"), handler="handler.handle"
)
SERVER = Runtime(name="http", protocol="frames", start_from_spec=True, concurrency=-1)


class World:
    def __init__(self, adopt: bool = False) -> None:
        self.clock = LoopClock()
        self.store = MemoryStore(wall=self.clock.wall)
        self.sandbox = FakeSandbox(adopt)
        self.contract = FakeContract()
        self.builder = FakeBuilder()
        self.vault = FakeVault()
        self.blobs = FakeStorage()
        self.trees = FakeStorage()
        self.logs = FakeLogs()
        self.pool = InstancePool(asyncio.get_running_loop())
        self.random = random.Random(7)
        self.settings: dict[str, Any] = {}
        self.control: Control | None = None
        self._calls: list[Call] = []

    async def start(self, **settings: Any) -> None:
        self.settings = settings or self.settings
        loose: dict[str, Any] = {
            "builder": self.builder,
            "vault": self.vault,
            "trees": self.trees,
            "blobs": self.blobs,
            "logs": self.logs,
        }
        self.control = Control(
            self.store,
            {"process": cast("Any", self.sandbox)},
            {"frames": cast("Any", self.contract)},
            self.pool,
            clock=self.clock,
            runtimes={"python": RUNTIME, "http": SERVER},
            settings=ControlSettings(**self.settings),
            number=self.random.random,
            **loose,
        )
        self.pool.attach(self.control.scaler)
        await self.sandbox.open(self.control.fleet.on_event, None, None)
        await self.control.start()

    async def stop(self) -> None:
        if self.control is not None:
            control, self.control = self.control, None
            await control.stop()
        await self.store.close()

    # -- desired state

    async def namespace(self, name: str = "default", **quota: Any) -> None:
        await self.store.create(Namespace(meta=Meta(name=name), spec=NamespaceSpec(quota=Quota(**quota))))

    async def apply(self, name: str, *, namespace: str = "default", **changes: Any) -> Function:
        """Creates or changes a function: keywords of the spec, of its template, or of its scale or limits."""
        key = ("Function", namespace, name)
        old = self.store.objects.get(key)
        spec = (
            cast("Function", old).spec
            if old
            else FunctionSpec(template=FunctionTemplate(runtime="python", source="sha256:one", limits=SMALL))
        )
        for field, value in changes.items():
            spec = _changed(spec, field, value)
        if old is None:
            made = await self.store.create(Function(meta=Meta(name=name, namespace=namespace), spec=spec))
        else:
            meta = msgspec.structs.replace(old.meta, resource_version=0)
            made = await self.store.update(msgspec.structs.replace(cast("Function", old), meta=meta, spec=spec))
        return cast("Function", made)

    async def deploy(self, name: str, **changes: Any) -> Function:
        """As `apply`, and waits until the function is ready, or is said not to be."""
        function = await self.apply(name, **changes)
        return await self.settled(name, function.meta.generation, function.meta.namespace)

    async def settled(self, name: str, generation: int, namespace: str = "default", within: float = 700.0) -> Function:
        def done() -> bool:
            ready = condition(self.function(name, namespace), "Ready")
            return ready is not None and ready.status is not None and ready.observed_generation >= generation

        await self.until(done, within)
        return self.function(name, namespace)

    async def until(self, true: Callable[[], bool], within: float = 60.0) -> None:
        deadline = self.clock.now() + within
        while not true():
            assert self.clock.now() < deadline, "it did not come true in time"
            await asyncio.sleep(0.01)

    @property
    def mirror(self) -> Mirror:
        assert self.control is not None
        return self.control.mirror

    def function(self, name: str, namespace: str = "default") -> Function:
        return cast("Function", self.store.objects[("Function", namespace, name)])

    def revision(self, name: str, namespace: str = "default") -> Revision:
        return cast("Revision", self.store.objects[("Revision", namespace, name)])

    def has(self, kind: str, name: str, namespace: str = "default") -> bool:
        return (kind, namespace, name) in self.store.objects

    # -- calls

    def call(
        self, name: str, seconds: float = 0.01, namespace: str = "default", then: Callable[[Call], None] | None = None
    ) -> Call:
        """One call, to a revision picked by the traffic in force."""
        made = Call(seconds, then)
        self._calls.append(made)
        targets = self.function(name, namespace).status.traffic
        revision = traffic.pick(targets, self.random.random())
        if not revision:
            made.fail(NotFound("no revision serves"))
            return made
        limits = self.revision(revision, namespace).spec.template.limits
        self.pool.of((namespace, revision)).submit(made, limits)
        return made

    def clients(self, name: str, count: int, seconds: float, until: float) -> list[Call]:
        """A closed loop: `count` clients, each calling again as soon as it is answered; all calls are returned."""
        made: list[Call] = []

        def again(_: Call | None = None) -> None:
            if self.clock.now() < until:
                asyncio.get_running_loop().call_soon(lambda: made.append(self.call(name, seconds, then=again)))

        for _ in itertools.repeat(None, count):
            again()
        return made

    def ready(self, revision: str = "", namespace: str = "default") -> int:
        assert self.control is not None
        return sum(
            1
            for info in self.control.fleet.instances(namespace)
            if info.state == "ready" and revision in ("", info.revision)
        )


def virtual(test: Callable[[World], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Runs a test on virtual time, with a world that is stopped afterwards."""

    async def scenario() -> None:
        world = World()
        try:
            await test(world)
        finally:
            await world.stop()

    def run() -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(scenario())

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


def condition(function: Function | Revision, type: str) -> Condition | None:
    return next((c for c in function.status.conditions if c.type == type), None)


def _changed(spec: FunctionSpec, field: str, value: Any) -> FunctionSpec:
    if field in FunctionSpec.__struct_fields__:
        return msgspec.structs.replace(spec, **{field: value})
    template = spec.template
    if field == "percent":
        targets = tuple(TrafficTarget(percent=p, revision=r) for r, p in value.items())
        return msgspec.structs.replace(spec, traffic=targets)
    if field in FunctionTemplate.__struct_fields__:
        template = msgspec.structs.replace(template, **{field: value})
    elif field in Scale.__struct_fields__:
        template = msgspec.structs.replace(template, scale=msgspec.structs.replace(template.scale, **{field: value}))
    else:
        template = msgspec.structs.replace(template, limits=msgspec.structs.replace(template.limits, **{field: value}))
    return msgspec.structs.replace(spec, template=template)
