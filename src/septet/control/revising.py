"""Bringing one revision up: build, first instances, ready; or failed, with the reason."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec

from septet.control.birth import Birth
from septet.control.launch import variable
from septet.control.mirror import Mirror
from septet.control.settings import ControlSettings
from septet.control.status import Statuses, explain, with_condition
from septet.model.errors import BuildFailed, InvalidInput, NotFound, PlatformError, SeptetError, Unavailable
from septet.model.function import Function, Revision, RevisionStatus
from septet.model.meta import Condition
from septet.model.objects import Namespace, Token
from septet.ports.blobs import Blobs
from septet.ports.builder import Artifact, Builder
from septet.ports.clock import Clock
from septet.ports.logs import LogLine, Logs
from septet.ports.signals import RevisionKey

log = logging.getLogger("septet.control.revising")

REDEPLOY = "septet/redeploy"
"""An annotation that counts as part of the template: a new value makes a new revision of the same source."""

Phase = Literal["pending", "building", "starting", "ready", "failed", "retired"]
Trial = Callable[[RevisionKey, int], Awaitable[None]]
PAUSE = 1.0
STARTS = "its first instance starts"


def template_digest(function: Function) -> str:
    """Equal exactly when no new revision is needed."""
    facts = (function.spec.template, function.meta.annotations.get(REDEPLOY, ""))
    return hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()


class Revising:
    """Takes revisions from pending to ready or failed; each step is in the store before the next begins."""

    def __init__(
        self,
        mirror: Mirror,
        statuses: Statuses,
        birth: Birth,
        builder: Builder,
        blobs: Blobs,
        logs: Logs,
        clock: Clock,
        settings: ControlSettings,
        trial: Trial,
        trouble: Callable[[RevisionKey], SeptetError | None],
    ) -> None:
        """`trial` proves a revision as the scaler does; `trouble` is the last failed start of one."""
        self._mirror = mirror
        self._statuses = statuses
        self._birth = birth
        self._builder = builder
        self._blobs = blobs
        self._logs = logs
        self._clock = clock
        self._settings = settings
        self._trial = trial
        self._trouble = trouble
        self._running: dict[str, Revision] = {}
        self._free = asyncio.Condition()

    @property
    def building(self) -> int:
        """Builds under way."""
        return len(self._running)

    async def bring_up(self, revision: Revision) -> None:
        """Returns when the revision is ready or failed, and its status says so."""
        pause = PAUSE
        while True:
            try:
                await self._bring_up(revision)
                return
            except Unavailable as error:
                log.warning("revision %s waits: %s", revision.meta.name, error)
                revision = self._mirror.get(Revision, revision.meta.namespace, revision.meta.name) or revision
                with contextlib.suppress(Unavailable):
                    await self._phase(revision, revision.status.phase, reason="Unavailable", message=str(error))
                await self._clock.sleep(pause)
                pause = min(pause * 2, 30.0)

    async def _bring_up(self, revision: Revision) -> None:
        current: Revision | None = revision
        try:
            if revision.status.phase != "starting":
                current = await self._built(revision)
            if current is None:
                return
            started = await self._phase(current, "starting", reason="Starting", message=STARTS)
            if started is None:
                return
            await self._prove(started)
            await self._phase(started, "ready", done=True, reason="Ready")
        except Unavailable:
            raise
        except SeptetError as error:
            await self._failed(revision, error)
        except Exception as error:
            log.exception("revision %s/%s broke the platform", revision.meta.namespace, revision.meta.name)
            await self._failed(revision, PlatformError(f"{type(error).__name__}: {error}"))

    async def _prove(self, revision: Revision) -> None:
        """Waits until the first instances are ready, and keeps saying what it waits for."""
        scale = revision.spec.template.scale
        need = max(1, scale.initial, scale.min)
        key = (revision.meta.namespace, revision.meta.name)
        trial = asyncio.ensure_future(self._trial(key, min(need, scale.max) if scale.max else need))
        try:
            while not trial.done():
                await asyncio.wait([trial], timeout=PAUSE)
                error = self._trouble(key)
                if error is not None and not trial.done():
                    await self._phase(revision, "starting", reason=error.code, message=str(error))
            await trial
        finally:
            trial.cancel()

    async def _failed(self, revision: Revision, error: SeptetError) -> None:
        log.info("revision %s/%s failed: %s", revision.meta.namespace, revision.meta.name, error)
        kept = str(error.details.get("build_log", ""))
        end = error.details.get("log")
        if not kept and isinstance(error, BuildFailed) and isinstance(end, str):
            kept = await self._blobs.put_bytes(end.encode())
        message = explain(error, self._settings.log_tail)
        await self._phase(revision, "failed", done=False, reason=error.code, message=message, build_log=kept)

    async def _built(self, revision: Revision) -> Revision | None:
        namespace = revision.meta.namespace
        await self._take_turn(revision)
        try:
            if await self._phase(revision, "building", reason="Building", message="it is being built") is None:
                return None
            template = revision.spec.template
            artifact = Artifact("", "")
            if template.source:
                await self._check_source(template.source)
                artifact = await self._builder.build(
                    namespace, revision.spec.function, template, self._build_secrets(revision), self._progress(revision)
                )
            return await self._phase(
                revision, "starting", reason="Starting", message=STARTS, artifact=artifact.tree, build_log=artifact.log
            )
        finally:
            del self._running[revision.meta.uid]
            async with self._free:
                self._free.notify_all()

    async def _check_source(self, digest: str) -> None:
        """What comes through the API was checked there; what was written straight into the store was not."""
        try:
            await self._blobs.size(digest)
        except NotFound as error:
            raise InvalidInput(
                f"source: there are no bytes of {digest}",
                hint="upload the archive and deploy again",
                details={"field": "source"},
            ) from error

    async def _take_turn(self, revision: Revision) -> None:
        """Builds wait for each other: so many at a time on the node, and by the quotas of namespace and tokens."""
        async with self._free:
            await self._free.wait_for(lambda: self._may_build(revision))
            self._running[revision.meta.uid] = revision

    def _may_build(self, revision: Revision) -> bool:
        name, running = revision.meta.namespace, self._running.values()
        namespace = self._mirror.get(Namespace, "", name)
        ceiling = namespace.spec.quota.builds if namespace else 0
        if ceiling and sum(other.meta.namespace == name for other in running) >= ceiling:
            return False
        for account in revision.meta.applied_by:
            token = self._mirror.get(Token, "", account)
            ceiling = token.spec.quota.builds if token else 0
            if ceiling and sum(account in other.meta.applied_by for other in running) >= ceiling:
                return False
        return self.building < self._settings.builds

    def _build_secrets(self, revision: Revision) -> dict[str, str]:
        name = revision.spec.template.build.secret
        if not name:
            return {}
        found = self._birth.secrets(revision.meta.namespace, [name])
        if name not in found:
            raise InvalidInput(
                f"there is no secret {name!r}, which the build asks for",
                hint=f"create it: septet secret set {name} KEY=VALUE",
                details={"field": "build.secret"},
            )
        return {key: variable(name, key, value) for key, value in found[name].items()}

    def _progress(self, revision: Revision) -> Callable[[str], None]:
        def progress(line: str) -> None:
            self._logs.write(
                LogLine(
                    at=self._clock.wall(),
                    namespace=revision.meta.namespace,
                    function=revision.spec.function,
                    revision=revision.meta.name,
                    instance="build",
                    stream="platform",
                    text=line,
                )
            )

        return progress

    async def _phase(
        self,
        revision: Revision,
        phase: Phase,
        *,
        done: bool | None = None,
        reason: str = "",
        message: str = "",
        artifact: str = "",
        build_log: str = "",
    ) -> Revision | None:
        """Writes where the revision stands; None when it is gone."""

        def changed(current: Revision) -> Revision:
            now = self._clock.wall()
            ready = Condition(
                type="Ready",
                status=done,
                reason=reason,
                message=message,
                observed_generation=current.meta.generation,
                changed_at=now,
            )
            status: RevisionStatus = msgspec.structs.replace(
                current.status,
                phase=phase,
                artifact=artifact or current.status.artifact,
                build_log=build_log or current.status.build_log,
                ready_at=now if phase == "ready" else current.status.ready_at,
                conditions=with_condition(current.status.conditions, ready),
            )
            return msgspec.structs.replace(current, status=status)

        return await self._statuses.change(revision, changed)
