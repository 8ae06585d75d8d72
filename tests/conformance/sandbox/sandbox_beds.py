"""Test beds: one driver each, with a function to run in it and a way to see what it leaves behind."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

from septet import registry
from septet.drivers.sandbox.fake_remote import Behaviour, Cluster, FakeRemote
from septet.drivers.sandbox.process.driver import ProcessSandbox
from septet.drivers.sandbox.process.settings import ProcessSettings
from septet.drivers.sandbox.process.supervise import descendants
from septet.model.errors import NotFound
from septet.model.function import Limits, Network
from septet.model.instance import InstanceEvent, InstanceInfo
from septet.model.runtime import Runtime
from septet.ports.sandbox import Container, LaunchRequest, Sandbox, Volume

HERE = Path(__file__).parent
TREE = "tree:of-the-suite"
RUNTIMES = {
    "python": Runtime(name="python", interpreter=("/usr/bin/python3",), syscalls="python"),
    "missing": Runtime(name="missing", interpreter=("/nowhere/bin/interpreter",), install_hint="apt install nowhere"),
}


class WallClock:
    """Real time, `speed` times as fast."""

    def __init__(self, speed: float = 1.0) -> None:
        self._speed = speed
        self._base = time.time()

    def now(self) -> float:
        return time.monotonic() * self._speed

    def wall(self) -> float:
        return self._base + (time.time() - self._base) * self._speed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._speed)


class Folders:
    """Trees as plain folders: `frozen` and `working` map names to them."""

    def __init__(self) -> None:
        self.frozen: dict[str, Path] = {}
        self.made: dict[str, Path] = {}

    def path(self, digest: str) -> Path:
        return self._find(self.frozen, digest)

    def folder(self) -> Path:
        return next(iter(self.frozen.values())).parent

    def working(self, work: str) -> Path:
        return self._find(self.made, work)

    def _find(self, table: dict[str, Path], name: str) -> Path:
        if name not in table:
            raise NotFound(f"no tree {name}")
        return table[name]

    async def create(self, work: str) -> Path:
        raise AssertionError("a sandbox makes no trees")

    async def freeze(self, work: str) -> str:
        raise AssertionError("a sandbox freezes no trees")

    async def discard(self, work: str) -> None:
        raise AssertionError("a sandbox discards no trees")

    async def keep(self, name: str) -> Path:
        raise AssertionError("a sandbox keeps no trees")

    async def trim(self, name: str, limit: int) -> int:
        raise AssertionError("a sandbox trims no trees")

    async def kept(self) -> list[str]:
        raise AssertionError("a sandbox asks for no trees")

    async def delete(self, digest: str) -> None:
        raise AssertionError("a sandbox deletes no trees")

    async def digests(self) -> list[str]:
        return list(self.frozen)


class Lines:
    """An output sink that keeps everything."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, bytes]] = []

    def line(self, instance: InstanceInfo, stream: Literal["stdout", "stderr", "platform"], data: bytes) -> None:
        self.lines.append((instance.id, stream, data))


class Bed(Protocol):
    """What a clause needs. `holder` starts a driver in another process, with one running instance in it."""

    events: list[InstanceEvent]
    output: Lines

    @property
    def driver(self) -> Sandbox: ...

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def reopen(self) -> None:
        """Closes the driver and makes a new one over the same state."""
        ...

    async def crash(self) -> list[str]:
        """The driver's holder dies with a running instance; returns what is left of it and must not be."""
        ...

    def inventory(self) -> dict[str, object]:
        """Everything a stopped instance might leave."""
        ...

    def request(self, id: str, words: str = "echo", **fields: Any) -> LaunchRequest: ...


class _Bed:
    flags: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.events: list[InstanceEvent] = []
        self.output = Lines()
        self.trees = Folders()

    def request(self, id: str, words: str = "echo", **fields: Any) -> LaunchRequest:
        container = Container(
            runtime=fields.pop("runtime", "python"),
            command=("{interpreter}", *self.flags, "/function/code/f.py", *words.split()),
            volumes=(Volume(tree=fields.pop("tree", TREE), target="/function"),),
            working_directory="/function/code",
            limits=fields.pop("limits", Limits()),
        )
        if "container" in fields:
            container = fields.pop("container")
        return LaunchRequest(
            id=id, namespace="default", function="f", revision="f-00001", containers=(container,), **fields
        )


class ProcessBed(_Bed):
    """The process sandbox, as whoever runs the tests."""

    level: Literal["full", "none"] = "full"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.trees.frozen[TREE] = make_tree(folder / "tree")
        self.lay_runtime(folder / "runtime")
        self.driver = self.make()

    def lay_runtime(self, folder: Path) -> None:
        folder.mkdir()

    def settings(self) -> ProcessSettings:
        return ProcessSettings(level=self.level)

    def make(self) -> ProcessSandbox:
        return ProcessSandbox(
            runtimes=RUNTIMES,
            runtime_folder=lambda _: self.folder / "runtime",
            trees=self.trees,
            state_dir=self.folder / "state",
            settings=self.settings(),
            clock=WallClock(),
        )

    @property
    def interfaces(self) -> str:
        return f"sv{self.driver._key[:3]}"

    async def open(self) -> None:
        await self.driver.open(self.events.append, self.output, None)

    async def close(self) -> None:
        await self.driver.close()

    async def reopen(self) -> None:
        await self.driver.close()
        self.driver = self.make()
        await self.open()

    async def crash(self) -> list[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
        holder = subprocess.Popen(
            [sys.executable, str(HERE / "sandbox_holder.py"), self.level, str(self.folder / "held")],
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert holder.stdout is not None
        said = await asyncio.to_thread(holder.stdout.readline)
        assert said == b"running\n", said
        family = descendants(holder.pid)
        assert len(family) >= 4, "the holder, the launcher, the first process, the function"
        os.kill(holder.pid, signal.SIGKILL)
        await asyncio.to_thread(holder.wait)
        for _ in range(200):
            if not (left := [f"process {pid}" for pid in family if Path(f"/proc/{pid}").exists()]):
                break
            await asyncio.sleep(0.02)
        second = ProcessBed if self.level == "full" else PlainBed
        shutil.rmtree(self.folder / "held" / "tree")
        shutil.rmtree(self.folder / "held" / "runtime")
        again = second(self.folder / "held")
        await again.open()
        left += [f"after the restart: {item}" for item in groups(again.driver)]
        left += [f"after the restart: {item.id}" for item in await again.driver.instances()]
        await again.close()
        return left

    def inventory(self) -> dict[str, object]:
        return {
            "descriptors": sorted(_descriptors()),
            "mounts": [
                line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.folder) in line
            ],
            "groups": groups(self.driver),
            "folders": sorted(str(path) for path in (self.folder / "state").glob("plain/*")),
            # Others may make interfaces meanwhile; ours carry the driver's tag.
            "interfaces": sorted(name for name in os.listdir("/sys/class/net") if name.startswith(self.interfaces)),
            "processes": len(descendants(self.driver._launcher.pid)),
        }


class PlainBed(ProcessBed):
    level = "none"


class ZygoteBed(ProcessBed):
    """Functions are forks of a running interpreter; `pooled` sandboxes stand before they are asked for."""

    flags = ("-I", "-S", "-B")
    pooled = 0

    def lay_runtime(self, folder: Path) -> None:
        shutil.copytree(registry.runtime_folder("python"), folder, ignore=shutil.ignore_patterns("__pycache__"))

    def settings(self) -> ProcessSettings:
        return ProcessSettings(level=self.level, pool_size=lambda *_: self.pooled)

    async def open(self) -> None:
        await super().open()
        await self.settled()

    async def settled(self) -> None:
        """The zygote can fork, and the pool is as full as it gets."""
        async with asyncio.timeout(20):
            while not self.driver._zygotes.ready or self.driver.pooled != self.pooled:
                await asyncio.sleep(0.01)


class PoolBed(ZygoteBed):
    pooled = 2

    def inventory(self) -> dict[str, object]:
        """Without those that wait: the pool may be filling at any time."""
        found = super().inventory()
        idle = [item for item in self.driver._pool._all.values() if item.instance is None]
        names = {item.id for item in idle}
        found["groups"] = [path for path in groups(self.driver) if Path(path).name not in names]
        descriptors = _descriptors()
        for item in idle:
            if item.control.fileno() >= 0:
                descriptors.remove("socket")
        found["descriptors"] = sorted(descriptors)
        inside = [pid for pid in self.driver._zygotes.pids() for pid in descendants(pid)]
        found["forked"] = len(inside) - len(self.driver._zygotes.pids()) - len([item for item in idle if item.pid])
        return found


class SharedBed(ZygoteBed):
    """Instances of one tenant share a namespace set, where this host can do that."""

    def settings(self) -> ProcessSettings:
        return dataclasses.replace(super().settings(), shared_namespaces=("default",))

    def request(self, id: str, words: str = "echo", **fields: Any) -> LaunchRequest:
        alone = fields.get("protocol") == "http1" or "network" in fields or fields.get("kind") == "task"
        return super().request(id, words, isolation="default" if alone else "shared-namespace", **fields)


class RemoteBed(_Bed):
    """The fake remote driver; its two seconds pass in forty milliseconds."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.trees.frozen[TREE] = folder
        self.cluster = Cluster(
            clock=WallClock(speed=50.0), trees=self.trees, programs=remote_program, runtimes=("python",)
        )
        self.driver: FakeRemote = self.make()

    def make(self) -> FakeRemote:
        return FakeRemote(self.cluster)

    async def open(self) -> None:
        await self.driver.open(self.events.append, self.output, None)

    async def close(self) -> None:
        for instance in await self.driver.instances():
            await self.driver.stop(instance.id, 0)
        await self.driver.close()

    async def reopen(self) -> None:
        await self.driver.close()
        self.driver = self.make()
        await self.open()

    async def crash(self) -> list[str]:
        await self.driver.start(self.request("held"))
        self.driver = self.make()  # the old one is simply forgotten
        await self.open()
        listed = [info.id for info in await self.driver.instances()]
        return [] if "held" in listed else ["the instance was not adopted"]

    def inventory(self) -> dict[str, object]:
        return {"descriptors": sorted(_descriptors()), "pods": sorted(self.cluster.pods)}


class Echo(asyncio.Protocol):
    """The far side of the fake: sends everything back."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def remote_program(container: Container) -> Behaviour:
    """What `sandbox_function.py` does, for the fake."""
    words = container.command[2:]
    exits = next((int(word[5:]) for word in words if word.startswith("exit=")), None)
    return Behaviour(
        serve=None if exits is not None else Echo,
        listens_after=25.0 if "late" in words else 0.0,
        exits=None if exits is None else 0.5,
        code=exits or 0,
        obeys="deaf" not in words,
        prints=(b"out one", b"out two") if "print" in words else (),
    )


def make_tree(folder: Path) -> Path:
    """A frozen tree with the suite's function, readable by the instance's uid."""
    code = folder / "code"
    code.mkdir(parents=True)
    shutil.copyfile(HERE / "sandbox_function.py", code / "f.py")
    for path in (folder, code):
        path.chmod(0o755)
    (code / "f.py").chmod(0o644)
    return folder


def groups(driver: ProcessSandbox) -> list[str]:
    """Control groups of instances that exist now."""
    found: list[str] = []
    for base in driver._cgroups.bases():
        if Path(base).is_dir():
            found += [str(path) for path in Path(base).iterdir() if path.is_dir()]
    return sorted(found)


def _descriptors() -> list[str]:
    """What this process holds open, without what the event loop makes for itself when it likes."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the one that lists
        found.append(target.partition(":")[0] if target.startswith(("socket:", "pipe:")) else target)
    return [target for target in found if not target.startswith("/proc/")]


BEDS: dict[str, Callable[[Path], Bed]] = {
    "process": ProcessBed,
    "process-none": PlainBed,
    "process-zygote": ZygoteBed,
    "process-pool": PoolBed,
    "fake_remote": RemoteBed,
}
if os.geteuid() == 0:
    # An ordinary user's platform refuses the class (tests/e2e/test_probes.py).
    BEDS["process-shared"] = SharedBed
NETWORK = Network(mode="egress", allow=("not a host!",))
