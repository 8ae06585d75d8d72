"""Functions that nothing is left to be done for: they cost nothing, and nothing of them is lost."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
from memory_store import MemoryStore
from world import World, condition, virtual

from septet.control.collector import FINALIZER
from septet.control.mirror import Mirror
from septet.control.revising import REDEPLOY
from septet.dataplane.table import Table
from septet.model.function import Function, FunctionSpec, FunctionTemplate, Revision, RevisionSpec, TrafficTarget
from septet.model.meta import Meta, OwnerReference
from septet.model.objects import AnyObject, Route, RouteMatch, RouteSpec, RouteTarget
from septet.ports.store import Change

replace = msgspec.structs.replace
MANY = 2000


async def restart(world: World, meanwhile: Any = None) -> None:
    """As a kill: what control had in memory is gone."""
    assert world.control is not None
    control, world.control = world.control, None
    await control.stop()
    if meanwhile is not None:
        await meanwhile()
    await world.start()


async def at_rest(world: World) -> None:
    await world.until(lambda: not world.store.open and not world.mirror.awake(), 120)


async def copies(store: MemoryStore, count: int, function: Function, revision: Revision) -> None:
    """Settled functions, as deploys leave them."""
    for number in range(count):
        name = f"copy{number}"
        made = cast("Function", await store.create(replace(function, meta=Meta(name=name, namespace="default"))))
        owner = OwnerReference(kind="Function", name=name, uid=made.meta.uid)
        meta = Meta(name=f"{name}-00001", namespace="default", owner=owner)
        spec = replace(revision.spec, function=name, function_uid=made.meta.uid)
        await store.create(replace(revision, meta=meta, spec=spec))
        traffic = (TrafficTarget(percent=100, revision=meta.name),)
        status = replace(function.status, latest_created=meta.name, latest_ready=meta.name, traffic=traffic)
        await store.update_status(replace(made, status=status))
    store.open.clear()


@virtual
async def test_a_start_reads_only_what_is_not_settled(world: World) -> None:
    await world.start(sweep=1.0)
    await world.deploy("hello")
    await at_rest(world)

    async def meanwhile() -> None:
        await copies(world.store, MANY, world.function("hello"), world.revision("hello-00001"))
        await world.apply("late")
        world.store.families = 0

    await restart(world, meanwhile)
    await world.settled("late", 1)
    assert world.store.families < 30
    assert len(list(world.mirror.all(Function))) < 5
    writes = world.store.writes
    await asyncio.sleep(60)
    assert world.store.families < 40 and world.store.writes <= writes + 5
    call = world.call("copy77")
    await call.ended.wait()
    assert call.outcome == "copy77-00001"
    await at_rest(world)


@virtual
async def test_what_was_not_reached_before_the_end_is_reached_after_it(world: World) -> None:
    await world.start(sweep=1.0)
    for name in ("spec", "again", "gone", "rolling"):
        await world.deploy(name, retain=2)
    await world.deploy("gone", env={"A": "1"}, traffic=(TrafficTarget(percent=100, revision="gone-00001"),))
    await world.until(lambda: world.function("gone").status.latest_ready == "gone-00002")
    await asyncio.sleep(120)
    await at_rest(world)

    async def meanwhile() -> None:
        await world.apply("spec", env={"B": "1"})
        again = world.function("again")
        await world.store.update(replace(again, meta=replace(again.meta, annotations={REDEPLOY: "now"})))
        await world.store.delete("Revision", "default", "gone-00002")
        await world.apply("rolling", env={"C": "1"}, rollout=30.0)
        await world.store.delete("Function", "default", "rolling")

    await restart(world, meanwhile)
    await world.until(lambda: world.function("spec").status.latest_ready == "spec-00002")
    await world.until(lambda: world.function("again").status.latest_ready == "again-00002")
    await world.until(lambda: world.function("gone").status.latest_ready == "gone-00001")
    assert not world.has("Function", "rolling") and not world.has("Revision", "rolling-00001")
    # One whose newest revision was taken away is not ready, and is looked at again at each start.
    await world.until(lambda: world.store.open == {("Function", "default", "gone")}, 120)


@virtual
async def test_a_failed_or_running_function_never_rests(world: World) -> None:
    await world.start(sweep=1.0)
    await world.deploy("kept", min=1)
    await world.deploy("hello")
    await world.store.create(
        Route(
            meta=Meta(name="r", namespace="default"),
            spec=RouteSpec(match=RouteMatch(), targets=(RouteTarget(function="hello"),)),
        )
    )
    await asyncio.sleep(30)
    assert world.mirror.awake() == [("default", "kept")]
    await restart(world)
    await world.until(lambda: world.ready("kept-00001") == 1)
    ready = condition(world.function("kept"), "Ready")
    assert ready is not None and ready.status is True


@virtual
async def test_finalizers_of_a_function_at_rest_run_also_after_a_restart(world: World) -> None:
    await world.start(sweep=1.0)
    for name in ("now", "then"):
        function = await world.deploy(name)
        meta = replace(function.meta, finalizers=(FINALIZER,), resource_version=0)
        await world.store.update(replace(function, meta=meta))
    await at_rest(world)
    await world.store.delete("Function", "default", "now")
    await world.until(lambda: not world.has("Function", "now"), 30)
    await restart(world, lambda: world.store.delete("Function", "default", "then"))
    await world.until(lambda: not world.has("Function", "then"), 30)
    await at_rest(world)


@virtual
async def test_revision_that_only_a_route_kept_goes_with_the_route(world: World) -> None:
    await world.start(sweep=1.0, settle=5.0)
    await world.deploy("hello", retain=0)
    spec = RouteSpec(match=RouteMatch(path="/old"), targets=(RouteTarget(function="hello", revision="hello-00001"),))
    await world.store.create(Route(meta=Meta(name="r", namespace="default"), spec=spec))
    await world.deploy("hello", env={"A": "1"})
    await at_rest(world)
    assert world.has("Revision", "hello-00001")
    await world.store.delete("Route", "default", "r")
    await world.until(lambda: not world.has("Revision", "hello-00001"), 60)
    await at_rest(world)


@virtual
async def test_what_was_called_once_is_not_looked_at_for_ever(world: World) -> None:
    await world.start(sweep=1.0)
    await world.deploy("hello", window=6.0, grace=0.0)
    await at_rest(world)
    await copies(world.store, 100, world.function("hello"), world.revision("hello-00001"))
    for number in range(100):
        await world.call(f"copy{number}").ended.wait()
    assert world.control is not None
    scaler = world.control.scaler
    assert scaler.remembers(("default", "copy0-00001"))
    await world.until(lambda: not world.sandbox.running, 60)
    await world.until(lambda: not any(scaler.remembers(("default", f"copy{n}-00001")) for n in range(100)), 10)
    assert scaler.cold_reason(("default", "copy5-00001")) == "scaled-to-zero"


# -- the mirror alone


class Reading:
    """A mirror that keeps two functions at rest, what hears of changes, and a table."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.mirror = Mirror(self.store, resting=2)
        self.table = Table({})
        self.heard: list[tuple[str, str]] = []
        self.used: set[str] = set()
        self.mirror.listen(self._hear)
        self.mirror.read(self.table.learn, lambda key, _: self.table.drop(key))
        self.mirror.spare(lambda revisions: any(r.spec.function in self.used for r in revisions))
        self.table.attach(lambda namespace, name: self.mirror.get(Function, namespace, name))
        self.task: asyncio.Task[None] | None = None

    def _hear(self, change: Change) -> None:
        self.table.apply(change)
        self.heard.append((change.type, change.obj.meta.name))

    async def begin(self, *names: str) -> None:
        for name in names:
            await self.make(name)
        self.store.open.clear()
        self.task = asyncio.create_task(self.mirror.run())
        await self.mirror.synced.wait()
        await asyncio.sleep(0.1)

    async def make(self, name: str) -> Function:
        spec = FunctionSpec(template=FunctionTemplate(runtime="python"))
        made = cast("Function", await self.store.create(Function(meta=Meta(name=name, namespace="n"), spec=spec)))
        rev = RevisionSpec(function=name, function_uid=made.meta.uid, number=1, template=spec.template)
        owner = OwnerReference(kind="Function", name=name, uid=made.meta.uid)
        await self.store.create(Revision(meta=Meta(name=f"{name}-00001", namespace="n", owner=owner), spec=rev))
        return made

    def here(self) -> list[str]:
        return sorted(f.meta.name for f in self.mirror.all(Function))


def reading(test: Any) -> Any:
    async def run(world: World) -> None:
        made = Reading()
        try:
            await test(made)
        finally:
            if made.task is not None:
                made.task.cancel()
                await asyncio.gather(made.task, return_exceptions=True)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return virtual(run)


@reading
async def test_a_function_is_read_when_it_is_asked_for_and_let_go_when_others_are(r: Reading) -> None:
    await r.begin("a", "b", "c", "d")
    assert r.here() == [] and r.heard == []
    generation = r.table.generation
    for name in ("a", "b", "c"):
        entry = r.table.function("n", name)
        assert entry is not None and entry.name == name
    assert r.here() == ["b", "c"] and len(list(r.mirror.all(Revision))) == 2
    assert r.table.functions() == [("n", "b"), ("n", "c")]
    assert r.table.generation == generation, "what was derived of others still holds"
    assert r.heard == [], "nothing is to be done"
    r.used.add("b")
    assert r.mirror.get(Revision, "n", "d-00001") is not None
    assert r.here() == ["b", "d"], "what is in use stays"
    assert r.table.function("n", "nobody") is None


@reading
async def test_change_of_a_function_that_is_not_here_is_told_and_keeps_it_here(r: Reading) -> None:
    await r.begin("a", "b", "c", "d")
    a = cast("Function", r.store.objects["Function", "n", "a"])
    await r.store.update(replace(a, spec=replace(a.spec, access="public")))
    await asyncio.sleep(0.1)
    assert r.mirror.awake() == [("n", "a")]
    assert ("put", "a") in r.heard
    entry = r.table.function("n", "a")
    assert entry is not None and entry.public
    for name in ("b", "c", "d"):
        r.mirror.get(Function, "n", name)
    assert r.here() == ["a", "c", "d"]
    family = r.mirror.family(("n", "a"))
    assert family is not None and family.function is not None and len(family.revisions) == 1
    await r.store.settle([family])
    changed: AnyObject = await r.store.update(
        replace(family.function, meta=replace(family.function.meta, labels={"x": "y"}))
    )
    r.mirror.apply(changed)
    r.mirror.rest(family)
    assert r.mirror.awake() == [("n", "a")], "it changed after it was settled"


@reading
async def test_removal_of_what_is_not_here_is_told(r: Reading) -> None:
    await r.begin("a", "b")
    await r.store.delete("Revision", "n", "a-00001")
    await r.store.delete("Function", "n", "b")
    await asyncio.sleep(0.1)
    assert ("delete", "a-00001") in r.heard and ("delete", "b") in r.heard
    entry = r.table.function("n", "a")
    assert entry is not None and r.mirror.revisions(cast("Function", r.store.objects["Function", "n", "a"])) == []
    assert r.table.function("n", "b") is None
    again = await r.make("b")
    await asyncio.sleep(0.1)
    found = r.mirror.get(Function, "n", "b")
    assert found is not None and found.meta.uid == again.meta.uid


@reading
async def test_lists_again_and_finds_what_changed_and_went_of_those_that_are_here(r: Reading) -> None:
    await r.begin("a", "b", "c")
    for name in ("a", "b"):
        r.mirror.get(Function, "n", name)
    r.store.break_watches = True
    c = cast("Function", r.store.objects["Function", "n", "c"])
    a = cast("Function", r.store.objects["Function", "n", "a"])
    await r.store.delete("Function", "n", "b")
    await r.store.update(replace(a, spec=replace(a.spec, retain=3)))
    await r.store.update(replace(c, spec=replace(c.spec, retain=3)))
    r.store.changes.clear()
    await r.store.kick()
    await asyncio.sleep(0.1)
    assert r.heard.count(("delete", "b")) == 1
    found = [r.mirror.get(Function, "n", name) for name in ("a", "b", "c")]
    assert [f and f.spec.retain for f in found] == [3, None, 3]
    assert sorted(r.mirror.awake())[0] == ("n", "a") and ("n", "c") in r.mirror.awake()


@reading
async def test_a_whole_mirror_has_everything(r: Reading) -> None:
    r.mirror = Mirror(r.store, whole=True, resting=0)
    await r.begin("a", "b", "c")
    assert r.here() == ["a", "b", "c"] and r.mirror.awake() == []
