"""Namespace sets: what instances of the isolation class `shared-namespace` share, and who may (see `keeper.py`).

A set is one tenant's (a platform namespace) and one runtime's. It is made at the first start in it, and goes when it
has been empty for a while. A set that dies takes its instances with it; the next start makes another.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
from collections.abc import Callable, Hashable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import msgspec

from septet.drivers.sandbox.process.cgroup import Cgroups, Group
from septet.drivers.sandbox.process.instance import Instance, begun
from septet.drivers.sandbox.process.launch import LauncherProcess
from septet.drivers.sandbox.process.resolve import Resolver
from septet.drivers.sandbox.process.settings import ProcessSettings
from septet.drivers.sandbox.process.spec import Header, Spec, into_memory
from septet.drivers.sandbox.process.zygotes import Zygote
from septet.model.errors import InvalidInput
from septet.model.instance import InstanceInfo
from septet.ports.sandbox import LaunchRequest

CLASS = "shared-namespace"
_ENV_MOST = 65536
"""Bytes of an environment that is sent to a function's zygote in one piece."""
TREE = "/function"
_PACKET = 65536


class Driver(Protocol):
    """What sets need of their driver."""

    def heard(self, message: dict[str, Any]) -> None: ...

    def launcher_lost(self, launcher: LauncherProcess) -> None: ...

    async def gateway(self, info: Callable[[], InstanceInfo], listener: socket.socket) -> asyncio.Server | None: ...


class NamespaceSet(LauncherProcess):
    """One set, seen as the launcher of its instances. `parent` makes its keeper; `info` is who calls from within it, by
    its inner gateway: any of them."""

    def __init__(
        self,
        parent: LauncherProcess,
        spec: Spec,
        family: str,
        info: InstanceInfo,
        cgroups: Cgroups,
        driver: Driver,
    ) -> None:
        self._cgroups = cgroups
        super().__init__(parent.python, driver.heard, lambda: driver.launcher_lost(self))
        self.parent = parent
        self.spec = spec
        self.info = info
        self.count = 0
        self.idle = False
        self.gone = asyncio.Event()
        self._family = family
        self._orders: dict[str, dict[str, object]] = {}
        self._driver = driver
        self._server: asyncio.Server | None = None
        self._serving: asyncio.Task[None] | None = None

    def open(self) -> None:
        """OSError when there are no descriptors left."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._socket = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._readable)
        header = Header(id=self.spec.id, walls=True, rootless=False, uid=0, gid=0, family=self._family)
        self.parent.launch(header, [into_memory(self.spec), theirs.detach()])

    def launch(self, header: Header, descriptors: list[int]) -> None:
        self.count += 1
        self.idle = False
        order = self._orders.pop(header.id)
        if order["op"] == "fork":
            os.close(descriptors.pop(0))  # what it would say, its zygote knows
        self._send({**asdict(header), **order}, descriptors)

    def group(self, request: LaunchRequest) -> Group:
        """The groups that the instance will make."""
        return self._cgroups.planned(request.id, request.containers[0].limits)[0]

    def within(self, spec: Spec, request: LaunchRequest, zygote: Instance | None) -> Spec:
        """What of an instance's spec the set has not yet; the next `launch` is of that, from the function's `zygote`
        where there is one. InvalidInput when it would add more than the tree."""
        own = [item for item in spec.mounts if item not in self.spec.mounts]
        if any(item.target != TREE or item.writable for item in own):
            raise InvalidInput(f"isolation {CLASS} has no room for what else this function mounts")
        tree = [replace(item, source=Path(item.source).name) for item in own]
        _, limits = self._cgroups.planned(request.id, request.containers[0].limits)
        spec = replace(spec, mounts=tree, masks=[], proc_masks=[], cgroups=[], gateway=0, limits=limits)
        self._orders[spec.id] = {"op": "launch", "ahead": request.ahead}
        if request.ahead:
            return replace(spec, ahead=True, env={**spec.env, "SEPTET_AHEAD": "1"})
        if zygote is not None:
            self._orders[spec.id] = {"op": "fork", "from": zygote.info.id, "env": spec.env, "limits": limits}
            return replace(spec, uid=zygote.host_id, gid=zygote.host_id)
        return spec

    def _readable(self) -> None:
        while self._socket is not None:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._socket, _PACKET, 1, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._lost()
                return
            self._take(json.loads(data), [socket.socket(fileno=number) for number in descriptors])

    def _take(self, message: dict[str, Any], sockets: list[socket.socket]) -> None:
        if message["op"] == "gateway":
            self._serving = asyncio.ensure_future(self._serve(sockets.pop()))
            return
        if message["op"] in ("gone", "refused"):
            self.count -= 1
        self._on_message(message)

    def end(self) -> None:
        """Its keeper ends, and whatever is left in it."""
        if self._socket is not None:
            self._forget()

    async def _serve(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._server = await self._driver.gateway(lambda: self.info, listener)

    def _forget(self) -> None:
        super()._forget()
        if self._serving is not None:
            self._serving.cancel()
        if self._server is not None:
            self._server.close()


class NamespaceSets:
    """All sets of a driver."""

    def __init__(self, settings: ProcessSettings, cgroups: Cgroups, resolver: Resolver, driver: Driver) -> None:
        self._settings = settings
        self._cgroups = cgroups
        self._resolver = resolver
        self._driver = driver
        self._sets: dict[tuple[str, str, int], NamespaceSet] = {}
        self._all: dict[str, NamespaceSet] = {}
        self._ahead: dict[Hashable, Instance] = {}
        self._timer: asyncio.TimerHandle | None = None

    def choose(self, request: LaunchRequest, parent: LauncherProcess) -> NamespaceSet | None:
        """The set that starts this, None for another class. InvalidInput, OSError."""
        if request.isolation != CLASS or self._settings.level == "none":
            return None
        self._check(request, parent)
        runtime = request.containers[0].runtime
        key = (request.namespace, runtime, id(parent))
        found = self._sets.get(key)
        if found is None or not found.alive:
            name = f"set-{secrets.token_hex(8)}"
            spec = self._resolver.kept(runtime, name, self._cgroups.named(), request.gateway)
            info = msgspec.structs.replace(begun(request, "process", 0.0, ""), id=name, function="", revision="")
            family = self._resolver.family(request)
            found = NamespaceSet(parent, spec, family, info, self._cgroups, self._driver)
            found.open()
            self._sets[key] = self._all[name] = found
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._settings.set_idle, self._look)
        return found

    def _check(self, request: LaunchRequest, parent: LauncherProcess) -> None:
        details = {"field": "isolation"}
        if request.ahead and not isinstance(parent, Zygote):
            raise InvalidInput(f"runtime {request.containers[0].runtime!r} has no zygote to begin one with")
        if request.ahead and request.containers[0].files:
            raise InvalidInput("a zygote holds no secret, so a function with secrets has none")
        if not {"*", request.namespace} & set(self._settings.shared_namespaces):
            raise InvalidInput(
                f"this platform does not allow isolation {CLASS} in namespace {request.namespace!r}",
                hint=f"whoever runs it may: septet up --shared-namespace {request.namespace}",
                details=details,
            )
        if os.geteuid() != 0 or not self._cgroups.hard:
            why = "root" if os.geteuid() else "control groups that hold every limit"
            raise InvalidInput(
                f"isolation {CLASS} needs {why}: instances that share namespaces are kept apart by ids and groups",
                hint=self._cgroups.fix or "leave isolation at default",
                details=details,
            )
        if request.protocol != "frames":
            raise InvalidInput(
                f"isolation {CLASS} is for runtimes with a frame link: HTTP servers of one tenant would meet at a port",
                hint="leave isolation at default",
                details=details,
            )
        if request.network.mode != "none":
            raise InvalidInput(
                f"isolation {CLASS} has no way out of its network",
                hint="use network mode none, or leave isolation at default",
                details=details,
            )

    def keep(self, request: LaunchRequest, instance: Instance) -> None:
        """From now on it may be the zygote of what starts with the same request."""
        self._ahead = {key: one for key, one in self._ahead.items() if not one.ending}
        self._ahead[_same(request)] = instance

    def zygote(self, request: LaunchRequest, wanted: NamespaceSet | None) -> Instance | None:
        """The function's own that can fork it now."""
        found = self._ahead.get(_same(request)) if wanted is not None and not request.ahead else None
        usable = found is not None and found.launcher is wanted and found.info.state == "running" and not found.ending
        return found if usable and sum(map(len, request.containers[0].env.values())) < _ENV_MOST else None

    def told(self, message: dict[str, Any]) -> None:
        """What the launchers say of the sets' own processes."""
        found = self._all.get(message.get("id", ""))
        if found is not None and message["op"] in ("gone", "refused"):
            del self._all[found.spec.id]
            found.gone.set()

    def _look(self) -> None:
        """Sets without an instance go at the second look."""
        self._timer = None
        for key, found in list(self._sets.items()):
            if not found.alive:
                del self._sets[key]
            elif found.count == 0:
                if found.idle:
                    del self._sets[key]
                    found.end()
                found.idle = True
            else:
                found.idle = False
        if self._sets:
            self._timer = asyncio.get_running_loop().call_later(self._settings.set_idle, self._look)

    async def close(self) -> None:
        """Ends all, and waits until nothing is left of them."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._sets.clear()
        for found in list(self._all.values()):
            found.end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                for found in list(self._all.values()):
                    await found.gone.wait()
        self._all.clear()


def _same(request: LaunchRequest) -> Hashable:
    """Equal for requests that differ in nothing but which instance they are of."""
    container = request.containers[0]
    env = tuple(sorted((name, value) for name, value in container.env.items() if name != "SEPTET_INSTANCE"))
    return (request.namespace, request.revision, container.command, container.volumes, container.limits, env)
