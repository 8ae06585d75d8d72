"""Taking away what nobody refers to: old revisions, their bytes, deleted functions' last traces, dead tokens."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence

import msgspec

from septet.control.birth import token_name
from septet.control.deployer import Deployer
from septet.control.fleet import Fleet
from septet.control.mirror import Mirror
from septet.control.references import referred, revisions
from septet.control.routing import Routing
from septet.control.scaler import Scaler
from septet.control.settings import ControlSettings
from septet.control.status import Statuses
from septet.model.errors import Conflict, NotFound
from septet.model.function import Function, Revision
from septet.model.objects import AnyObject, Namespace, Route, Token
from septet.policy import retention
from septet.ports.blobs import Blobs, Trees
from septet.ports.clock import Clock
from septet.ports.logs import Logs
from septet.ports.store import Change, Family, Store

log = logging.getLogger("septet.control.collector")

FINALIZER = "septet/instances"
"""An object with it goes only when none of its instances is left."""
BUSY = ("pending", "building", "starting")
SETTLED = 200
"""Functions in one write."""


class Collector:
    """One pass after the other."""

    def __init__(
        self,
        store: Store,
        mirror: Mirror,
        statuses: Statuses,
        fleet: Fleet,
        scaler: Scaler,
        deployer: Deployer,
        routing: Routing,
        blobs: Blobs,
        trees: Trees,
        logs: Logs,
        clock: Clock,
        settings: ControlSettings,
    ) -> None:
        self._store = store
        self._mirror = mirror
        self._statuses = statuses
        self._fleet = fleet
        self._scaler = scaler
        self._deployer = deployer
        self._routing = routing
        self._blobs = blobs
        self._trees = trees
        self._logs = logs
        self._clock = clock
        self._settings = settings
        self._unused: dict[str, float] = {}
        self._sharing = 0
        self._deleted: set[tuple[str, str]] = set()
        self._bytes_at = clock.now() + settings.keep_unused / 8
        mirror.listen(self._changed)

    async def run(self) -> None:
        """Sweeps for ever."""
        while True:
            await self.sweep()
            await self._clock.sleep(self._settings.sweep)

    async def sweep(self) -> None:
        """One pass over all that something may be left to be done for. Raises Unavailable."""
        await self._forget_deleted()
        settled: list[Family] = []
        for number, key in enumerate(self._mirror.awake()):
            await _breathe(number)
            function = self._mirror.get(Function, *key)
            if function is not None and function.meta.deleting_since is None:
                await self._retire(function)
            family = self._mirror.family(key)
            if family is None:
                continue
            if family.function is not None and self._settled(family.function, family.revisions):
                settled.append(family)
            for revision in family.revisions:
                await self._finish(revision)
            if family.function is not None:
                await self._finish(family.function)
        await self._settle(settled)
        await self._tokens()
        if self._clock.now() >= self._bytes_at and not self._deployer.building:
            # While a build runs nothing is taken away: it may be about to use what is there.
            await self._bytes()
            self._bytes_at = self._clock.now() + self._settings.keep_unused / 8
        if not self._deployer.building:
            await self._caches()

    def _settled(self, function: Function, found: Sequence[Revision]) -> bool:
        """Whether nobody in control has anything to do for it until it changes: what is true of most functions."""
        objects: tuple[Function | Revision, ...] = (function, *found)
        if any(obj.meta.deleting_since is not None for obj in objects):
            return False
        for revision in found:
            scale, phase = revision.spec.template.scale, revision.status.phase
            if phase == "retired" or (phase == "ready" and (scale.min > 0 or scale.policy == "fixed")):
                return False
        keep = referred(self._mirror, function)
        if any((revision.meta.name in keep) != (not revision.status.unused_since) for revision in found):
            return False
        candidates = [
            retention.Candidate(r.meta.name, r.spec.number, unused_since=r.status.unused_since) for r in found
        ]
        if retention.retired(candidates, keep, function.spec.retain, math.inf):
            return False
        if not self._routing.calm(function.meta.namespace, function.meta.name):
            return False
        return self._deployer.calm(function) and self._deployer.settled(function)

    async def _settle(self, families: Sequence[Family]) -> None:
        for first in range(0, len(families), SETTLED):
            part = families[first : first + SETTLED]
            noted = set(await self._store.settle(part))
            for family in part:
                if family.function and (family.function.meta.namespace, family.function.meta.name) in noted:
                    self._mirror.rest(family)

    def _changed(self, change: Change) -> None:
        if isinstance(change.obj, Route):
            # Which revisions are used may be different now.
            for target in change.obj.spec.targets:
                self._mirror.wake(change.obj.meta.namespace, target.function)
        if change.type == "delete" and isinstance(change.obj, Function):
            self._deleted.add((change.obj.meta.namespace, change.obj.meta.name))

    async def _forget_deleted(self) -> None:
        """The logs of a function go with it, unless there is a new one of its name."""
        while self._deleted:
            namespace, name = self._deleted.pop()
            if self._mirror.get(Function, namespace, name) is None:
                await self._logs.delete(namespace, name)

    async def _retire(self, function: Function) -> None:
        """Notes since when a revision is unused, and deletes those that are no longer kept."""
        keep = referred(self._mirror, function)
        found = revisions(self._mirror, function)
        now = self._clock.wall()
        for revision in found:
            since = 0.0 if revision.meta.name in keep else revision.status.unused_since or now
            if since != revision.status.unused_since:
                await self._note_unused(revision, since)
        candidates = [
            retention.Candidate(
                revision.meta.name,
                revision.spec.number,
                revision.status.phase in BUSY or not self._scaler.idle((revision.meta.namespace, revision.meta.name)),
                0.0 if revision.meta.name in keep else revision.status.unused_since,
            )
            for revision in found
        ]
        for name in retention.retired(candidates, keep, function.spec.retain, now, self._settings.settle):
            await self._delete_revision(function.meta.namespace, name)

    async def _note_unused(self, revision: Revision, since: float) -> None:
        await self._statuses.change(
            revision,
            lambda current: msgspec.structs.replace(
                current, status=msgspec.structs.replace(current.status, unused_since=since)
            ),
        )

    async def _delete_revision(self, namespace: str, name: str) -> None:
        """First retired, so that its instances end; deleted in a later pass, when none is left."""
        revision = self._mirror.get(Revision, namespace, name)
        if revision is None:
            return
        if revision.status.phase != "retired":
            await self._statuses.change(
                revision,
                lambda current: msgspec.structs.replace(
                    current, status=msgspec.structs.replace(current.status, phase="retired")
                ),
            )
            return
        if self._fleet.members((namespace, name)):
            return
        try:
            await self._store.delete("Revision", namespace, name)
        except (NotFound, Conflict) as error:
            log.info("revision %s/%s is not deleted now: %s", namespace, name, error)

    async def _finish(self, obj: Function | Revision) -> None:
        """Lets an object that is being deleted go, once nothing of it runs any more."""
        if obj.meta.deleting_since is None or FINALIZER not in obj.meta.finalizers:
            return
        namespace, name = obj.meta.namespace, obj.meta.name
        if isinstance(obj, Function):
            left = any(m.key[0] == namespace and m.info.function == name for m in self._fleet.members())
        else:
            left = bool(self._fleet.members((namespace, name)))
        if left:
            return
        finalizers = tuple(f for f in obj.meta.finalizers if f != FINALIZER)
        meta = msgspec.structs.replace(obj.meta, finalizers=finalizers)
        try:
            await self._store.update(msgspec.structs.replace(obj, meta=meta))
        except (NotFound, Conflict) as error:
            log.info("%s/%s is looked at again: %s", namespace, name, error)

    async def _tokens(self) -> None:
        """Tokens that expired long ago, and those of instances that are gone."""
        now = self._clock.wall()
        alive = {token_name(member.id) for member in self._fleet.members()}
        for token in self._mirror.all(Token):
            expires = token.spec.expires_at
            dead = bool(expires) and now - expires >= self._settings.keep_expired
            orphan = token.meta.name.startswith(token_name("")) and token.meta.name not in alive
            if dead or (orphan and token.meta.owner is not None):
                try:
                    await self._store.delete("Token", "", token.meta.name)
                except NotFound:
                    continue

    async def _bytes(self) -> None:
        """Blobs and trees that nothing has referred to for long."""
        used = await self._used()
        now = self._clock.now()
        there = [(digest, self._blobs.delete) for digest in await self._blobs.digests()]
        there += [(digest, self._trees.delete) for digest in await self._trees.digests()]
        unused = {digest for digest, _ in there if digest not in used}
        self._unused = {digest: self._unused.get(digest, now) for digest in unused}
        for digest, delete in there:
            since = self._unused.get(digest)
            if since is not None and now - since >= self._settings.keep_unused:
                await delete(digest)
                del self._unused[digest]

    async def _used(self) -> set[str]:
        """What functions and revisions refer to; a little at a time, for there may be very many."""
        used: set[str] = set()
        for kind in ("Function", "Revision"):
            cursor = ""
            while True:
                page = await self._store.page(kind, limit=100, cursor=cursor)
                for obj in page.items:
                    used |= _named(obj)
                cursor = page.cursor
                if not cursor:
                    break
        # What was written while the list was read.
        for function in self._mirror.all(Function):
            used |= _named(function)
        for revision in self._mirror.all(Revision):
            used |= _named(revision)
        return used

    async def _caches(self) -> None:
        """What builds keep for a namespace goes with it; with every further one, each may keep less."""
        alive = {namespace.meta.name for namespace in self._mirror.all(Namespace)}
        kept = set(await self._trees.kept())
        for name in sorted(kept):
            if name.partition(".")[0] not in alive:
                await self._trees.trim(name, 0)
                kept.discard(name)
        if len(kept) > self._sharing:
            for name in sorted(kept):
                await self._trees.trim(name, self._settings.caches // len(kept))
        self._sharing = len(kept)


def _named(obj: AnyObject) -> set[str]:
    if isinstance(obj, Function):
        return {obj.spec.template.source}
    if isinstance(obj, Revision):
        return {obj.spec.template.source, obj.status.artifact, obj.status.build_log}
    return set()


async def _breathe(number: int) -> None:
    """Lets calls go first now and then: a pass over very many objects would hold them up."""
    if number % 50 == 0:
        await asyncio.sleep(0)
