"""From an uploaded archive to the tree that instances mount (`ports/builder.py`)."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec

from septet.build.archive import extract
from septet.build.cache import BuildCache
from septet.build.log import BuildLog
from septet.build.members import ArchiveLimits
from septet.build.plan import ALWAYS, CACHE, CODE, RUNTIME, cache_key, plan, resolve
from septet.build.surroundings import ALONE, surroundings
from septet.build.task import MIB, TaskRunner
from septet.build.turns import Turns
from septet.model.errors import BuildFailed, InvalidInput, NodeFull, NotFound
from septet.model.function import FunctionTemplate, Limits, Network
from septet.model.instance import InstanceExit
from septet.model.runtime import Runtime, RuntimeBuild
from septet.ports.blobs import Blobs, Progress, Trees
from septet.ports.builder import Artifact
from septet.ports.memory import Memory
from septet.ports.sandbox import Container, LaunchRequest, Volume

NOT_FOUND = 127
"""How a shell ends that does not find a program."""


@dataclass(frozen=True)
class BuildSettings:
    """Builds at a time, the limits of each (MiB, cores, processes), and what every build finds in its environment
    (indexes, certificates). A step may ask for less memory, a function for more or less. `output` is what one step
    may print, `log` what is kept of a build's log, `cache` what stays of a tool's cache in each namespace, `caches`
    of all of them, in bytes."""

    at_once: int = 2
    memory: int = 2048
    cpu: float = 2.0
    pids: int = 512
    tmp: int = 1024
    output: int = 16 * MIB
    log: int = 2 * MIB
    cache: int = 1024 * MIB
    caches: int = 8192 * MIB
    tail_lines: int = 60
    archive: ArchiveLimits = field(default_factory=ArchiveLimits)
    env: Mapping[str, str] = field(default_factory=dict)
    network: Network = field(default_factory=lambda: Network(mode="egress"))


class _Job(NamedTuple):
    """One build under way. `work` names the tree in the making."""

    namespace: str
    name: str
    work: str
    runtime: Runtime
    template: FunctionTemplate
    secrets: Mapping[str, str]
    log: BuildLog

    @property
    def cache(self) -> str:
        """The kept tree of the runtime's tool in this namespace, and in no other: who may build in a namespace can
        write what its next build reads."""
        return f"{self.namespace}.{self.runtime.name}"


class SourceBuilder:
    """Unpacks, installs dependencies in a sandbox, freezes; equal builds come from the cache."""

    def __init__(
        self,
        *,
        blobs: Blobs,
        trees: Trees,
        tasks: TaskRunner,
        cache: BuildCache,
        runtimes: Mapping[str, Runtime],
        salt: Callable[[Runtime], Mapping[str, str]],
        settings: BuildSettings,
    ) -> None:
        self._blobs = blobs
        self._trees = trees
        self._tasks = tasks
        self._cache = cache
        self._runtimes = runtimes
        self._salt = salt
        self._settings = settings
        self._room = asyncio.Semaphore(settings.at_once)
        self._turns = Turns()
        self._memory: Memory | None = None

    def attach(self, memory: Memory) -> None:
        """From now on every step asks for its memory before it runs, and gives it back."""
        self._memory = memory

    async def build(
        self, namespace: str, name: str, template: FunctionTemplate, secrets: dict[str, str], progress: Progress
    ) -> Artifact:
        runtime = self._runtimes.get(template.runtime)
        if runtime is None:
            raise InvalidInput(
                f"there is no runtime {template.runtime!r}", hint=f"choose one of: {', '.join(sorted(self._runtimes))}"
            )
        # The first look at a runtime runs its interpreter.
        salt = dict(await asyncio.to_thread(self._salt, runtime))
        if runtime.keeps_cache:
            # The result depends on what the namespace's earlier builds left: no other may be given it.
            salt["namespace"] = namespace
        key = cache_key(runtime, template, secrets, salt)
        async with self._turns.of(key):
            if kept := await self._kept(key):
                progress("from the build cache")
                return kept
            log = BuildLog(
                secrets.values(),
                [*self._settings.env.values(), *template.build.env.values()],
                progress,
                self._settings.log,
            )
            job = _Job(namespace, name, f"build-{key[:24]}", runtime, template, secrets, log)
            async with self._cache_of(job), self._room:
                artifact = await self._make(job)
            self._cache.put(key, artifact)
            return artifact

    @contextlib.asynccontextmanager
    async def _cache_of(self, job: _Job) -> AsyncIterator[None]:
        """One build at a time writes into a cache: instances run under users of their own. Whoever waits holds no
        room, so that another namespace's builds go on."""
        if not job.runtime.keeps_cache:
            yield
            return
        async with self._turns.of(job.cache):
            await self._trees.keep(job.cache)
            try:
                yield
            finally:
                share = self._settings.caches // len(await self._trees.kept())
                await self._trees.trim(job.cache, min(share, self._settings.cache))

    async def _kept(self, key: str) -> Artifact | None:
        """What this build made before, if both its tree and its log are still there."""
        kept = self._cache.get(key)
        try:
            if kept is not None:
                await self._blobs.size(kept.log)
        except NotFound:
            return None
        return kept

    async def _make(self, job: _Job) -> Artifact:
        root = await self._trees.create(job.work)
        try:
            code = root / "code"
            # Archives carry no checksum of their own: what is unpacked has to be what was uploaded.
            await anext(self._blobs.open(job.template.source), b"")
            await asyncio.to_thread(self._unpack, job.template.source, code)
            names = [path.name for path in code.iterdir()]
            for step in plan(job.runtime, job.template, names).steps:
                (root / "deps").mkdir(exist_ok=True)
                await self._run(job, step)
            tree = await self._trees.freeze(job.work)
        except (BuildFailed, NodeFull) as error:
            await self._trees.discard(job.work)
            error.details["build_log"] = await self._blobs.put_bytes(job.log.whole())
            raise
        except BaseException:
            await self._trees.discard(job.work)
            raise
        return Artifact(tree, await self._blobs.put_bytes(job.log.whole()))

    def _unpack(self, source: str, code: Path) -> None:
        code.mkdir()
        facts = extract(self._blobs.path(source), code, self._settings.archive)
        if facts.files == 0:
            raise InvalidInput("the archive holds no file")

    async def _run(self, job: _Job, step: RuntimeBuild) -> None:
        request = self._request(job, step)
        job.log.line(f"$ {' '.join(_shown(word, job.runtime) for word in request.containers[0].command)}")
        no_network = None
        try:
            ended = await self._end(job, request)
        except InvalidInput as error:
            if not str(error.details.get("field", "")).startswith("network"):
                raise BuildFailed(
                    error.message, hint=error.hint, details={"log": job.log.tail(self._settings.tail_lines)}
                ) from error
            # What the source brings along can be installed all the same.
            no_network = error
            job.log.line(f"this build has no network: {error}")
            ended = await self._end(job, _alone(request))
        if ended.code != 0 or ended.limit:
            raise self._failure(job, step, ended, no_network)

    async def _end(self, job: _Job, request: LaunchRequest) -> InstanceExit:
        async with self._reserved(job, request.containers[0].limits.memory):
            return await self._tasks.run(request, job.log.line, job.template.build.timeout, self._settings.output)

    def _reserved(self, job: _Job, memory: int) -> contextlib.AbstractAsyncContextManager[None]:
        if self._memory is None:
            return contextlib.nullcontext()
        return self._memory.reserve(memory, f"the build of {job.name}", job.log.line)

    def _request(self, job: _Job, step: RuntimeBuild) -> LaunchRequest:
        settings = self._settings
        memory = job.template.build.memory or min(step.memory or settings.memory, settings.memory)
        host = surroundings(settings.env)
        cache = (Volume(tree=job.cache, target=CACHE, writable=True),) if step.cache else ()
        where = {step.cache: CACHE} if step.cache else {}
        return LaunchRequest(
            id=_task_id(),
            namespace=job.namespace,
            function=job.name,
            revision="",
            kind="task",
            network=Network() if step.offline else settings.network,
            labels={"task": "build"},
            containers=(
                Container(
                    name="build",
                    runtime=job.runtime.name,
                    command=resolve(step.command),
                    env={"HOME": "/tmp", **host.env, **job.template.build.env, **job.secrets, **where},  # noqa: S108
                    files=host.files,
                    volumes=(Volume(tree=job.work, target="/function", writable=True), *cache),
                    working_directory=CODE,
                    limits=Limits(memory=memory, cpu=settings.cpu, pids=settings.pids, tmp=min(settings.tmp, memory)),
                ),
            ),
        )

    def _failure(
        self, job: _Job, step: RuntimeBuild, ended: InstanceExit, no_network: InvalidInput | None
    ) -> BuildFailed:
        how = ended.message or f"it ended with {f'signal {ended.signal}' if ended.signal else f'code {ended.code}'}"
        hint = "read the end of the build's log; a revision that serves already keeps serving"
        if no_network is not None:
            how, hint = f"{how}; it had no network: {no_network.message}", no_network.hint
        elif ended.limit == "memory":
            hint = "raise build.memory"
        elif ended.code == NOT_FOUND and step.needs:
            hint = f"this host may lack what the build needs: apt install {' '.join(step.needs)}"
        return BuildFailed(
            f"the build step for {_what(step)} failed: {how}",
            hint=hint,
            limit=ended.limit,
            details={"log": job.log.tail(self._settings.tail_lines)},
        )


def _alone(request: LaunchRequest) -> LaunchRequest:
    """The same task without a network."""
    containers = tuple(msgspec.structs.replace(one, env={**one.env, **ALONE}) for one in request.containers)
    return msgspec.structs.replace(request, id=_task_id(), network=Network(), containers=containers)


def _task_id() -> str:
    return f"build-{uuid.uuid4().hex[:20]}"


def _what(step: RuntimeBuild) -> str:
    return "every source" if step.when == ALWAYS else step.when


def _shown(word: str, runtime: Runtime) -> str:
    """A word of a command as a person would write it."""
    return word.replace("{interpreter}", runtime.name).replace("{runtime}", RUNTIME)
