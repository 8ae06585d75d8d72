"""Parked instances: which are there, who may take one, and when others are made (see `park.py`)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from septet.drivers.sandbox.process.cgroup import Cgroups, Group
from septet.drivers.sandbox.process.instance import Instance
from septet.drivers.sandbox.process.pool import ASSUMED, OURS, Size
from septet.drivers.sandbox.process.resolve import Host, Resolver
from septet.drivers.sandbox.process.spec import Spec
from septet.drivers.sandbox.process.supervise import held
from septet.drivers.sandbox.process.zygotes import Zygote
from septet.model.errors import SeptetError
from septet.model.instance import InstanceInfo, Tier
from septet.model.runtime import Runtime
from septet.ports.sandbox import Container, LaunchRequest

log = logging.getLogger(__name__)

TREE = "/function"
_SETTLE = 0.05
"""Seconds after a start before another is made: the processor is the new instance's first."""
_PAUSE = 60.0
"""Seconds without a pool after one could not be made."""
_REMEMBERED = 1024
_LEAST_BYTES = 1024 * 1024
# Read by interpreters and libraries when they start, so that a process which runs already would not heed them.
_EARLY = (
    "LD_",
    "PYTHON",
    "NODE_OPTIONS",
    "RUBY",
    "MALLOC_",
    "GLIBC_",
    "TZ",
    "LANG",
    "LC_",
    "UV_",
    "SSL_",
    "OPENSSL_",
    "ASAN_",
)


class Driver(Protocol):
    """What the pool needs of its driver."""

    def take_id(self) -> int: ...

    def host(self, number: int) -> Host: ...

    def begin(self, request: LaunchRequest, host_id: int, group: Group | None, tier: Tier) -> Instance: ...

    def zygote(self, runtime: str) -> Zygote | None: ...

    async def launch(self, instance: Instance, spec: Spec) -> None: ...

    async def release(self, instance: Instance) -> None: ...


class Parking:
    """Parks instances of the runtimes that can be (`Runtime.parks`) and are in use."""

    def __init__(
        self,
        runtimes: Mapping[str, Runtime],
        resolver: Resolver,
        cgroups: Cgroups,
        size: Size,
        memory: Path,
        now: Callable[[], float],
        driver: Driver,
    ) -> None:
        self._runtimes = runtimes
        self._resolver = resolver
        self._cgroups = cgroups
        self._size = size
        self._memory = memory
        self._now = now
        self._driver = driver
        self._all: dict[str, Instance] = {}
        self._starts: dict[str, deque[float]] = {}
        self._gateway = 0
        """Where the last function's first process listened, as the next one's will."""
        self._not_before: dict[str, float] = {}
        self._sizes: dict[str, int] = {}
        """Bytes that one of a runtime takes while it waits, as the first one showed."""
        self._filler: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    def open(self) -> None:
        """Parks for the runtimes that the last life used, so that its first calls find somebody waiting."""
        with contextlib.suppress(OSError, ValueError):
            for runtime in json.loads(self._memory.read_text()):
                if runtime in self._runtimes and self._runtimes[runtime].parks:
                    self._starts[runtime] = deque(maxlen=_REMEMBERED)
        self._filler = asyncio.ensure_future(self._fill())

    async def close(self) -> None:
        """No more are made, and those that wait end."""
        filler, self._filler = self._filler, None
        if filler is not None:
            filler.cancel()
            await asyncio.gather(filler, return_exceptions=True)
        waiting = [instance for instance in self._all.values() if instance.parked_with is not None]
        for instance in waiting:
            instance.kill()
        await asyncio.gather(*(instance.gone.wait() for instance in waiting))

    def find(self, launched_as: str) -> Instance | None:
        """One that waits, or that waited before it became a function's."""
        return self._all.get(launched_as)

    def all(self) -> list[Instance]:
        """Those that nobody took yet."""
        return [instance for instance in self._all.values() if instance.parked_with is not None]

    def waiting(self, runtime: str = "") -> list[Instance]:
        """Those that could be taken now, the oldest first."""
        return [
            instance
            for instance in self._all.values()
            if instance.parked_with is not None
            and instance.settled.is_set()
            and not instance.ending
            and not instance.asked
            and runtime in ("", instance.request.containers[0].runtime)
        ]

    def take(self, request: LaunchRequest, info: InstanceInfo) -> Instance | None:
        """One that waited, told what it is now; None when none fits, and one has to be made. Raises as the resolver."""
        runtime = self._runtimes.get(request.containers[0].runtime)
        if runtime is None or not runtime.parks or request.kind != "serve" or request.isolation != "default":
            return None
        self._gateway = request.gateway
        self._used(runtime.name)
        for instance in self.waiting(runtime.name)[:1]:
            parked = instance.parked_with
            assert parked is not None
            spec = self._resolver.spec(request, self._driver.host(instance.host_id), ())
            if not fits(request, spec, parked):
                return None
            mounts = [replace(item, source=Path(item.source).name) for item in spec.mounts if item.target == TREE]
            try:
                if instance.group is not None:
                    self._cgroups.limit(instance.group, request.containers[0].limits)
                instance.become(request, info, replace(spec, mounts=mounts, masks=[], proc_masks=[]))
            except OSError:
                instance.kill()
                return None
            return instance
        return None

    def gone(self, instance: Instance) -> bool:
        """Nothing is left of its processes; False when it was somebody's, who has to be told."""
        self._all.pop(instance.launched_as, None)
        if instance.parked_with is None:
            return False
        if self._filler is not None and not instance.asked:
            runtime = instance.request.containers[0].runtime
            log.warning("a waiting instance of runtime %s ended: %s", runtime, instance.exit(0).message)
            self._not_before[runtime] = self._now() + _PAUSE
        return True

    # -- filling ----------------------------------------------------------------------------------------------

    def _used(self, runtime: str) -> None:
        if runtime not in self._starts:
            self._starts[runtime] = deque(maxlen=_REMEMBERED)
            with contextlib.suppress(OSError):
                self._memory.write_text(json.dumps(sorted(self._starts)))
        self._starts[runtime].append(self._now())
        self._wake.set()

    async def _fill(self) -> None:
        """One after the other, so that a refill takes no more than a part of one processor."""
        while True:
            made = False
            for runtime in list(self._starts):
                made = await self._add(runtime) or made
            if not made:
                with contextlib.suppress(TimeoutError):
                    self._wake.clear()
                    await asyncio.wait_for(self._wake.wait(), _PAUSE)
                await asyncio.sleep(_SETTLE)

    async def _add(self, runtime: str) -> bool:
        now = self._now()
        here = [
            instance
            for instance in self._all.values()
            if instance.parked_with is not None and instance.request.containers[0].runtime == runtime
        ]
        wanted = self._size(list(self._starts[runtime]), len(here), self._sizes.get(runtime, ASSUMED))
        for instance in self.waiting(runtime)[: max(0, len(here) - wanted)]:
            instance.ask_to_stop(gently=False)
            instance.kill()
            await instance.gone.wait()
        if len(here) >= wanted or now < self._not_before.get(runtime, 0.0):
            return False
        try:
            instance = await self._park(runtime)
        except (SeptetError, OSError) as error:
            log.warning("no instance of runtime %s waits for a function: %s", runtime, error)
            self._not_before[runtime] = now + _PAUSE
            return False
        await instance.settled.wait()
        if runtime not in self._sizes and instance.parked_with is not None and instance.pid:
            self._sizes[runtime] = max(_LEAST_BYTES, await asyncio.to_thread(held, instance.pid))
        return True

    async def _park(self, runtime: str) -> Instance:
        """Makes one that waits; it says itself when it does."""
        name = f"parked-{secrets.token_hex(8)}"
        container = Container(runtime=runtime, command=self._runtimes[runtime].command)
        request = LaunchRequest(id=name, namespace="", function="", revision="", containers=(container,))
        group = self._cgroups.create(name, OURS) if self._cgroups.held else None
        number = self._driver.take_id()
        instance = self._driver.begin(request, number, group, "pool")
        try:
            host = self._driver.host(number)
            spec = instance.parked_with = self._resolver.parked(runtime, name, host, self._gateway)
            self._all[name] = instance
            spec = replace(spec, cgroups=group.files if group else [])
            if (zygote := self._driver.zygote(runtime)) is not None:
                instance.launcher, spec = zygote, replace(spec, fork=True)
            await self._driver.launch(instance, spec)
        except BaseException:
            self._all.pop(name, None)
            await instance.finish()
            await self._driver.release(instance)
            raise
        return instance


def fits(request: LaunchRequest, spec: Spec, waiting: Spec) -> bool:
    """Whether what waits can become what `spec` says, with nothing different from a fresh start."""
    own = {name for name, value in spec.env.items() if waiting.env.get(name) != value}
    return (
        request.kind == "serve"
        and request.protocol == "frames"
        and request.network.mode == "none"
        and spec.command == waiting.command
        and [item.target for item in spec.mounts if item not in waiting.mounts] == [TREE]
        and all(not item.writable for item in spec.mounts)
        and waiting.gateway in (0, spec.gateway)
        and not any(name.startswith(_EARLY) for name in own)
    )
