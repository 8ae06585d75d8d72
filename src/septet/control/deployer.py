"""From a function's spec to revisions, and from ready revisions to traffic.

Each function is reconciled by one task at a time, each new revision is brought up by a task of its own. All
that matters stands in the store, so that a restart goes on where the last life stopped.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, cast

import msgspec

from septet.control.mirror import Mirror
from septet.control.references import revisions
from septet.control.revising import Revising, template_digest
from septet.control.rollout import Move, move
from septet.control.settings import ControlSettings
from septet.control.status import Statuses, with_condition
from septet.model.errors import Conflict, NotFound, Unavailable
from septet.model.function import Function, FunctionStatus, Revision, RevisionSpec, revision_name
from septet.model.meta import Condition, Meta, OwnerReference
from septet.ports.clock import Clock
from septet.ports.store import Change, Store

log = logging.getLogger("septet.control.deployer")

Key = tuple[str, str]
RETRY = 1.0


class Deployer:
    """Reconciles functions."""

    def __init__(
        self,
        store: Store,
        mirror: Mirror,
        statuses: Statuses,
        revising: Revising,
        clock: Clock,
        settings: ControlSettings,
    ) -> None:
        self._store = store
        self._mirror = mirror
        self._statuses = statuses
        self._revising = revising
        self._clock = clock
        self._settings = settings
        self._dirty: set[Key] = set()
        self._wake = asyncio.Event()
        self._busy: dict[Key, asyncio.Task[None]] = {}
        self._risers: dict[str, asyncio.Task[None]] = {}
        self._timers: dict[Key, asyncio.Task[None]] = {}
        mirror.listen(self._changed)

    async def run(self) -> None:
        """Reconciles what the last life left unfinished, then each function that changes, for ever; ends its tasks
        when cancelled."""
        for number, key in enumerate(self._mirror.awake()):
            if number % 50 == 49:
                await asyncio.sleep(0)
            function = self._mirror.get(Function, *key)
            if function is not None and self.settled(function):
                self._dirty.discard(key)
            else:
                self._dirty.add(key)
        try:
            while True:
                for key in sorted(self._dirty - self._busy.keys()):
                    self._dirty.discard(key)
                    self._busy[key] = self._task(self._reconcile_safely(key), self._done(self._busy, key))
                self._wake.clear()
                await self._wake.wait()
        finally:
            tasks = [*self._busy.values(), *self._risers.values(), *self._timers.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def building(self) -> bool:
        """Is a build under way? Then what it makes is not yet referred to."""
        return self._revising.building > 0

    # -- who is to be looked at

    def settled(self, function: Function) -> bool:
        """A look at it now would change nothing, now or later."""
        status, found = function.status, revisions(self._mirror, function)
        ready = next((c for c in status.conditions if c.type == "Ready"), None)
        if status.observed_generation != function.meta.generation or ready is None or ready.status is not True:
            return False
        if any(revision.status.phase not in ("ready", "failed", "retired") for revision in found):
            return False
        if status.template_digest != template_digest(function):
            return False
        to_be = move(function, found, self._clock.wall())
        in_force = (status.traffic, status.latest_ready, status.rollout_started_at)
        return to_be.again is None and (to_be.traffic, to_be.latest_ready, to_be.started_at) == in_force

    def calm(self, function: Function) -> bool:
        """Nothing is under way for it."""
        key = (function.meta.namespace, function.meta.name)
        if key in self._dirty or key in self._busy or key in self._timers:
            return False
        return all(revision.meta.uid not in self._risers for revision in self._mirror.revisions(function))

    def _changed(self, change: Change) -> None:
        obj = change.obj
        if isinstance(obj, Function):
            self._mark((obj.meta.namespace, obj.meta.name))
        elif isinstance(obj, Revision):
            if change.type == "delete" and (riser := self._risers.get(obj.meta.uid)):
                riser.cancel()
            self._mark((obj.meta.namespace, obj.spec.function))

    def _mark(self, key: Key) -> None:
        self._dirty.add(key)
        self._wake.set()

    def _mark_later(self, key: Key, seconds: float) -> None:
        if old := self._timers.pop(key, None):
            old.cancel()

        async def later() -> None:
            await self._clock.sleep(seconds)
            self._mark(key)

        self._timers[key] = self._task(later(), self._done(self._timers, key))

    def _task(self, work: Coroutine[Any, Any, None], done: Callable[[asyncio.Task[None]], None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(done)
        return task

    def _done(self, table: dict[Any, asyncio.Task[None]], key: object) -> Callable[[asyncio.Task[None]], None]:
        def done(task: asyncio.Task[None]) -> None:
            if table.get(key) is task:
                del table[key]
            if not task.cancelled() and (error := task.exception()):
                log.error("a task of the deployer failed", exc_info=error)
            self._wake.set()

        return done

    # -- one function

    async def _reconcile_safely(self, key: Key) -> None:
        try:
            await self._reconcile(key)
        except (Unavailable, Conflict) as error:
            log.warning("function %s/%s is looked at again: %s", *key, error)
            self._mark_later(key, RETRY)

    async def _reconcile(self, key: Key) -> None:
        function = self._mirror.get(Function, *key)
        if function is None or function.meta.deleting_since is not None:
            return
        if function.status.template_digest != template_digest(function):
            created = await self._create_revision(function)
            if created is None:
                return
            function = created
        found = revisions(self._mirror, function)
        for revision in found:
            if revision.status.phase in ("pending", "building", "starting"):
                self._bring_up(revision)
        decided = move(function, found, self._clock.wall())
        written = await self._statuses.change(function, lambda current: self._with_move(current, found, decided))
        if written is not None and decided.again is not None:
            self._mark_later(key, decided.again)

    async def _create_revision(self, function: Function) -> Function | None:
        """Makes the next revision; one that an interrupted try left behind is taken as it is."""
        number = function.status.revision_counter + 1
        while True:
            wanted = Revision(
                meta=Meta(
                    name=revision_name(function.meta.name, number),
                    namespace=function.meta.namespace,
                    labels=function.meta.labels,
                    annotations=function.meta.annotations,
                    owner=OwnerReference(kind="Function", name=function.meta.name, uid=function.meta.uid),
                    applied_by=function.meta.applied_by,
                ),
                spec=RevisionSpec(
                    function=function.meta.name,
                    function_uid=function.meta.uid,
                    number=number,
                    template=function.spec.template,
                ),
            )
            try:
                stored = cast("Revision", await self._store.create(wanted))
            except Conflict:
                try:
                    found = await self._store.get("Revision", function.meta.namespace, wanted.meta.name)
                    stored = cast("Revision", found)
                except NotFound:
                    continue
                if stored.spec != wanted.spec:
                    number += 1
                    continue
            self._mirror.apply(stored)
            break
        return await self._statuses.change(
            function, functools.partial(_with_revision, stored, template_digest(function))
        )

    def _bring_up(self, revision: Revision) -> None:
        uid = revision.meta.uid
        if uid not in self._risers:
            self._risers[uid] = self._task(self._revising.bring_up(revision), self._done(self._risers, uid))

    # -- status

    def _with_move(self, function: Function, found: list[Revision], decided: Move) -> Function:
        """The function's status after this look: traffic and conditions, for the generation that was seen."""
        latest = next((r for r in found if r.meta.name == function.status.latest_created), None)
        conditions = function.status.conditions
        for condition in self._conditions(latest, decided):
            stamped = msgspec.structs.replace(
                condition, observed_generation=function.meta.generation, changed_at=self._clock.wall()
            )
            conditions = with_condition(conditions, stamped)
        status: FunctionStatus = msgspec.structs.replace(
            function.status,
            observed_generation=function.meta.generation,
            latest_ready=decided.latest_ready,
            traffic=decided.traffic,
            rollout_started_at=decided.started_at,
            conditions=conditions,
        )
        return msgspec.structs.replace(function, status=status)

    def _conditions(self, latest: Revision | None, decided: Move) -> tuple[Condition, ...]:
        revision = _revision_condition(latest)
        traffic = Condition(type="TrafficReady", status=decided.status, reason=decided.reason, message=decided.message)
        worst = next((c for c in (revision, traffic) if c.status is False), None) or next(
            (c for c in (revision, traffic) if c.status is None), traffic
        )
        ready = msgspec.structs.replace(worst, type="Ready")
        return (ready, revision, traffic)


def _with_revision(revision: Revision, digest: str, function: Function) -> Function:
    """The function after a revision was made of the template with this digest."""
    status: FunctionStatus = msgspec.structs.replace(
        function.status,
        latest_created=revision.meta.name,
        revision_counter=revision.spec.number,
        template_digest=digest,
    )
    return msgspec.structs.replace(function, status=status)


def _revision_condition(latest: Revision | None) -> Condition:
    """The newest revision's own readiness, in the function's words."""
    if latest is None:
        return Condition(type="RevisionReady", status=None, reason="Creating")
    phase = latest.status.phase
    if phase in ("ready", "retired"):
        return Condition(type="RevisionReady", status=True, reason="Ready")
    own = next((c for c in latest.status.conditions if c.type == "Ready"), None)
    reason = own.reason if own and own.reason else phase.capitalize()
    message = own.message if own else ""
    failed = phase == "failed"
    return Condition(
        type="RevisionReady",
        status=False if failed else None,
        reason=reason,
        message=f"{latest.meta.name}: {message}" if message else f"{latest.meta.name} is {phase}",
    )
