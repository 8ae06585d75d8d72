"""Stores that break one clause each, so that the suite is seen to catch it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from septet.drivers.store.sqlite.store import SqliteStore
from septet.model.errors import Conflict, Expired, InvalidInput, NotFound
from septet.model.objects import AnyObject, kind_of
from septet.ports.store import Change, Family, LeaseGrant, Page


def with_meta(obj: AnyObject, **changes: Any) -> AnyObject:
    return msgspec.structs.replace(obj, meta=msgspec.structs.replace(obj.meta, **changes))


class AnswersBeforeItWrites(SqliteStore):
    async def create(self, obj: AnyObject) -> AnyObject:
        async def later() -> None:
            await asyncio.sleep(0.2)
            await super(AnswersBeforeItWrites, self).create(obj)

        self.__dict__.setdefault("later", set()).add(asyncio.ensure_future(later()))
        await asyncio.sleep(0.002)
        return obj


class NeverSyncs(SqliteStore):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._writer._db.pragma("synchronous", "off")


class RepeatsVersions(SqliteStore):
    async def create(self, obj: AnyObject) -> AnyObject:
        return with_meta(await super().create(obj), resource_version=1)


class NamesAreIdentity(SqliteStore):
    async def create(self, obj: AnyObject) -> AnyObject:
        return with_meta(await super().create(obj), uid=obj.meta.name)


class TrustsTheCreator(SqliteStore):
    async def create(self, obj: AnyObject) -> AnyObject:
        made = await super().create(obj)
        return with_meta(made, created_at=obj.meta.created_at or made.meta.created_at)


class Overwrites(SqliteStore):
    async def create(self, obj: AnyObject) -> AnyObject:
        try:
            return await super().create(obj)
        except Conflict:
            return await self.update(with_meta(obj, resource_version=0))


class SaysNoNames(SqliteStore):
    async def get(self, kind: str, namespace: str, name: str) -> AnyObject:
        try:
            return await super().get(kind, namespace, name)
        except NotFound as error:
            raise NotFound("there is no such object") from error


class ListsWhatIsNow(SqliteStore):
    async def page(self, kind: str, namespace: str | None = None, **question: Any) -> Page:
        limit, cursor = question.pop("limit", 0), question.pop("cursor", "") or "0"
        page = await super().page(kind, namespace, **question)
        start = int(cursor)
        more = limit and len(page.items) > start + limit
        return Page(page.items[start : start + (limit or 10_000)], page.version, str(start + limit) if more else "")


class BeginsAgain(SqliteStore):
    async def page(self, kind: str, namespace: str | None = None, **question: Any) -> Page:
        try:
            return await super().page(kind, namespace, **question)
        except (Expired, InvalidInput):
            return await super().page(kind, namespace, **{**question, "cursor": ""})


class LastWriteWins(SqliteStore):
    async def update(self, obj: AnyObject) -> AnyObject:
        return await super().update(with_meta(obj, resource_version=0, uid=""))


class CountsEveryUpdate(SqliteStore):
    async def update(self, obj: AnyObject) -> AnyObject:
        made = await super().update(obj)
        return with_meta(made, generation=made.meta.generation + 1)


class WritesWhatIsEqual(SqliteStore):
    async def update_status(self, obj: AnyObject) -> AnyObject:
        made = await super().update_status(obj)
        await super().update(with_meta(made, annotations={"touched": str(made.meta.resource_version)}))
        return made


class TrustsTheUpdater(SqliteStore):
    async def update(self, obj: AnyObject) -> AnyObject:
        return with_meta(await super().update(obj), created_at=obj.meta.created_at)


class TakesTheStatusToo(SqliteStore):
    async def update(self, obj: AnyObject) -> AnyObject:
        made = await super().update(obj)
        return await super().update_status(with_meta(obj, resource_version=made.meta.resource_version))


class NeverLetsGo(SqliteStore):
    async def update(self, obj: AnyObject) -> AnyObject:
        current = await self.get(kind_of(obj), obj.meta.namespace, obj.meta.name)
        if current.meta.deleting_since is not None and not obj.meta.finalizers:
            return current
        return await super().update(obj)


class DeletesAnything(SqliteStore):
    async def delete(self, kind: str, namespace: str, name: str, *, resource_version: int = 0) -> AnyObject:
        return await super().delete(kind, namespace, name)


class LeavesOrphans(SqliteStore):
    async def delete(self, kind: str, namespace: str, name: str, *, resource_version: int = 0) -> AnyObject:
        uid = (await self.get(kind, namespace, name)).meta.uid
        for other in ("Function", "Secret"):
            for obj in (await self.page(other)).items:
                if obj.meta.owner is not None and obj.meta.owner.uid == uid:
                    await self.update(with_meta(obj, owner=None))
        return await super().delete(kind, namespace, name, resource_version=resource_version)


class MissesSome(SqliteStore):
    async def watch(self, after: int, kinds: frozenset[str] | None = None) -> AsyncIterator[Change]:
        async for change in super().watch(after, kinds):
            if change.version % 50:
                yield change


class SkipsTheGap(SqliteStore):
    async def watch(self, after: int, kinds: frozenset[str] | None = None) -> AsyncIterator[Change]:
        while True:
            try:
                async for change in super().watch(after, kinds):
                    yield change
                return
            except Expired:
                after = after + 1 if after < await self.version() else 0


class SharesLeases(SqliteStore):
    async def acquire(self, name: str, holder: str, seconds: float) -> LeaseGrant | None:
        grant = await super().acquire(name, "everybody", seconds)
        return grant._replace(holder=holder) if grant else None


class CopiesTheFile(SqliteStore):
    def __init__(self, path: Path, *args: Any, **options: Any) -> None:
        super().__init__(path, *args, **options)
        self.path = path

    async def backup(self, path: Path) -> None:
        shutil.copyfile(self.path, path)


class NeverLooks(SqliteStore):
    async def check(self) -> list[str]:
        return []


class KeepsOldFamilies(SqliteStore):
    def family(self, kind: str, namespace: str, name: str) -> Family | None:
        known: dict[str, Family | None] = self.__dict__.setdefault("known", {})
        if name not in known:
            known[name] = super().family(kind, namespace, name)
        return known[name]


class SettlesBlindly(SqliteStore):
    async def settle(self, families: Sequence[Family]) -> list[tuple[str, str]]:
        await super().settle(families)
        return [(f.function.meta.namespace, f.function.meta.name) for f in families if f.function is not None]


class LosesWork(SqliteStore):
    async def unsettled(self) -> tuple[list[tuple[str, str, str]], int]:
        keys, version = await super().unsettled()
        return [key for key in keys if key[0] == "Revision"], version


class KeepsNoMemories(SqliteStore):
    async def remember(self, memories: Mapping[str, bytes | None]) -> None:
        self.__dict__.setdefault("memories", {}).update(memories)

    async def recollect(self, prefix: str) -> dict[str, bytes]:
        held = self.__dict__.setdefault("memories", {})
        return {name: data for name, data in held.items() if name.startswith(prefix) and data is not None}


class TrustsItsMemories(SqliteStore):
    async def recollect(self, prefix: str) -> dict[str, bytes]:
        found = await self._read(lambda db: db.execute("SELECT name, data FROM memories").fetchall())
        return dict(cast("list[tuple[str, bytes]]", found))


BROKEN: dict[str, type[SqliteStore]] = {
    "acknowledged_writes_survive_sigkill": AnswersBeforeItWrites,
    "acknowledged_writes_survive_power_loss": NeverSyncs,
    "versions_grow_over_all_kinds_and_restarts": RepeatsVersions,
    "a_new_object_of_a_name_has_a_new_uid": NamesAreIdentity,
    "create_fills_in_what_is_the_stores": TrustsTheCreator,
    "a_taken_name_is_a_conflict_and_changes_nothing": Overwrites,
    "what_is_not_there_is_not_found": SaysNoNames,
    "all_pages_show_the_first_pages_version": ListsWhatIsNow,
    "old_and_foreign_cursors_are_refused": BeginsAgain,
    "updates_of_what_changed_or_went_are_refused": LastWriteWins,
    "the_generation_counts_changes_of_the_spec": CountsEveryUpdate,
    "identity_is_the_stores": TrustsTheUpdater,
    "an_update_keeps_the_status": TakesTheStatusToo,
    "an_object_goes_with_its_last_finalizer": NeverLetsGo,
    "a_status_is_only_a_status": WritesWhatIsEqual,
    "deletions_of_what_changed_or_went_are_refused": DeletesAnything,
    "what_is_owned_goes_along": LeavesOrphans,
    "a_watch_tells_all_in_order_and_once": MissesSome,
    "a_watch_from_too_long_ago_expires": SkipsTheGap,
    "a_lease_has_one_holder": SharesLeases,
    "memories_are_kept_whole_and_change_no_version": KeepsNoMemories,
    "a_damaged_memory_is_left_out": TrustsItsMemories,
    "a_backup_is_one_moment": CopiesTheFile,
    "the_check_names_every_altered_row": NeverLooks,
    "a_family_is_what_was_written_last": KeepsOldFamilies,
    "what_changed_is_not_settled": SettlesBlindly,
    "every_write_unsettles": LosesWork,
}
"""By the name of the check that finds them."""
