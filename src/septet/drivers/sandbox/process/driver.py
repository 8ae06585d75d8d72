"""The process sandbox behind its port: instances are processes of this host, each within its own walls."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from septet.drivers.sandbox.process import cgroup, doctor, freeze, met, ownership, plain, streams, supervise
from septet.drivers.sandbox.process.egress import Egress, refuse
from septet.drivers.sandbox.process.egress_rules import parse_allow
from septet.drivers.sandbox.process.instance import Instance, begun
from septet.drivers.sandbox.process.launch import LauncherProcess
from septet.drivers.sandbox.process.output import OutputPipe
from septet.drivers.sandbox.process.parking import Parking
from septet.drivers.sandbox.process.pool import Prepared, WarmPool, tell
from septet.drivers.sandbox.process.resolve import Host, Resolver
from septet.drivers.sandbox.process.sets import NamespaceSets
from septet.drivers.sandbox.process.settings import ProcessSettings
from septet.drivers.sandbox.process.skeleton import Skeleton, known_privileged_files, proc_masks
from septet.drivers.sandbox.process.spec import Header, Spec, into_memory
from septet.drivers.sandbox.process.zygotes import Zygote, Zygotes
from septet.model.errors import Conflict, NodeFull, NotFound, SeptetError, Unavailable
from septet.model.function import Limits
from septet.model.instance import InstanceEvent, InstanceExit, InstanceInfo, InstanceStats, Tier
from septet.model.runtime import Runtime
from septet.ports.blobs import Trees
from septet.ports.clock import Clock
from septet.ports.sandbox import (
    Capabilities,
    Check,
    EventHandler,
    GatewayHandler,
    LaunchRequest,
    OutputSink,
    ProtocolFactory,
)

_MIB = 1024 * 1024


class ProcessSandbox:
    """Instances in namespaces and control groups, or with level "none" plain processes (ports/sandbox.py)."""

    name = "process"

    def __init__(
        self,
        *,
        runtimes: Mapping[str, Runtime],
        runtime_folder: Callable[[str], Path],
        trees: Trees,
        state_dir: Path,
        settings: ProcessSettings,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._state = state_dir
        self._walls = settings.level == "full"
        self._rootless = os.geteuid() != 0
        self._key = hashlib.sha256(str(state_dir.absolute()).encode()).hexdigest()[:8]
        self._runtimes = runtimes
        self._skeleton = Skeleton(state_dir / "skeleton")
        self._resolver = Resolver(runtimes, runtime_folder, trees, self._skeleton, settings)
        self._plain = plain.PlainResolver(self._resolver, runtime_folder, state_dir / "plain")
        self._egress = Egress(replace(settings.egress, tag=self._key[:3]))
        self._egress_missing: tuple[Check, ...] = ()
        self._egress_works = not self._walls
        self._cgroups = cgroup.here(self._key)
        self._freezer = freeze.here(self._key)
        self._launcher = LauncherProcess(settings.python, self.heard, lambda: self.launcher_lost(self._launcher))
        self._zygotes = Zygotes(runtimes, runtime_folder, self._resolver.stage, self.heard, self.launcher_lost)
        self._pool = WarmPool(self._cgroups, settings.pool_size, self._generic, self._discard, clock.now)
        memory = state_dir / "parked.json"
        self._parking = Parking(runtimes, self._resolver, self._cgroups, settings.pool_size, memory, clock.now, self)
        self._sets = NamespaceSets(settings, self._cgroups, self._resolver, self)
        self._instances: dict[str, Instance] = {}
        self.starts: dict[str, int] = {}
        """How many instances were begun, by tier."""
        self._ids: set[int] = set()
        self._next_id = 0
        self._on_event: EventHandler | None = None
        self._output: OutputSink | None = None
        self._on_gateway: GatewayHandler | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._supervisor: asyncio.Task[None] | None = None

    # -- life of the driver -----------------------------------------------------------------------------------

    async def open(self, on_event: EventHandler, output: OutputSink, on_gateway: GatewayHandler | None) -> None:
        self._on_event, self._output, self._on_gateway = on_event, output, on_gateway
        self._state.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            await asyncio.to_thread(self._prepare)
            if self._walls:
                await self._egress.cleanup()
                missing = [check for check in await self._egress.probe() if check.state == "missing"]
                self._egress_missing, self._egress_works = tuple(missing), not missing
            self._launcher.open()
            if self._walls and self._settings.zygotes:
                self._zygotes.open()
                self._parking.open()
        except OSError as error:
            raise Unavailable(
                f"the process sandbox cannot start: {error}", hint="run `septet doctor` to see what this host lacks"
            ) from error
        if "memory" not in self._cgroups.held:
            self._supervisor = asyncio.create_task(supervise.watch(self._instances, self._settings.supervise_every))

    def _prepare(self) -> None:
        self._clear_groups()
        self._freezer.open()
        self._cgroups.open()
        (self._state / "cgroups.json").write_text(json.dumps([*self._freezer.bases(), *self._cgroups.bases()]))
        self._plain.clear()
        if self._walls:
            self._skeleton.prepare()
            self._resolver.proc_masks = proc_masks()
            folders = self._skeleton.host_folders()
            self._resolver.masks = known_privileged_files(folders, self._state / "privileged.json")

    def _clear_groups(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for base in json.loads((self._state / "cgroups.json").read_text()):
                cgroup.clear(base)

    async def close(self) -> None:
        await asyncio.gather(*(self.stop(name, 0) for name in list(self._instances)))
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
            self._supervisor = None
        await self._parking.close()
        await self._pool.close()
        await self._sets.close()
        await self._launcher.close()
        await self._zygotes.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._walls:
            await self._egress.close()
        await asyncio.to_thread(self._cgroups.close)
        await asyncio.to_thread(self._freezer.close)

    def capabilities(self) -> Capabilities:
        return Capabilities(
            freeze=True,
            gateway=True,
            egress=self._egress_works,
            egress_missing=self._egress_missing,
            limits="hard" if self._cgroups.hard else "best effort",
        )

    @property
    def pooled(self) -> int:
        """Prepared sandboxes that wait."""
        return self._pool.waiting() + len(self._parking.waiting())

    async def probe(self) -> list[Check]:
        checks = await doctor.probe(self._settings.python, self._cgroups, self._runtimes)
        return [*checks, *await self._egress.probe()]

    # -- start ------------------------------------------------------------------------------------------------

    async def start(self, request: LaunchRequest) -> InstanceInfo:
        if not self._launcher.alive:
            raise Unavailable(
                "the process sandbox is not open", hint="the launcher may have died: start the platform again"
            )
        if request.id in self._instances:
            raise Conflict(f"instance {request.id} exists already")
        container = self._resolver.container(request)
        if request.network.mode == "egress":
            self._check_egress(request)
        if self._walls and (parked := self._parking.take(request, self._info(request, "pool"))) is not None:
            self._enter(parked)
            return parked.info
        egress = self._walls and request.network.mode == "egress"
        host_id = self.take_id()
        prepared: Prepared | None = None
        try:
            spec = self._spec(request, host_id)
            zygote = self._zygotes.choose(request, spec)
            shared = self._sets.choose(request, zygote or self._launcher)
            prepared = self._from_pool(zygote, spec) if shared is None else None
            if prepared is not None:
                self._ids.discard(host_id)
                host_id = prepared.spec.uid
                spec = replace(spec, uid=prepared.spec.uid, gid=prepared.spec.gid)
            group = shared.group(request) if shared else self._group(request.id, container.limits, prepared)
        except OSError as error:
            self._ids.discard(host_id)
            if prepared is not None:
                prepared.zygote.kill(prepared.id)
            raise Unavailable(f"no control group for instance {request.id}: {error}") from error
        except BaseException:
            self._ids.discard(host_id)
            raise
        own = self._sets.zygote(request, shared)
        tier: Tier = "pool" if prepared else "function-zygote" if own else "zygote" if zygote else "exec"
        instance = self.begin(request, host_id, group, tier)
        info = instance.info
        instance.egress, instance.launcher = egress, shared or zygote or self._launcher
        self._enter(instance)
        try:
            if self._walls and not self._rootless:
                instance.writable = [item.source for item in spec.mounts if item.writable]
                for path in instance.writable:
                    await asyncio.to_thread(ownership.give, path, spec.uid, spec.gid)
            spec = replace(spec, cgroups=group.files if group else [], fork=zygote is not None)
            spec = shared.within(spec, request, own) if shared else spec
            await self.launch(instance, spec, prepared)
        except BaseException as error:
            await self._abandon(instance)
            if isinstance(error, OSError):
                raise Unavailable(f"instance {request.id} could not be started: {error}") from error
            raise
        return info

    def _info(self, request: LaunchRequest, tier: Tier) -> InstanceInfo:
        return begun(request, self.name, self._clock.wall(), tier)

    def begin(self, request: LaunchRequest, host_id: int, group: cgroup.Group | None, tier: Tier) -> Instance:
        """What is known of an instance before there is a process of it."""
        instance = Instance(request, self._info(request, tier), host_id, group, self)
        instance.walls = self._walls
        instance.launcher = self._launcher
        return instance

    def _enter(self, instance: Instance) -> None:
        self._instances[instance.info.id] = instance
        if instance.request.ahead:
            self._sets.keep(instance.request, instance)
        else:
            self.starts[instance.info.tier] = self.starts.get(instance.info.tier, 0) + 1

    def _check_egress(self, request: LaunchRequest) -> None:
        if not self._walls:
            parse_allow(request.network.allow)  # nothing enforces it, but it has to be well formed
            return
        refuse(self._egress_missing)
        self._egress.check(request.network.allow, self._rootless)

    def _spec(self, request: LaunchRequest, host_id: int) -> Spec:
        if not self._walls:
            return self._plain.spec(request)
        host = self.host(host_id)
        servers = self._egress.resolvers() if request.network.mode == "egress" else ()
        return self._resolver.spec(request, host, servers)

    def host(self, number: int) -> Host:
        return Host(number, os.getgid() if self._rootless else number, self._rootless, "pids" in self._cgroups.held)

    def zygote(self, runtime: str) -> Zygote | None:
        return self._zygotes.of(runtime)

    def take_id(self) -> int:
        """A uid that no other instance has; the ordinary user has only its own."""
        if self._rootless or not self._walls:
            return os.getuid()
        for _ in range(self._settings.uid_count):
            candidate = self._settings.uid_base + self._next_id
            self._next_id = (self._next_id + 1) % self._settings.uid_count
            if candidate not in self._ids:
                self._ids.add(candidate)
                return candidate
        raise NodeFull("every uid of the sandbox's range is in use", limit=f"uid_count={self._settings.uid_count}")

    def _from_pool(self, zygote: Zygote | None, spec: Spec) -> Prepared | None:
        prepared = self._pool.take(zygote) if zygote is not None else None
        if prepared is not None and not prepared.fits(spec):
            self._pool.give_back(prepared)
            return None
        return prepared

    def _group(self, id: str, limits: Limits, prepared: Prepared | None) -> cgroup.Group | None:
        """OSError."""
        if not self._cgroups.held:
            return None
        if prepared is None or prepared.group is None:
            return self._cgroups.create(id, limits)
        self._cgroups.limit(prepared.group, limits)
        return prepared.group

    def _generic(self, zygote: Zygote, id: str) -> Spec:
        """For the pool."""
        return self._resolver.generic(zygote.runtime, id, self.host(self.take_id()))

    def _discard(self, prepared: Prepared) -> None:
        """One of the pool is gone before anybody took it."""
        self._spawn(cgroup.release(prepared.group))
        self._ids.discard(prepared.spec.uid)

    async def launch(self, instance: Instance, spec: Spec, prepared: Prepared | None = None) -> None:
        """Makes the descriptors, hands the child's ends to the launcher, and takes ours over."""
        made = streams.make(spec, lambda name: self._pipe(instance, name))
        if prepared is not None:
            await self._take_over(instance, spec, prepared, made)
            return
        control, control_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child = [into_memory(spec), control_end.detach(), *made.child]
        header = Header(
            id=spec.id,
            walls=spec.walls,
            rootless=spec.rootless,
            uid=spec.uid,
            gid=spec.gid,
            family=self._resolver.family(instance.request),
        )
        await instance.attach(control, made.link, made.pipes)
        launcher = instance.launcher
        assert launcher is not None
        launcher.launch(header, child)

    async def _take_over(self, instance: Instance, spec: Spec, prepared: Prepared, made: streams.Streams) -> None:
        """One of the pool becomes the instance; from now on what happens to it happens to that."""
        prepared.instance = instance
        instance.launched_as, instance.pid = prepared.id, prepared.pid
        await instance.attach(prepared.control, made.link, made.pipes)
        try:
            tell(prepared, spec, made.child)
        except OSError:
            instance.kill()  # it died just now; the zygote says when it is gone
        finally:
            for descriptor in made.child:
                os.close(descriptor)
        if instance.egress:
            self._spawn(self._let_out(instance))

    def _pipe(self, instance: Instance, stream: Any) -> OutputPipe:
        output = self._output
        assert output is not None
        settings = self._settings
        note = f"output on {stream} is faster than {settings.output_rate / _MIB:g} MiB/s and is slowed down".encode()
        return OutputPipe(
            lambda data: output.line(instance.info, stream, data),
            lambda: output.line(instance.info, "platform", note),
            settings.output_rate,
            settings.output_burst,
        )

    async def _abandon(self, instance: Instance) -> None:
        """Nothing was started."""
        self._instances.pop(instance.info.id, None)
        await instance.finish()
        await self.release(instance)

    # -- what the launcher says -------------------------------------------------------------------------------

    def heard(self, message: dict[str, Any]) -> None:
        if message["op"] == "ready":
            self._pool.open(message["zygote"])
            return
        prepared = self._pool.find(message["id"])
        if prepared is not None and message["op"] == "started":
            prepared.pid = message["pid"]
            return
        instance = prepared.instance if prepared else self._parking.find(message["id"])
        instance = instance or self._instances.get(message["id"])
        if prepared is not None:
            self._pool.gone(prepared)
        if instance is None:
            self._sets.told(message)
            return
        if message["op"] == "started":
            instance.pid = message["pid"]
            if instance.egress:
                self._spawn(self._let_out(instance))
        elif message["op"] == "gone":
            self._spawn(self._ended(instance, instance.exit, message["status"]))
        elif message["op"] == "refused":
            text = f"the launcher could not start it: {message['message']}"
            self._spawn(self._ended(instance, lambda _: InstanceExit(message=text, asked=instance.asked), 0))

    async def _let_out(self, instance: Instance) -> None:
        try:
            await self._egress.attach(instance.info.id, instance.pid, instance.request.network.allow, self._rootless)
        except SeptetError as error:
            instance.fail(f"no way out of its network: {error}")
            instance.kill()
            return
        instance.go()

    def launcher_lost(self, launcher: LauncherProcess) -> None:
        """Its instances die with it; those without walls when their control socket closes."""
        self._pool.lost(launcher)
        text = "the sandbox's launcher died, and every instance with it"
        for instance in list(self._instances.values()):
            if instance.launcher is launcher:
                self._spawn(self._ended(instance, lambda _: InstanceExit(signal=9, message=text), 0))
        for instance in self._parking.all():
            if instance.launcher is launcher:
                self._spawn(self._ended(instance, lambda _: InstanceExit(signal=9, message=text), 0))

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ended(self, instance: Instance, how: Callable[[int], InstanceExit], status: int) -> None:
        """No process is left: tidies up, then tells."""
        if instance.ending:
            return
        instance.ending = True
        await instance.finish()
        ended = how(status)
        if self._parking.gone(instance):
            await self.release(instance)
            instance.settled.set()
            instance.gone.set()
            return
        if self._output is not None and (ended.limit or (not ended.asked and ended.code != 0)):
            self._output.line(instance.info, "platform", f"the instance is gone: {ended.message}".encode())
        await self.release(instance)
        instance.info = msgspec.structs.replace(instance.info, state="stopped", exit=ended)
        self._instances.pop(instance.info.id, None)
        instance.gone.set()
        self._tell(instance)

    async def release(self, instance: Instance) -> None:
        if instance.egress:
            await self._egress.detach(instance.info.id)
        await freeze.release(instance.ice)
        await cgroup.release(instance.group)
        for path in instance.writable:
            await asyncio.to_thread(ownership.give, path, os.geteuid(), os.getegid())
        if not self._walls:
            await asyncio.to_thread(self._plain.forget, instance.info.id)
        self._ids.discard(instance.host_id)

    def _tell(self, instance: Instance) -> None:
        if self._on_event is not None:
            self._on_event(InstanceEvent(instance=instance.info, at=self._clock.wall()))

    # -- what instances say (instance.Owner) ------------------------------------------------------------------

    def running(self, instance: Instance) -> None:
        self._tell(instance)

    async def gateway(self, info: Callable[[], InstanceInfo], listener: socket.socket) -> asyncio.Server | None:
        handler = self._on_gateway
        if handler is None:
            listener.close()
            return None
        return await asyncio.get_running_loop().create_server(lambda: handler(info()), sock=listener)

    def kill(self, instance: Instance) -> None:
        if instance.launcher is not None:
            instance.launcher.kill(instance.launched_as)

    # -- the rest of the port ---------------------------------------------------------------------------------

    def _find(self, instance: str) -> Instance:
        found = self._instances.get(instance)
        if found is None:
            raise NotFound(f"there is no instance {instance}", details={"kind": "instance", "name": instance})
        return found

    async def connect(self, instance: str, factory: ProtocolFactory) -> asyncio.Transport:
        return await self._find(instance).connect(factory)

    async def stop(self, instance: str, grace: float) -> None:
        found = self._instances.get(instance)
        if found is None:
            return
        found.ask_to_stop(gently=grace > 0)
        if grace > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(found.gone.wait(), grace)
        if not found.gone.is_set():
            found.kill()
            await found.gone.wait()

    async def freeze(self, instance: str) -> None:
        await self._find(instance).freeze(self._freezer)

    async def thaw(self, instance: str) -> None:
        self._find(instance).thaw()

    async def stats(self, instance: str) -> InstanceStats:
        return met.stats(self._find(instance), self._cgroups.hard)

    async def instances(self) -> list[InstanceInfo]:
        return [instance.info for instance in self._instances.values()]
