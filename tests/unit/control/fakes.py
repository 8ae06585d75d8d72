"""A world in memory on virtual time: a sandbox, a contract, a builder, and calls through the real pool."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import selectors
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from septet.model.errors import Corrupt, NotFound, SeptetError
from septet.model.function import FunctionTemplate, Limits
from septet.model.instance import InstanceEvent, InstanceExit, InstanceInfo, InstanceStats, LimitMet
from septet.ports.builder import Artifact
from septet.ports.contract import Link, RequestHead, Upload
from septet.ports.logs import LogLine
from septet.ports.sandbox import Capabilities, Check, LaunchRequest

EPOCH = 1_700_000_000.0


class VirtualSelector(selectors.DefaultSelector):
    """Never waits: the time it was asked to wait passes at once."""

    loop: Any

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout > 0:
            self.loop.passed += timeout
            timeout = 0
        return super().select(timeout)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer, so that minutes take milliseconds."""

    def __init__(self) -> None:
        selector = VirtualSelector()
        self.passed = 1000.0
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.passed


class LoopClock:
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return EPOCH + self.now()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class FakeSandbox:
    """`start_delay` seconds to a process. `peak` is the most memory (MiB) that was ever in use at once."""

    def __init__(self, adopt: bool = False) -> None:
        self.name = "process"
        self.adopt = adopt
        self.ask_delay = 0.0
        self.start_delay = 0.05
        self.stop_delay = 0.01
        self.met: tuple[LimitMet, ...] = ()
        self.looks = 0
        self.running: dict[str, InstanceInfo] = {}
        self.requests: dict[str, LaunchRequest] = {}
        self.refuse: Callable[[LaunchRequest], SeptetError | None] = lambda request: None
        self.dies: Callable[[InstanceInfo], InstanceExit | None] = lambda info: None
        self.peak = 0
        self.most = 0
        self.stop_fails = 0
        self.freezes = False
        self.freeze_delay = 0.001
        self.frozen: set[str] = set()
        self.freeze_fails: Callable[[str], SeptetError | None] = lambda instance: None
        self.thaw_fails: Callable[[str], SeptetError | None] = lambda instance: None
        self.handler: Any = None

    async def open(self, on_event: Any, output: Any, on_gateway: Any) -> None:
        self.handler = on_event

    def capabilities(self) -> Capabilities:
        return Capabilities(adopt=self.adopt, gateway=True, freeze=self.freezes)

    async def probe(self) -> list[Check]:
        return []

    async def start(self, request: LaunchRequest) -> InstanceInfo:
        if error := self.refuse(request):
            raise error
        await asyncio.sleep(self.ask_delay)
        self.requests[request.id] = request
        info = InstanceInfo(
            id=request.id,
            namespace=request.namespace,
            function=request.function,
            revision=request.revision,
            driver=self.name,
            state="starting",
            protocol=request.protocol,
            started_at=EPOCH,
            memory=request.containers[0].limits.memory,
            labels=request.labels,
        )
        self.running[info.id] = info
        self.peak = max(self.peak, sum(other.memory for other in self.running.values()))
        self.most = max(self.most, len(self.running))
        asyncio.get_running_loop().call_later(self.start_delay, self._runs, info.id)
        return info

    def _runs(self, id: str) -> None:
        if id not in self.running:
            return
        if exit := self.dies(self.running[id]):
            self.end(id, exit)
            return
        info = self.running[id] = msgspec.structs.replace(self.running[id], state="running")
        self.handler(InstanceEvent(instance=info, at=EPOCH))

    def end(self, id: str, exit: InstanceExit) -> None:
        """The instance ends, whoever wanted it."""
        info = self.running.pop(id, None)
        self.frozen.discard(id)
        if info is not None:
            info = msgspec.structs.replace(info, state="stopped", exit=exit)
            self.handler(InstanceEvent(instance=info, at=EPOCH))

    async def connect(self, instance: str, factory: Any) -> Any:
        raise AssertionError("the fake contract needs no stream")

    async def stop(self, instance: str, grace: float) -> None:
        if self.stop_fails:
            self.stop_fails -= 1
            from septet.model.errors import Unavailable

            raise Unavailable("the driver does not answer")
        await asyncio.sleep(self.stop_delay)
        self.end(instance, InstanceExit(code=0, asked=True))

    async def freeze(self, instance: str) -> None:
        if error := self.freeze_fails(instance):
            raise error
        await asyncio.sleep(self.freeze_delay)
        self.frozen.add(instance)
        self.running[instance] = msgspec.structs.replace(self.running[instance], state="frozen")

    async def thaw(self, instance: str) -> None:
        if error := self.thaw_fails(instance):
            raise error
        if instance not in self.running:
            raise NotFound(f"there is no instance {instance}")
        self.frozen.discard(instance)
        self.running[instance] = msgspec.structs.replace(self.running[instance], state="running")

    async def stats(self, instance: str) -> InstanceStats:
        self.looks += 1
        return InstanceStats(met=self.met)

    async def instances(self) -> list[InstanceInfo]:
        return list(self.running.values())

    async def close(self) -> None:
        return None


class FakeLink:
    def __init__(self, instance: InstanceInfo, on_lost: Callable[[], None]) -> None:
        self.instance = instance
        self.on_lost = on_lost
        self.closed = False

    def begin(self, head: RequestHead, reply: Any) -> Upload:
        raise AssertionError("calls are simulated")

    async def close(self, grace: float) -> None:
        self.closed = True


class FakeContract:
    """`refuse(info, template)` gives the error with which opening fails, if it does."""

    name = "frames"

    def __init__(self) -> None:
        self.init_delay = 0.02
        self.refuse: Callable[[InstanceInfo, FunctionTemplate], SeptetError | None] = lambda info, template: None
        self.links: dict[str, FakeLink] = {}

    async def open(
        self, connect: Any, instance: Any, template: Any, *, deadline: float, on_lost: Any, on_log: Any
    ) -> Link:
        await asyncio.sleep(self.init_delay)
        if error := self.refuse(instance, template):
            raise error
        link = self.links[instance.id] = FakeLink(instance, on_lost)
        return link

    async def specialise(self, link: Link, template: Any, artifact: str, *, deadline: float) -> Link:
        raise AssertionError("nothing is specialised here")


class FakeBuilder:
    def __init__(self) -> None:
        self.delay = 0.1
        self.builds: list[tuple[str, dict[str, str]]] = []
        self.refuse: Callable[[FunctionTemplate], Exception | None] = lambda template: None
        self.now = 0
        self.most = 0

    async def build(self, namespace: str, name: str, template: Any, secrets: Any, progress: Any) -> Artifact:
        self.builds.append((name, secrets))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            progress("building")
            await asyncio.sleep(self.delay)
            if error := self.refuse(template):
                raise error
        finally:
            self.now -= 1
        return Artifact("tree:" + hashlib.sha256(template.source.encode()).hexdigest(), "sha256:log")


class FakeVault:
    def seal(self, plain: bytes, context: str) -> str:
        return base64.b64encode(context.encode() + b"|" + plain).decode()

    def open(self, sealed: str, context: str) -> bytes:
        bound, _, plain = base64.b64decode(sealed).partition(b"|")
        if bound != context.encode():
            raise Corrupt("sealed for another place")
        return plain


class FakeStorage:
    """Blobs and trees alike: digests that can be deleted."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.gone: set[str] = set()
        """Digests that nobody has; of any other, there is something."""
        self.caches: list[str] = []
        self.trimmed: list[tuple[str, int]] = []

    async def size(self, digest: str) -> int:
        if digest in self.gone:
            raise NotFound(digest)
        return len(self.held.get(digest, b"bytes"))

    async def kept(self) -> list[str]:
        return list(self.caches)

    async def trim(self, name: str, limit: int) -> int:
        self.trimmed.append((name, limit))
        if not limit:
            self.caches.remove(name)
        return limit

    async def put_bytes(self, data: bytes) -> str:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.held[digest] = data
        return digest

    async def digests(self) -> list[str]:
        return list(self.held)

    async def delete(self, digest: str) -> None:
        self.held.pop(digest, None)

    def path(self, digest: str) -> Path:
        raise NotFound(digest)


class FakeLogs:
    def __init__(self) -> None:
        self.lines: list[LogLine] = []
        self.deleted: list[tuple[str, str]] = []

    def write(self, line: LogLine) -> None:
        self.lines.append(line)

    async def read(
        self, namespace: str, function: str, *, instance: str = "", tail: int = 0, **_: Any
    ) -> list[LogLine]:
        return [line for line in self.lines if line.function == function and instance in ("", line.instance)][-tail:]

    def follow(self, namespace: str, function: str, *, since: float = 0.0) -> AsyncIterator[LogLine]:
        raise AssertionError("control follows no logs")

    async def delete(self, namespace: str, function: str) -> None:
        self.deleted.append((namespace, function))


class Call:
    """A call that runs for `seconds`; `outcome` is the revision that answered, or the error."""

    def __init__(self, seconds: float, then: Callable[[Call], None] | None = None) -> None:
        self.seconds = seconds
        self.outcome: str | SeptetError | None = None
        self.began = asyncio.get_running_loop().time()
        self.waited = 0.0
        self.ended = asyncio.Event()
        self._then = then

    def assign(self, link: Link, on_done: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self.waited = loop.time() - self.began

        def done() -> None:
            fake: Any = link
            if fake.closed:
                self.outcome = SeptetError("the link was closed under a running call")
            else:
                self.outcome = link.instance.revision
            on_done()
            self._finish()

        loop.call_later(self.seconds, done)

    def fail(self, error: SeptetError) -> None:
        self.outcome = error
        self._finish()

    def _finish(self) -> None:
        self.ended.set()
        if self._then:
            self._then(self)


SMALL = Limits(memory=128, timeout=10.0, start_timeout=5.0)
