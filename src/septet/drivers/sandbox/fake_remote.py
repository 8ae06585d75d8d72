"""Instances on machines that are not this one: slow to start, dying by themselves, still there after a restart.

A stand-in for a cluster's pods, to develop and test the core against what a remote driver does. `Cluster` is the
far side and outlives the driver; each of its instances is a real stream server on the loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import msgspec

from septet.model.errors import Conflict, InstanceLost, InvalidInput, NotFound, Unavailable
from septet.model.instance import InstanceEvent, InstanceExit, InstanceInfo, InstanceStats
from septet.ports.blobs import Trees
from septet.ports.clock import Clock
from septet.ports.sandbox import (
    Capabilities,
    Check,
    Container,
    EventHandler,
    GatewayHandler,
    LaunchRequest,
    OutputSink,
    ProtocolFactory,
)

_MIB = 1024 * 1024


@dataclass
class Behaviour:
    """What a process does, chosen by its start command. Times in seconds.

    `serve` makes the protocol of each connection (None: it never accepts). `exits` is when it ends by itself with
    `code`; `obeys` whether it ends when asked. `prints` are its lines of output.
    """

    serve: ProtocolFactory | None = None
    listens_after: float = 0.0
    exits: float | None = None
    code: int = 0
    obeys: bool = True
    prints: tuple[bytes, ...] = ()


@dataclass
class Pod:
    """One instance on the far side."""

    request: LaunchRequest
    info: InstanceInfo
    behaviour: Behaviour
    server: asyncio.Server | None = None
    life: asyncio.Task[InstanceExit] | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    term: asyncio.Event = field(default_factory=asyncio.Event)
    exit: InstanceExit | None = None
    connections: set[asyncio.Transport] = field(default_factory=set)


class Cluster:
    """The far side. `programs` maps a start command to what it does. Starting takes `start_seconds`.

    With `mean_life` every instance dies after a time drawn by `seed` and its id, so a run can be repeated.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        trees: Trees,
        programs: Callable[[Container], Behaviour],
        runtimes: Collection[str],
        start_seconds: float = 2.0,
        mean_life: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.clock = clock
        self.runtimes = runtimes
        self.trees = trees
        self.programs = programs
        self.pods: dict[str, Pod] = {}
        self.watcher: Callable[[Pod], None] | None = None
        self.output: OutputSink | None = None
        self._start_seconds = start_seconds
        self._mean_life = mean_life
        self._seed = seed

    def create(self, request: LaunchRequest, info: InstanceInfo) -> None:
        """Schedules an instance; it lives on without the driver."""
        pod = Pod(request, info, self.programs(request.containers[0]))
        self.pods[request.id] = pod
        pod.life = asyncio.create_task(self._run(pod))
        # Not a `finally` in the task: one that is cancelled before its first step would never get there.
        pod.life.add_done_callback(lambda life: self._over(pod, life))

    def _over(self, pod: Pod, life: asyncio.Task[InstanceExit]) -> None:
        if not life.cancelled():
            pod.exit = life.result()
        if pod.server is not None:
            pod.server.close()
        for transport in pod.connections:
            transport.abort()
        pod.info = msgspec.structs.replace(pod.info, state="stopped", exit=pod.exit)
        self.pods.pop(pod.info.id, None)
        pod.ended.set()
        self._tell(pod)

    async def _run(self, pod: Pod) -> InstanceExit:
        if await self._asked_within(pod, self._start_seconds):
            return InstanceExit(signal=15, message="it ended by signal SIGTERM", asked=True)
        pod.info = msgspec.structs.replace(pod.info, state="running")
        self._tell(pod)
        self._print(pod)
        behaviour = pod.behaviour
        left = min(self._life(pod), float("inf") if behaviour.exits is None else behaviour.exits)
        died = behaviour.exits is None or left < behaviour.exits
        if behaviour.serve is not None and pod.request.kind == "serve":
            if await self._asked_within(pod, min(left, behaviour.listens_after)):
                return InstanceExit(signal=15, message="it ended by signal SIGTERM", asked=True)
            left -= min(left, behaviour.listens_after)
            pod.server = await asyncio.get_running_loop().create_server(behaviour.serve, "127.0.0.1", 0)
        if await self._asked_within(pod, left):
            return InstanceExit(signal=15, message="it ended by signal SIGTERM", asked=True)
        if died:
            return InstanceExit(message="the machine it ran on went away")
        return InstanceExit(code=behaviour.code, message=f"it ended with code {behaviour.code}")

    def _life(self, pod: Pod) -> float:
        if not self._mean_life:
            return float("inf")
        return random.Random(f"{self._seed}:{pod.info.id}").expovariate(1 / self._mean_life)  # noqa: S311

    async def _asked_within(self, pod: Pod, seconds: float) -> bool:
        """Whether it was asked to end, and does, before the time is over."""
        waits: list[asyncio.Task[object]] = []
        if seconds != float("inf"):
            waits.append(asyncio.create_task(self.clock.sleep(seconds)))
        if pod.behaviour.obeys:
            waits.append(asyncio.create_task(pod.term.wait()))
        try:
            if waits:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.Event().wait()
        finally:
            for wait in waits:
                wait.cancel()
        return pod.behaviour.obeys and pod.term.is_set()

    def _print(self, pod: Pod) -> None:
        if self.output is not None:
            for line in pod.behaviour.prints:
                self.output.line(pod.info, "stdout", line)

    def _tell(self, pod: Pod) -> None:
        if self.watcher is not None:
            self.watcher(pod)

    async def kill(self, pod: Pod) -> None:
        """At once."""
        pod.exit = InstanceExit(signal=9, message="it ended by signal SIGKILL", asked=True)
        if pod.life is not None:
            pod.life.cancel()
        await pod.ended.wait()


class FakeRemote:
    """The driver: it holds nothing of its own, so a second one on the same cluster adopts everything."""

    name = "fake_remote"

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._clock = cluster.clock
        self._open = False
        self._links: dict[str, asyncio.Transport] = {}

    async def open(self, on_event: EventHandler, output: OutputSink, on_gateway: GatewayHandler | None) -> None:
        self._open = True
        self._cluster.output = output

        def watch(pod: Pod) -> None:
            if pod.info.state == "stopped":
                self._links.pop(pod.info.id, None)
            on_event(InstanceEvent(instance=pod.info, at=self._clock.wall()))

        self._cluster.watcher = watch
        for pod in list(self._cluster.pods.values()):
            watch(pod)

    def capabilities(self) -> Capabilities:
        return Capabilities(adopt=True)

    async def probe(self) -> list[Check]:
        return [Check(name="cluster", state="ok", detail=f"{len(self._cluster.pods)} instances", required=True)]

    async def start(self, request: LaunchRequest) -> InstanceInfo:
        if not self._open:
            raise Unavailable("the driver is not open")
        if request.id in self._cluster.pods:
            raise Conflict(f"instance {request.id} exists already")
        self._check(request)
        info = InstanceInfo(
            id=request.id,
            namespace=request.namespace,
            function=request.function,
            revision=request.revision,
            driver=self.name,
            state="starting",
            protocol=request.protocol,
            started_at=self._clock.wall(),
            memory=request.containers[0].limits.memory,
            labels=dict(request.labels),
        )
        self._cluster.create(request, info)
        return info

    def _check(self, request: LaunchRequest) -> None:
        if request.network.mode == "egress":
            raise InvalidInput("this cluster has no network mode egress", hint="use network mode none")
        if not request.containers:
            raise InvalidInput("an instance needs at least one container")
        for container in request.containers:
            if container.runtime and container.runtime not in self._cluster.runtimes:
                raise InvalidInput(f"there is no runtime {container.runtime!r} in this cluster")
            for volume in container.volumes:
                try:
                    self._cluster.trees.path(volume.tree)
                except NotFound as error:
                    raise InvalidInput(f"there is no tree {volume.tree!r}") from error

    def _find(self, instance: str) -> Pod:
        pod = self._cluster.pods.get(instance)
        if pod is None:
            raise NotFound(f"there is no instance {instance}", details={"kind": "instance", "name": instance})
        return pod

    async def connect(self, instance: str, factory: ProtocolFactory) -> asyncio.Transport:
        pod = self._find(instance)
        frames = pod.info.protocol == "frames"
        if frames and (link := self._links.get(instance)) is not None and not link.is_closing():
            raise Conflict(f"instance {instance} has its one stream open already")
        if pod.server is None or not pod.server.sockets:
            raise InstanceLost(f"instance {instance} does not accept connections")
        host, port = pod.server.sockets[0].getsockname()
        try:
            transport, _ = await asyncio.get_running_loop().create_connection(factory, host, port)
        except OSError as error:
            raise InstanceLost(f"instance {instance} does not accept connections: {error}") from error
        pod.connections = {one for one in pod.connections if not one.is_closing()} | {transport}
        if frames:
            self._links[instance] = transport
        return transport

    async def stop(self, instance: str, grace: float) -> None:
        pod = self._cluster.pods.get(instance)
        if pod is None:
            return
        if grace > 0:
            pod.term.set()
            await self._wait(pod, grace)
        if not pod.ended.is_set():
            await self._cluster.kill(pod)

    async def _wait(self, pod: Pod, seconds: float) -> None:
        ended = asyncio.create_task(pod.ended.wait())
        timer = asyncio.create_task(self._clock.sleep(seconds))
        await asyncio.wait((ended, timer), return_when=asyncio.FIRST_COMPLETED)
        for task in (ended, timer):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def freeze(self, instance: str) -> None:
        self._find(instance)
        raise InvalidInput("this cluster freezes no instances")

    async def thaw(self, instance: str) -> None:
        self._find(instance)
        raise InvalidInput("this cluster freezes no instances")

    async def stats(self, instance: str) -> InstanceStats:
        self._find(instance)
        return InstanceStats(memory=_MIB, memory_peak=_MIB, pids=1)

    async def instances(self) -> list[InstanceInfo]:
        return [pod.info for pod in self._cluster.pods.values()]

    async def close(self) -> None:
        """Its instances live on; only the connections that went through us end."""
        if self._open:
            self._open = False
            self._cluster.watcher = None
            for pod in self._cluster.pods.values():
                for transport in pod.connections:
                    transport.abort()
                pod.connections.clear()
