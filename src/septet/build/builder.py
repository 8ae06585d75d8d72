"""From an uploaded archive to the tree that instances mount (`ports/builder.py`)."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from septet.build.archive import extract
from septet.build.cache import BuildCache
from septet.build.members import ArchiveLimits
from septet.build.plan import CODE, RUNTIME, cache_key, plan, resolve
from septet.build.task import TaskRunner
from septet.model.errors import BuildFailed, FunctionError, InvalidInput, SeptetError
from septet.model.function import FunctionTemplate, Limits, Network
from septet.model.instance import InstanceExit
from septet.model.runtime import Runtime, RuntimeBuild
from septet.ports.blobs import Blobs, Progress, Trees
from septet.ports.builder import Artifact
from septet.ports.sandbox import Container, LaunchRequest, Volume


@dataclass(frozen=True)
class BuildSettings:
    """Builds at a time, the limits of each, and what every build finds in its environment (indexes, certificates)."""

    at_once: int = 2
    memory: int = 2048
    cpu: float = 2.0
    pids: int = 512
    tmp: int = 1024
    log_lines: int = 20_000
    tail_lines: int = 60
    archive: ArchiveLimits = field(default_factory=ArchiveLimits)
    env: Mapping[str, str] = field(default_factory=dict)
    network: Network = field(default_factory=lambda: Network(mode="egress"))


class _Log:
    """The build's output: bounded, with the secrets blotted out."""

    def __init__(self, settings: BuildSettings, secrets: Mapping[str, str], progress: Progress) -> None:
        self._lines: deque[str] = deque(maxlen=settings.log_lines)
        self._tail = settings.tail_lines
        self._secrets = sorted((value for value in secrets.values() if len(value) >= 4), key=len, reverse=True)
        self._progress = progress

    def line(self, text: str) -> None:
        for value in self._secrets:
            text = text.replace(value, "***")
        self._lines.append(text)
        self._progress(text)

    def tail(self) -> str:
        return "\n".join(list(self._lines)[-self._tail :])

    def whole(self) -> bytes:
        return ("\n".join(self._lines) + "\n").encode("utf-8", "replace")


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
        self._locks: dict[str, asyncio.Lock] = {}

    async def build(
        self, namespace: str, name: str, template: FunctionTemplate, secrets: dict[str, str], progress: Progress
    ) -> Artifact:
        runtime = self._runtimes.get(template.runtime)
        if runtime is None:
            raise InvalidInput(
                f"there is no runtime {template.runtime!r}", hint=f"choose one of: {', '.join(sorted(self._runtimes))}"
            )
        key = cache_key(runtime, template, secrets, self._salt(runtime))
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                if kept := self._cache.get(key):
                    progress("from the build cache")
                    return kept
                async with self._room:
                    artifact = await self._make(namespace, name, key, runtime, template, secrets, progress)
                self._cache.put(key, artifact)
                return artifact
        finally:
            if not lock.locked():
                self._locks.pop(key, None)

    async def _make(
        self,
        namespace: str,
        name: str,
        key: str,
        runtime: Runtime,
        template: FunctionTemplate,
        secrets: dict[str, str],
        progress: Progress,
    ) -> Artifact:
        log = _Log(self._settings, secrets, progress)
        work = f"build-{key[:24]}"
        root = await self._trees.create(work)
        try:
            code = root / "code"
            await asyncio.to_thread(self._unpack, template.source, code)
            names = [path.name for path in code.iterdir()]
            for step in plan(runtime, template, names).steps:
                (root / "deps").mkdir(exist_ok=True)
                await self._run(namespace, name, work, runtime, template, step, secrets, log)
            tree = await self._trees.freeze(work)
        except BaseException:
            await self._trees.discard(work)
            raise
        return Artifact(tree, await self._blobs.put_bytes(log.whole()))

    def _unpack(self, source: str, code: Path) -> None:
        code.mkdir()
        facts = extract(self._blobs.path(source), code, self._settings.archive)
        if facts.files == 0:
            raise InvalidInput("the archive holds no file")

    async def _run(
        self,
        namespace: str,
        name: str,
        work: str,
        runtime: Runtime,
        template: FunctionTemplate,
        step: RuntimeBuild,
        secrets: dict[str, str],
        log: _Log,
    ) -> None:
        command = resolve(step.command)
        log.line(f"$ {' '.join(_shown(word, runtime) for word in command)}")
        settings = self._settings
        request = LaunchRequest(
            id=f"build-{uuid.uuid4().hex[:20]}",
            namespace=namespace,
            function=name,
            revision="",
            kind="task",
            network=Network() if step.offline else settings.network,
            labels={"task": "build"},
            containers=(
                Container(
                    name="build",
                    runtime=runtime.name,
                    command=command,
                    env={"HOME": "/tmp", **settings.env, **template.build.env, **secrets},  # noqa: S108
                    volumes=(Volume(tree=work, target="/function", writable=True),),
                    working_directory=CODE,
                    limits=Limits(memory=settings.memory, cpu=settings.cpu, pids=settings.pids, tmp=settings.tmp),
                ),
            ),
        )
        try:
            ended = await self._tasks.run(request, log.line, template.build.timeout)
        except SeptetError as error:
            if isinstance(error, InvalidInput | FunctionError):
                raise BuildFailed(error.message, hint=error.hint, details={"log": log.tail()}) from error
            raise
        if ended.code != 0:
            raise _failure(step, ended, log)


def _shown(word: str, runtime: Runtime) -> str:
    """A word of a command as a person would write it."""
    return word.replace("{interpreter}", runtime.name).replace("{runtime}", RUNTIME)


def _failure(step: RuntimeBuild, ended: InstanceExit, log: _Log) -> BuildFailed:
    how = ended.message or f"it ended with {f'signal {ended.signal}' if ended.signal else f'code {ended.code}'}"
    return BuildFailed(
        f"the build step for {step.when} failed: {how}",
        hint="read the end of the build's log; a revision that serves already keeps serving",
        limit=ended.limit,
        details={"log": log.tail()},
    )
