"""Functions' zygotes: kept while an instance of the revision is there, frozen ones too, and only with keep-alive.

Each counts with its whole memory limit, like an instance; where there is no room for it, there is none.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine, Mapping
from typing import Any

from septet.control.birth import Birth
from septet.control.fleet import Fleet, Reservation
from septet.control.mirror import Mirror
from septet.control.settings import ControlSettings
from septet.model.errors import SeptetError
from septet.model.function import FunctionTemplate, Revision
from septet.model.instance import InstanceEvent
from septet.ports.sandbox import Sandbox
from septet.ports.signals import RevisionKey

log = logging.getLogger("septet.control.ahead")


class _Kept:
    def __init__(self, revision: Revision, room: Reservation) -> None:
        self.id = f"z-{secrets.token_hex(8)}"
        self.revision = revision
        self.room = room
        self.able = False
        self.task: asyncio.Task[None] | None = None


class Ahead:
    """Begins a zygote when a revision's first instance is ready, and ends it with the last one."""

    def __init__(
        self,
        mirror: Mirror,
        fleet: Fleet,
        birth: Birth,
        sandboxes: Mapping[str, Sandbox],
        settings: ControlSettings,
    ) -> None:
        self._mirror = mirror
        self._fleet = fleet
        self._birth = birth
        self._sandboxes = sandboxes
        self._settings = settings
        self._all: dict[RevisionKey, _Kept] = {}
        self._tried: set[str] = set()
        """Revisions, by uid, whose zygote ended by itself: it said why, and would say it again."""
        self._tasks: set[asyncio.Task[None]] = set()
        fleet.listen(self._seen)
        fleet.others = self._heard

    def count(self, namespace: str, function: str) -> int:
        """How many zygotes of a function can be forked now."""
        return sum(
            kept.able and key[0] == namespace and kept.revision.spec.function == function
            for key, kept in self._all.items()
        )

    def _seen(self, event: InstanceEvent) -> None:
        """An instance changed its state."""
        key = (event.instance.namespace, event.instance.revision)
        if event.instance.state == "ready":
            self._begin(key)
        elif event.instance.state == "stopped" and key in self._all and not self._left(key):
            self._end(key)

    def _left(self, key: RevisionKey) -> bool:
        return any(member.phase != "gone" for member in self._fleet.members(key))

    def _begin(self, key: RevisionKey) -> None:
        revision = self._mirror.get(Revision, *key)
        if key in self._all or revision is None or revision.meta.uid in self._tried:
            return
        if not wanted(revision.spec.template, self._settings.keep_alive):
            return
        room = Reservation(revision.spec.template.limits.memory)
        self._fleet.reserve(room)
        if not room.held:
            self._fleet.release(room)
            return
        kept = self._all[key] = _Kept(revision, room)
        kept.task = self._spawn(self._start(key, kept))

    async def _start(self, key: RevisionKey, kept: _Kept) -> None:
        try:
            await self._birth.launch(kept.id, kept.revision, ahead=True)
        except SeptetError as error:
            self._forget(key, kept, error.message)

    def _heard(self, event: InstanceEvent) -> None:
        """Something in a sandbox that is no instance of the fleet changed its state."""
        key = (event.instance.namespace, event.instance.revision)
        kept = self._all.get(key)
        if kept is None or kept.id != event.instance.id:
            return
        if event.instance.state == "running":
            kept.able = True
        elif event.instance.state == "stopped":
            self._forget(key, kept, event.instance.exit.message if event.instance.exit else "it vanished")

    def _forget(self, key: RevisionKey, kept: _Kept, why: str) -> None:
        log.info("function %s of %s has no zygote any more: %s", kept.revision.spec.function, key[0], why)
        self._tried.add(kept.revision.meta.uid)
        if self._all.get(key) is kept:
            del self._all[key]
            self._fleet.release(kept.room)

    def _end(self, key: RevisionKey) -> None:
        self._spawn(self._stop(self._all.pop(key)))

    async def _stop(self, kept: _Kept) -> None:
        if kept.task is not None:
            await asyncio.wait([kept.task])
        try:
            await self._sandboxes[self._birth.driver(kept.revision)].stop(kept.id, 0)
        except SeptetError as error:
            log.warning("the zygote of %s could not be stopped: %s", kept.revision.meta.name, error)
        finally:
            self._fleet.release(kept.room)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def wanted(template: FunctionTemplate, keep_alive: float | None) -> bool:
    """Whether instances of a function may be forks of its own zygote: in the class where that is possible, only with
    keep-alive (`keep_alive` is the platform's), and without anything that is a secret or one instance's own."""
    kept = template.scale.keep_alive if template.scale.keep_alive is not None else keep_alive
    alone = not template.secrets and not template.platform and not template.environment
    return template.isolation == "shared-namespace" and kept != 0 and alone
