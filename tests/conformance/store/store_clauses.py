"""The clauses of the store port (`septet/ports/store.py`), each as functions that take a test bed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import apsw
import msgspec
from clauses import Suite, raises
from store_beds import SqliteBed, function, names, owned_by, take, watching

from septet.drivers.store.sqlite.store import SqliteStore
from septet.model.errors import Conflict, Expired, InvalidInput, NotFound
from septet.model.function import Function, FunctionStatus, Revision, RevisionSpec, revision_name
from septet.model.meta import Meta
from septet.model.objects import AnyObject, Namespace, Secret
from septet.ports.store import Change, Family, LeaseGrant

suite: Suite[SqliteBed] = Suite()
clause = suite.clause
replace = msgspec.structs.replace


def with_meta(obj: AnyObject, **changes: object) -> AnyObject:
    return replace(obj, meta=replace(obj.meta, **changes))


def with_runtime(obj: AnyObject, runtime: str) -> AnyObject:
    assert isinstance(obj, Function)
    return replace(obj, spec=replace(obj.spec, template=replace(obj.spec.template, runtime=runtime)))


def with_status(obj: AnyObject, **changes: object) -> AnyObject:
    assert isinstance(obj, Function)
    return replace(obj, status=replace(obj.status, **changes))


@clause("store.1")
async def acknowledged_writes_survive_sigkill(bed: SqliteBed) -> None:
    acknowledged, _ = await bed.killed("kill", after=40)
    assert set(acknowledged) <= set(names(await bed.listed()))
    assert await bed.store.check() == []


@clause("store.1")
async def acknowledged_writes_survive_power_loss(bed: SqliteBed) -> None:
    acknowledged, folder = await bed.killed("power", after=40)
    for left in folder.glob("*.part"):
        left.unlink()
    remains = SqliteStore(folder / "store.db", bed.clock)
    try:
        assert set(acknowledged) <= set(names(await bed.listed(remains)))
        assert await remains.check() == []
    finally:
        await remains.close()


@clause("store.2")
async def versions_grow_over_all_kinds_and_restarts(bed: SqliteBed) -> None:
    seen = [
        (await bed.store.create(obj)).meta.resource_version for obj in (Namespace(meta=Meta(name="a")), function("a"))
    ]
    changed = await bed.store.update(with_runtime(await bed.store.get("Function", "default", "a"), "node"))
    seen.append(changed.meta.resource_version)
    seen.append((await bed.store.update_status(with_status(changed, latest_ready="x"))).meta.resource_version)
    seen.append((await bed.store.delete("Function", "default", "a")).meta.resource_version)
    assert await bed.store.version() == seen[-1]
    await bed.reopen(keep=1)
    for _ in range(3):
        seen.append((await bed.store.create(function("a"))).meta.resource_version)
        seen.append((await bed.store.delete("Function", "default", "a")).meta.resource_version)
        await bed.reopen(keep=1)
    assert seen == sorted(set(seen))
    assert await bed.store.version() == seen[-1]


@clause("store.3")
async def a_new_object_of_a_name_has_a_new_uid(bed: SqliteBed) -> None:
    made = [await bed.store.create(function("a", namespace)) for namespace in ("one", "two")]
    made.append(await bed.store.create(Secret(meta=Meta(name="a", namespace="one"))))
    await bed.store.delete("Function", "one", "a")
    made.append(await bed.store.create(function("a", "one")))
    assert len({obj.meta.uid for obj in made}) == 4
    assert (await bed.store.get("Function", "one", "a")).meta.uid == made[-1].meta.uid


@clause("store.4")
async def create_fills_in_what_is_the_stores(bed: SqliteBed) -> None:
    given = function("a", uid="mine", created_at=1.0, generation=7, resource_version=9, labels={"a": "b"})
    made = await bed.store.create(given)
    assert made.meta.uid not in ("", "mine")
    assert (made.meta.created_at, made.meta.generation) == (bed.clock.time, 1)
    assert made.meta.resource_version == await bed.store.version()
    assert made.meta.labels == {"a": "b"}
    assert await bed.store.get("Function", "default", "a") == made


@clause("store.4")
async def a_taken_name_is_a_conflict_and_changes_nothing(bed: SqliteBed) -> None:
    made = await bed.store.create(function("a"))
    await raises(Conflict, bed.store.create(function("a", runtime="node")))
    assert await bed.store.version() == made.meta.resource_version
    assert await bed.store.get("Function", "default", "a") == made


@clause("store.5")
async def what_is_not_there_is_not_found(bed: SqliteBed) -> None:
    await bed.store.create(function("a"))
    for kind, namespace, name in (("Function", "default", "b"), ("Function", "x", "a"), ("Route", "default", "a")):
        error = await raises(NotFound, bed.store.get(kind, namespace, name))
        assert (error.details.get("kind"), error.details.get("name")) == (kind, name)


@clause("store.6")
async def all_pages_show_the_first_pages_version(bed: SqliteBed) -> None:
    for number in range(9):
        await bed.store.create(function(f"f{number}", "ab"[number % 2], labels={"third": str(number % 3)}))
    before = await bed.listed()
    version = await bed.store.version()
    turn = 0

    async def disturb() -> None:
        nonlocal turn
        turn += 1
        await bed.store.create(function(f"f0{turn}", "b"))
        await bed.store.update(with_runtime(await bed.store.get("Function", "b", "f7"), f"r{turn}"))
        if turn == 1:
            for namespace, name in (("a", "f4"), ("b", "f5")):
                await bed.store.delete("Function", namespace, name)
            await bed.store.create(function("f4", "a", runtime="again"))

    pages = await bed.pages(2, disturb)
    assert [len(page.items) for page in pages] == [2, 2, 2, 2, 1]
    assert [obj for page in pages for obj in page.items] == before
    assert {page.version for page in pages} == {version}
    assert names(await bed.listed(namespace="a")) == ["f0", "f2", "f4", "f6", "f8"]
    pages = await bed.pages(1, disturb, namespace="b", labels={"third": "1"})
    assert names([obj for page in pages for obj in page.items]) == ["f1", "f7"]
    assert names(await bed.listed(namespace="c")) == []


@clause("store.7")
async def old_and_foreign_cursors_are_refused(bed: SqliteBed) -> None:
    await bed.reopen(keep=4)
    for number in range(4):
        await bed.store.create(function(f"f{number}"))
    cursor = (await bed.store.page("Function", "default", limit=1)).cursor
    assert cursor
    await raises(InvalidInput, bed.store.page("Secret", "default", limit=1, cursor=cursor))
    await raises(InvalidInput, bed.store.page("Function", "x", limit=1, cursor=cursor))
    await raises(InvalidInput, bed.store.page("Function", "default", labels={"a": "b"}, limit=1, cursor=cursor))
    for foreign in ("x", "é", cursor[:-6], "e30=", "bnVsbA=="):
        await raises(InvalidInput, bed.store.page("Function", "default", limit=1, cursor=foreign))
    assert names((await bed.store.page("Function", "default", limit=1, cursor=cursor)).items) == ["f1"]
    for number in range(10):
        await bed.store.create(function(f"g{number}"))
    await raises(Expired, bed.store.page("Function", "default", limit=1, cursor=cursor))


@clause("store.8")
async def updates_of_what_changed_or_went_are_refused(bed: SqliteBed) -> None:
    first = await bed.store.create(function("a"))
    second = await bed.store.update(with_runtime(first, "node"))
    await raises(Conflict, bed.store.update(with_runtime(first, "ruby")))
    await raises(Conflict, bed.store.update_status(with_status(first, latest_ready="x")))
    assert await bed.store.get("Function", "default", "a") == second
    third = await bed.store.update(with_meta(with_runtime(first, "go"), resource_version=0))
    assert third.meta.resource_version > second.meta.resource_version
    await bed.store.delete("Function", "default", "a")
    await raises(NotFound, bed.store.update(third))
    await bed.store.create(function("a"))
    await raises(NotFound, bed.store.update(with_meta(third, resource_version=0)))
    await raises(NotFound, bed.store.update_status(with_meta(third, resource_version=0)))


@clause("store.9")
async def the_generation_counts_changes_of_the_spec(bed: SqliteBed) -> None:
    made = await bed.store.create(function("a", labels={"a": "1", "b": "2"}))
    labelled = await bed.store.update(with_meta(made, labels={"a": "1", "b": "3"}))
    assert labelled.meta.generation == 1 and labelled.meta.resource_version > made.meta.resource_version
    changed = await bed.store.update(with_runtime(labelled, "node"))
    assert changed.meta.generation == 2
    for same in (changed, with_meta(changed, labels={"b": "3", "a": "1"}, resource_version=0)):
        assert await bed.store.update(same) == changed
    assert await bed.store.version() == changed.meta.resource_version


@clause("store.10")
async def identity_is_the_stores(bed: SqliteBed) -> None:
    made = await bed.store.create(function("a"))
    mine: dict[str, object] = {"uid": "", "created_at": 5.0, "deleting_since": 6.0, "generation": 9}
    changed = await bed.store.update(with_meta(with_runtime(made, "node"), **mine))
    expected = (made.meta.uid, made.meta.created_at, None, 2)
    found = await bed.store.get("Function", "default", "a")
    for obj in (changed, found):
        assert (obj.meta.uid, obj.meta.created_at, obj.meta.deleting_since, obj.meta.generation) == expected


@clause("store.10")
async def an_update_keeps_the_status(bed: SqliteBed) -> None:
    made = await bed.store.create(function("a"))
    seen = await bed.store.update_status(with_status(made, latest_ready="a-00001"))
    changed = await bed.store.update(with_status(with_runtime(seen, "node"), latest_ready="forged"))
    assert isinstance(changed, Function) and changed.status.latest_ready == "a-00001"


@clause("store.11")
async def an_object_goes_with_its_last_finalizer(bed: SqliteBed) -> None:
    made = await bed.store.create(function("a", finalizers=("one", "two")))
    await bed.store.create(function("child", owner=owned_by(made)))
    marked = await bed.store.delete("Function", "default", "a")
    assert marked.meta.deleting_since == bed.clock.time
    kept = await bed.store.update(with_meta(marked, finalizers=("two",)))
    assert names(await bed.listed()) == ["a", "child"]
    await bed.store.update(with_meta(kept, finalizers=()))
    assert names(await bed.listed()) == []
    alive = await bed.store.create(function("b", finalizers=("one",)))
    await bed.store.update(with_meta(alive, finalizers=()))
    assert names(await bed.listed()) == ["b"]


@clause("store.12")
async def a_status_is_only_a_status(bed: SqliteBed) -> None:
    made = await bed.store.create(function("a"))
    seen = await bed.store.update_status(
        with_status(with_runtime(with_meta(made, labels={"x": "y"}), "node"), latest_ready="r")
    )
    assert isinstance(made, Function)
    assert seen == replace(
        made,
        meta=replace(made.meta, resource_version=seen.meta.resource_version),
        status=FunctionStatus(latest_ready="r"),
    )
    assert await bed.store.get("Function", "default", "a") == seen
    assert await bed.store.update_status(with_status(seen, latest_ready="r")) == seen
    assert await bed.store.version() == seen.meta.resource_version


@clause("store.13")
async def deletions_of_what_changed_or_went_are_refused(bed: SqliteBed) -> None:
    await raises(NotFound, bed.store.delete("Function", "default", "a"))
    made = await bed.store.create(function("a"))
    await bed.store.update(with_runtime(made, "node"))
    old = made.meta.resource_version
    await raises(Conflict, bed.store.delete("Function", "default", "a", resource_version=old))
    assert names(await bed.listed()) == ["a"]
    await bed.store.delete("Function", "default", "a")
    assert names(await bed.listed()) == []


@clause("store.14")
async def what_is_owned_goes_along(bed: SqliteBed) -> None:
    root = await bed.store.create(function("root"))
    child = await bed.store.create(function("child", "elsewhere", owner=owned_by(root)))
    await bed.store.create(Secret(meta=Meta(name="grandchild", namespace="default", owner=owned_by(child))))
    await bed.store.create(function("held", owner=owned_by(root), finalizers=("x",)))
    await bed.store.create(function("stranger", owner=replace(owned_by(root), uid="another")))
    before = await bed.store.version()
    await bed.store.delete("Function", "default", "root")
    left = await bed.listed()
    assert names(left) == ["held", "stranger"]
    assert left[0].meta.deleting_since == bed.clock.time
    assert (await bed.store.page("Secret")).items == ()
    async with watching(bed.store, before) as changes:
        told = {(change.obj.meta.name, change.type) for change in await take(changes, 4)}
    assert told == {("root", "delete"), ("child", "delete"), ("grandchild", "delete"), ("held", "put")}


@clause("store.15")
async def a_watch_tells_all_in_order_and_once(bed: SqliteBed) -> None:
    for number in range(20):
        await bed.store.create(function(f"old{number}"))
    secrets = frozenset({"Secret"})

    async def write(lane: int) -> None:
        for number in range(30):
            await bed.store.create(function(f"new{lane}-{number}"))
            await bed.store.create(Secret(meta=Meta(name=f"s{lane}-{number}")))

    async with watching(bed.store, 0) as all_, watching(bed.store, 5, secrets) as some:
        first = await take(all_, 3)
        waiting = asyncio.ensure_future(take(some, 90))
        await asyncio.gather(*(write(lane) for lane in range(3)))
        outcomes = await asyncio.gather(take(all_, 197), waiting, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    rest, only = cast("list[list[Change]]", outcomes)
    seen = first + rest
    assert [change.version for change in seen] == list(range(1, 201))
    assert all(change.type == "put" and change.obj.meta.resource_version == change.version for change in seen)
    assert [change for change in seen if change.kind == "Secret"] == only


@clause("store.16")
async def a_watch_from_too_long_ago_expires(bed: SqliteBed) -> None:
    await bed.reopen(keep=8)
    for number in range(40):
        await bed.store.create(function(f"f{number}"))
    async with watching(bed.store, 2) as changes:
        await raises(Expired, take(changes, 1))
    async with watching(bed.store, 32) as changes:
        assert [change.version for change in await take(changes, 8)] == list(range(33, 41))
    async with watching(bed.store, 9999) as changes:
        await raises(Expired, take(changes, 1))


@clause("store.17")
async def a_lease_has_one_holder(bed: SqliteBed) -> None:
    tries = await asyncio.gather(*(bed.store.acquire("loop", f"h{number}", 10) for number in range(20)))
    granted = [grant for grant in tries if grant is not None]
    assert len(granted) == 1
    first = granted[0]
    assert first.expires_at == bed.clock.time + 10
    bed.clock.time += 9
    assert await bed.store.acquire("loop", "other", 10) is None
    renewed = await bed.store.acquire("loop", first.holder, 10)
    assert renewed == LeaseGrant("loop", first.holder, first.fence, bed.clock.time + 10)
    await bed.store.release("loop", "other")
    await bed.reopen()
    assert await bed.store.acquire("loop", "other", 10) is None
    bed.clock.time += 10.5
    second = await bed.store.acquire("loop", "other", 10)
    assert second is not None and second.fence > first.fence
    await bed.store.release("loop", "other")
    third = await bed.store.acquire("loop", first.holder, 10)
    assert third is not None and third.fence > second.fence
    assert await bed.store.acquire("another", "other", 10) is not None


@clause("store.23")
async def memories_are_kept_whole_and_change_no_version(bed: SqliteBed) -> None:
    await bed.store.remember({"a/1": b"one", "a/2": b"two", "b/1": b"other"})
    version = await bed.store.version()
    await bed.store.remember({"a/1": b"new", "a/2": None})
    broken: dict[str, bytes | None] = {"a/3": b"three", "a/4": cast("bytes", object())}
    try:
        await bed.store.remember(broken)
    except Exception:
        assert "a/3" not in await bed.store.recollect("a/")
    await bed.reopen()
    assert await bed.store.recollect("a/") == {"a/1": b"new"}
    assert set(await bed.store.recollect("")) == {"a/1", "b/1"}
    assert await bed.store.version() == version


@clause("store.24")
async def a_damaged_memory_is_left_out(bed: SqliteBed) -> None:
    await bed.store.remember({"a/1": b"one", "a/2": b"two"})
    await bed.close()
    alter(bed.path, "UPDATE memories SET data = x'00' WHERE name = 'a/1'")
    await bed.open()
    assert await bed.store.recollect("a/") == {"a/2": b"two"}
    assert await bed.store.check() == ["memory a/1"]


@clause("store.18")
async def a_backup_is_one_moment(bed: SqliteBed) -> None:
    root = await bed.store.create(function("root"))
    for number in range(200):
        await bed.store.create(function(f"child{number}", owner=owned_by(root), annotations={"x": "y" * 2000}))
    writing = asyncio.ensure_future(_keep_writing(bed.store))
    await asyncio.sleep(0.02)
    await bed.store.backup(bed.folder / "copy.db")
    await writing
    copy = SqliteStore(bed.folder / "copy.db", bed.clock)
    try:
        found = set(names(await bed.listed(copy)))
        numbers = sorted(int(name[1:]) for name in found if name.startswith("n"))
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= 1
        assert sum(name.startswith("child") for name in found) == (200 if "root" in found else 0)
        assert await copy.check() == []
        version = await copy.version()
        assert (await copy.create(function("own"))).meta.resource_version == version + 1
    finally:
        await copy.close()


async def _keep_writing(store: SqliteStore) -> None:
    for number in range(120):
        await store.create(function(f"n{number}"))
        if number == 60:
            await store.delete("Function", "default", "root")


@clause("store.19")
async def the_check_names_every_altered_row(bed: SqliteBed) -> None:
    for number in range(3):
        await bed.store.create(function(f"f{number}"))
    await bed.store.acquire("loop", "me", 10)
    await bed.store.record_audit({"who": "me"})
    assert await bed.store.check() == []
    await bed.close()
    alter(bed.path, "UPDATE objects SET data = replace(data, 'python', 'pythoN') WHERE name = 'f1'")
    alter(bed.path, "UPDATE changes SET version = version + 10 WHERE version = 3")
    alter(bed.path, "UPDATE leases SET fence = 7")
    alter(bed.path, "UPDATE audit SET data = replace(data, 'me', 'it')")
    alter(bed.path, "UPDATE unsettled SET name = 'f9' WHERE name = 'f2'")
    await bed.open()
    said = " | ".join(await bed.store.check())
    for part in (
        "object Function default/f1",
        "change 13",
        "lease loop",
        "audit entry 1",
        "note on Function default/f9",
    ):
        assert part in said, said
    assert "f0" not in said


async def grown(bed: SqliteBed, name: str, count: int = 2) -> Family:
    """A function with revisions."""
    made = await bed.store.create(function(name))
    for number in range(1, count + 1):
        await bed.store.create(revision(made, number))
    return _family(bed, name)


def revision(owner: AnyObject, number: int, **meta: object) -> Revision:
    assert isinstance(owner, Function)
    name = revision_name(owner.meta.name, number)
    return Revision(
        meta=Meta(name=name, namespace=owner.meta.namespace, owner=owned_by(owner), **meta),  # type: ignore[arg-type]
        spec=RevisionSpec(
            function=owner.meta.name, function_uid=owner.meta.uid, number=number, template=owner.spec.template
        ),
    )


def _family(bed: SqliteBed, name: str, kind: str = "Function") -> Family:
    found = bed.store.family(kind, "default", name)
    assert found is not None
    return found


def _function(family: Family) -> Function:
    assert family.function is not None
    return family.function


@clause("store.20")
async def a_family_is_what_was_written_last(bed: SqliteBed) -> None:
    family = await grown(bed, "a")
    assert names(family.revisions) == ["a-00001", "a-00002"]
    assert _function(family).meta.name == "a"
    assert _family(bed, "a-00002", "Revision") == family
    changed = await bed.store.update(with_runtime(_function(family), "node"))
    assert _family(bed, "a").function == changed
    await bed.store.create(revision(changed, 3, finalizers=("wait",)))
    await bed.store.delete("Revision", "default", "a-00001")
    assert names(_family(bed, "a").revisions) == ["a-00002", "a-00003"]
    await bed.store.delete("Function", "default", "a")
    assert bed.store.family("Function", "default", "a") is None
    assert bed.store.family("Revision", "default", "a-00002") is None
    left = _family(bed, "a-00003", "Revision")
    assert left.function is None and names(left.revisions) == ["a-00003"]
    await bed.store.create(function("a"))
    assert _family(bed, "a").revisions == ()
    assert _family(bed, "a-00003", "Revision").function is None, "it is none of the new one's"


@clause("store.21")
async def what_changed_is_not_settled(bed: SqliteBed) -> None:
    old, unchanged = await grown(bed, "a"), await grown(bed, "b")
    one, two = old.revisions
    noted = [("default", "a")]
    await bed.store.update_status(with_status(_function(old), latest_ready="a-00001"))
    assert await bed.store.settle([old, unchanged]) == [("default", "b")]
    now = _family(bed, "a")
    await bed.store.update(with_meta(one, annotations={"x": "y"}))
    assert await bed.store.settle([now]) == []
    now = _family(bed, "a")
    await bed.store.create(revision(_function(now), 3))
    assert await bed.store.settle([now]) == []
    now = _family(bed, "a")
    await bed.store.delete("Revision", "default", two.meta.name)
    assert await bed.store.settle([now]) == []
    assert await bed.store.settle([_family(bed, "a")]) == noted
    await bed.store.delete("Function", "default", "b")
    assert await bed.store.settle([unchanged]) == []


@clause("store.22")
async def every_write_unsettles(bed: SqliteBed) -> None:
    async def open_ones() -> set[str]:
        await bed.reopen()
        keys, version = await bed.store.unsettled()
        assert version == await bed.store.version()
        return {name for _, _, name in keys}

    async def settled(name: str = "a") -> Function:
        await bed.store.settle([_family(bed, name)])
        assert _family(bed, name).settled
        assert not any(each.startswith(name) for each in await open_ones())
        return _function(_family(bed, name))

    first = await grown(bed, "a")
    await grown(bed, "b", 1)
    assert not first.settled
    assert await open_ones() == {"a", "a-00001", "a-00002", "b", "b-00001"}
    await settled("b")
    a = await settled()
    await bed.store.update(with_meta(a, annotations={"x": "y"}))
    assert not _family(bed, "a").settled and await open_ones() == {"a"}
    a = await settled()
    await bed.store.update_status(with_status(a, latest_ready="a-00001"))
    assert await open_ones() == {"a"}
    await settled()
    one = _family(bed, "a").revisions[0]
    await bed.store.update_status(replace(one, status=replace(one.status, phase="failed")))
    assert await open_ones() == {"a", "a-00001"}
    await settled()
    await bed.store.delete("Revision", "default", "a-00001")
    assert await open_ones() == {"a"}
    a = await settled()
    await bed.store.create(revision(a, 3, finalizers=("wait",)))
    await settled()
    await bed.store.delete("Function", "default", "a")
    assert await open_ones() == {"a-00003"}, "it waits for its finalizer"
    one = _family(bed, "a-00003", "Revision").revisions[0]
    await bed.store.update(with_meta(one, finalizers=()))
    assert await open_ones() == set()
    assert await bed.store.check() == []


def alter(path: Path, sql: str) -> None:
    """What a broken disk, or a stranger, does to a row."""
    db = apsw.Connection(str(path))
    db.execute(sql)
    assert db.changes() == 1, sql
    db.close()
