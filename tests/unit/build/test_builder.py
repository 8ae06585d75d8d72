"""Builds: what is planned, what is kept, what a failure says and leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from septet.build.builder import BuildSettings, SourceBuilder
from septet.build.cache import BuildCache
from septet.build.plan import cache_key, plan, resolve
from septet.build.task import TaskRunner
from septet.model.errors import BuildFailed, InvalidInput, NodeFull, NotFound
from septet.model.function import Build, FunctionTemplate
from septet.model.instance import InstanceEvent, InstanceExit, InstanceInfo, InstanceStats
from septet.model.runtime import Runtime, RuntimeBuild
from septet.ports.sandbox import (
    Capabilities,
    Check,
    EventHandler,
    GatewayHandler,
    LaunchRequest,
    OutputSink,
    ProtocolFactory,
)

PIP = RuntimeBuild(when="requirements.txt", command=("pip", "install", "--target", "{deps}", "-r", "{code}/r.txt"))
PROJECT = RuntimeBuild(when="pyproject.toml", command=("pip", "install", "--target", "{deps}", "{code}"))
COMPILE = RuntimeBuild(when="*", command=("compile",), memory=64)
PYTHON = Runtime(name="python", builds=(PIP, PROJECT, COMPILE))
KEEPS = Runtime(name="keeps", builds=(RuntimeBuild(when="*", command=("make",), cache="MAKECACHE"),))


class FolderBlobs:
    def __init__(self, root: Path) -> None:
        self.root = root

    async def put(self, chunks: AsyncIterator[bytes], limit: int = 0) -> str:
        return await self.put_bytes(b"".join([chunk async for chunk in chunks]))

    async def put_bytes(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        (self.root / digest).write_bytes(data)
        return f"sha256:{digest}"

    async def open(self, digest: str) -> AsyncIterator[bytes]:
        yield self.path(digest).read_bytes()

    async def read(self, digest: str, limit: int = 0) -> bytes:
        return self.path(digest).read_bytes()

    async def size(self, digest: str) -> int:
        return self.path(digest).stat().st_size

    async def delete(self, digest: str) -> None:
        self.path(digest).unlink()

    async def digests(self) -> list[str]:
        return [f"sha256:{path.name}" for path in self.root.iterdir()]

    def path(self, digest: str) -> Path:
        path = self.root / digest.removeprefix("sha256:")
        if not path.exists():
            raise NotFound(digest)
        return path


class FolderTrees:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.trimmed: list[tuple[str, int]] = []

    async def create(self, work: str) -> Path:
        (self.root / work).mkdir()
        return self.root / work

    def folder(self) -> Path:
        return self.root

    def working(self, work: str) -> Path:
        return self.root / work

    async def freeze(self, work: str) -> str:
        names = sorted(str(p.relative_to(self.root / work)) for p in (self.root / work).rglob("*"))
        digest = f"tree:{hashlib.sha256(repr(names).encode()).hexdigest()}"
        if (self.root / digest).exists():
            await self.discard(work)
        else:
            (self.root / work).rename(self.root / digest)
        return digest

    async def discard(self, work: str) -> None:
        (self.root / work).rename(self.root / f"gone-{work}")

    def path(self, digest: str) -> Path:
        if not (self.root / digest).exists():
            raise NotFound(digest)
        return self.root / digest

    async def keep(self, name: str) -> Path:
        (self.root / name).mkdir(exist_ok=True)
        return self.root / name

    async def trim(self, name: str, limit: int) -> int:
        self.trimmed.append((name, limit))
        return 0

    async def kept(self) -> list[str]:
        return [p.name for p in self.root.iterdir() if "." in p.name]

    async def delete(self, digest: str) -> None:
        (self.root / digest).rename(self.root / f"gone-{digest}")

    async def digests(self) -> list[str]:
        return [p.name for p in self.root.iterdir() if p.name.startswith("tree:")]


Script = Callable[[LaunchRequest, Callable[[str], None]], InstanceExit | None]


class ScriptedSandbox:
    """Runs a task by asking the test's script; None means that it never ends by itself."""

    name = "scripted"

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[LaunchRequest] = []
        self.stopped: list[str] = []
        self.tasks = TaskRunner(self)

    async def start(self, request: LaunchRequest) -> InstanceInfo:
        self.requests.append(request)
        info = InstanceInfo(
            id=request.id,
            namespace=request.namespace,
            function=request.function,
            revision="",
            driver=self.name,
            state="starting",
            protocol="frames",
            started_at=0,
        )
        ended = self.script(request, lambda text: self._say(info, text))
        if ended is not None:
            gone = msgspec.structs.replace(info, state="stopped", exit=ended)
            asyncio.get_running_loop().call_soon(self.tasks.on_event, InstanceEvent(instance=gone, at=0))
        return info

    def _say(self, info: InstanceInfo, text: str) -> None:
        assert self.tasks.line(info, text.encode())

    async def stop(self, instance: str, grace: float) -> None:
        self.stopped.append(instance)

    async def open(self, on_event: EventHandler, output: OutputSink, on_gateway: GatewayHandler | None) -> None:
        raise AssertionError

    def capabilities(self) -> Capabilities:
        return Capabilities()

    async def probe(self) -> list[Check]:
        return []

    async def connect(self, instance: str, factory: ProtocolFactory) -> asyncio.Transport:
        raise AssertionError

    async def freeze(self, instance: str) -> None:
        raise AssertionError

    async def thaw(self, instance: str) -> None:
        raise AssertionError

    async def stats(self, instance: str) -> InstanceStats:
        raise NotFound(instance)

    async def instances(self) -> list[InstanceInfo]:
        return []

    async def close(self) -> None:
        raise AssertionError


def archive(**files: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


class Workshop:
    def __init__(self, root: Path, script: Script, salt: Mapping[str, str]) -> None:
        for name in ("blobs", "trees", "cache"):
            (root / name).mkdir()
        self.blobs = FolderBlobs(root / "blobs")
        self.trees = FolderTrees(root / "trees")
        self.sandbox = ScriptedSandbox(script)
        self.lines: list[str] = []
        self.builder = SourceBuilder(
            blobs=self.blobs,
            trees=self.trees,
            tasks=self.sandbox.tasks,
            cache=BuildCache(root / "cache", self.trees),
            runtimes={"python": PYTHON, "keeps": KEEPS},
            salt=lambda runtime: salt,
            settings=BuildSettings(env={"PIP_INDEX_URL": "index"}),
        )

    async def template(self, build: Build | None = None, **files: str) -> FunctionTemplate:
        source = await self.blobs.put_bytes(archive(**files))
        return FunctionTemplate(runtime="python", source=source, build=build or Build())

    async def build(self, template: FunctionTemplate, secrets: dict[str, str] | None = None) -> str:
        made = await self.builder.build("default", "hello", template, secrets or {}, self.lines.append)
        return made.tree


def succeed(request: LaunchRequest, say: Callable[[str], None]) -> InstanceExit:
    say("Successfully installed")
    return InstanceExit(code=0)


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path, succeed, {"python": "3.11.2"})


def test_the_first_fitting_build_is_planned_and_then_what_always_runs() -> None:
    template = FunctionTemplate(runtime="python", source="sha256:x")
    assert plan(PYTHON, template, ["main.py"]).steps == (COMPILE,)
    assert plan(PYTHON, template, ["pyproject.toml", "requirements.txt"]).steps == (PIP, COMPILE)
    skipped = FunctionTemplate(runtime="python", source="sha256:x", build=Build(skip=True))
    assert plan(PYTHON, skipped, ["requirements.txt"]).steps == ()
    assert resolve(PIP.command) == (
        "pip", "install", "--target", "/function/deps", "-r", "/function/code/r.txt"
    )  # fmt: skip


def test_the_key_changes_with_whatever_changes_the_result() -> None:
    template = FunctionTemplate(runtime="python", source="sha256:x")
    same = cache_key(PYTHON, template, {"K": "v"}, {"python": "1"})
    assert same == cache_key(PYTHON, template, {"K": "v"}, {"python": "1"})
    other_env = FunctionTemplate(runtime="python", source="sha256:x", build=Build(env={"A": "b"}))
    others = {
        cache_key(PYTHON, FunctionTemplate(runtime="python", source="sha256:y"), {"K": "v"}, {"python": "1"}),
        cache_key(PYTHON, other_env, {"K": "v"}, {"python": "1"}),
        cache_key(PYTHON, template, {"K": "w"}, {"python": "1"}),
        cache_key(PYTHON, template, {"K": "v"}, {"python": "2"}),
        cache_key(Runtime(name="other"), template, {"K": "v"}, {"python": "1"}),
    }
    assert len(others) == 5
    assert same not in others


async def test_a_build_runs_once_for_the_same_source(shop: Workshop) -> None:
    template = await shop.template(main__py="x = 1", requirements__txt="requests")
    first = await shop.build(template)
    assert (shop.trees.path(first) / "code/main.py").read_text() == "x = 1"
    assert [r.containers[0].command[0] for r in shop.sandbox.requests] == ["pip", "compile"]
    assert await shop.build(template) == first
    assert len(shop.sandbox.requests) == 2
    assert shop.lines[-1] == "from the build cache"


async def test_two_at_once_build_once(shop: Workshop) -> None:
    template = await shop.template(main__py="x = 1")
    one, two = await asyncio.gather(shop.build(template), shop.build(template))
    assert one == two
    assert len(shop.sandbox.requests) == 1


async def test_the_build_alone_sees_its_secrets_and_its_log_does_not(tmp_path: Path) -> None:
    def leak(request: LaunchRequest, say: Callable[[str], None]) -> InstanceExit:
        say(f"looking in {request.containers[0].env['TOKEN']}/simple")
        return InstanceExit(code=0)

    shop = Workshop(tmp_path, leak, {})
    template = await shop.template(requirements__txt="x")
    made = await shop.builder.build("default", "hello", template, {"TOKEN": "hunter22"}, shop.lines.append)
    assert "looking in ***/simple" in shop.lines
    assert b"hunter22" not in await shop.blobs.read(made.log)


async def test_a_failed_build_says_how_it_ended_and_leaves_nothing(tmp_path: Path) -> None:
    def fail(request: LaunchRequest, say: Callable[[str], None]) -> InstanceExit:
        say("ERROR: no such package")
        return InstanceExit(code=1)

    shop = Workshop(tmp_path, fail, {})
    template = await shop.template(requirements__txt="nothing-of-this-name")
    with pytest.raises(BuildFailed) as caught:
        await shop.build(template)
    assert "requirements.txt failed: it ended with code 1" in caught.value.message
    assert "no such package" in str(caught.value.details["log"])
    assert await shop.trees.digests() == []
    assert not list((tmp_path / "cache").iterdir())


async def test_a_build_that_takes_too_long_is_killed_and_says_so(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, lambda request, say: None, {})
    template = await shop.template(Build(timeout=0.05), requirements__txt="x")
    with pytest.raises(BuildFailed) as caught:
        await shop.build(template)
    assert caught.value.limit == "time"
    assert shop.sandbox.stopped


async def test_a_hostile_archive_is_refused_before_anything_runs(shop: Workshop) -> None:
    template = FunctionTemplate(runtime="python", source=await shop.blobs.put_bytes(b"no archive"))
    with pytest.raises(InvalidInput):
        await shop.build(template)
    assert shop.sandbox.requests == []


async def test_an_unknown_runtime_is_named(shop: Workshop) -> None:
    with pytest.raises(InvalidInput, match="cobol"):
        await shop.build(FunctionTemplate(runtime="cobol", source="sha256:x"))


async def test_a_cache_entry_without_its_tree_is_no_entry(shop: Workshop) -> None:
    template = await shop.template(main__py="x = 1")
    first = await shop.build(template)
    await shop.trees.delete(first)
    assert await shop.build(template) == first
    assert len(shop.sandbox.requests) == 2


def cache_of(request: LaunchRequest) -> list[str]:
    return [volume.tree for volume in request.containers[0].volumes if volume.target == "/cache"]


async def test_a_tools_cache_is_its_namespaces_alone(shop: Workshop) -> None:
    template = msgspec.structs.replace(
        await shop.template(Build(env={"MAKECACHE": "/function"}), a="1"), runtime="keeps"
    )
    for namespace in ("one", "two", "one"):
        await shop.builder.build(namespace, "hello", template, {"MAKECACHE": "/function"}, shop.lines.append)
    assert [cache_of(request) for request in shop.sandbox.requests] == [["one.keeps"], ["two.keeps"]], (
        "what one namespace's cache was part of is not another's"
    )
    assert {request.containers[0].env["MAKECACHE"] for request in shop.sandbox.requests} == {"/cache"}
    assert shop.trees.trimmed == [("one.keeps", 1 << 30), ("two.keeps", 1 << 30)]
    await shop.build(await shop.template(a="1"))
    assert cache_of(shop.sandbox.requests[-1]) == []


async def test_one_build_at_a_time_writes_into_a_cache(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, lambda request, say: None, {})
    templates = [msgspec.structs.replace(await shop.template(a=text), runtime="keeps") for text in "123"]
    builds = {
        name: asyncio.create_task(shop.builder.build(namespace, name, template, {}, shop.lines.append))
        for name, namespace, template in zip("abc", ("one", "one", "two"), templates, strict=True)
    }
    while len(shop.sandbox.requests) < 2:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    running = {cache_of(request)[0]: request.function for request in shop.sandbox.requests}
    assert len(shop.sandbox.requests) == 2 and set(running) == {"one.keeps", "two.keeps"}
    builds[running["one.keeps"]].cancel()
    while len(shop.sandbox.requests) < 3:
        await asyncio.sleep(0.01)
    assert cache_of(shop.sandbox.requests[-1]) == ["one.keeps"]
    for build in builds.values():
        build.cancel()
    await asyncio.gather(*builds.values(), return_exceptions=True)


class CountedMemory:
    """Refuses whoever asks for more than `most` MiB."""

    def __init__(self, most: int = 4096) -> None:
        self.most = most
        self.asked: list[int] = []
        self.held = 0

    @contextlib.asynccontextmanager
    async def reserve(self, memory: int, what: str, waits: Callable[[str], None]) -> AsyncIterator[None]:
        self.asked.append(memory)
        waits("waits for memory")
        if memory > self.most:
            raise NodeFull(f"{what} is too big")
        self.held += memory
        try:
            yield
        finally:
            self.held -= memory


async def test_each_step_holds_its_memory_while_it_runs(tmp_path: Path) -> None:
    memory = CountedMemory()
    held: list[int] = []

    def note(request: LaunchRequest, say: Callable[[str], None]) -> InstanceExit:
        held.append(memory.held)
        return InstanceExit(code=0)

    shop = Workshop(tmp_path, note, {})
    shop.builder.attach(memory)
    template = await shop.template(main__py="x = 1", requirements__txt="requests")
    first = await shop.build(template)
    assert held == memory.asked == [2048, 64], "the second step says itself that it needs less"
    assert [r.containers[0].limits.memory for r in shop.sandbox.requests] == [2048, 64]
    assert memory.held == 0
    assert shop.lines.count("waits for memory") == 2
    assert await shop.build(template) == first
    bigger = msgspec.structs.replace(template, build=Build(memory=4096))
    assert await shop.build(bigger) == first, "memory does not decide what is made"
    assert len(memory.asked) == 2, "what is kept needs none"
    other = await shop.template(Build(memory=300), main__py="x = 2")
    await shop.build(other)
    assert memory.asked[2:] == [300]


async def test_a_failed_build_gives_its_memory_back(tmp_path: Path) -> None:
    memory = CountedMemory()
    shop = Workshop(tmp_path, lambda request, say: InstanceExit(code=1), {})
    shop.builder.attach(memory)
    with pytest.raises(BuildFailed):
        await shop.build(await shop.template(main__py="x = 1"))
    assert memory.asked and memory.held == 0


async def test_a_build_that_gets_no_memory_fails_with_its_log(shop: Workshop) -> None:
    shop.builder.attach(CountedMemory(most=100))
    with pytest.raises(NodeFull, match="the build of hello is too big") as caught:
        await shop.build(await shop.template(requirements__txt="x"))
    log = (await shop.blobs.read(str(caught.value.details["build_log"]))).decode()
    assert "$ pip install" in log and "waits for memory" in log
    assert shop.sandbox.requests == []
    assert await shop.trees.digests() == []
