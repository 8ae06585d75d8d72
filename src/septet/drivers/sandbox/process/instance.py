"""One instance as the platform holds it: its control socket, its streams, its way from start to end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from septet.drivers.sandbox.process import met
from septet.drivers.sandbox.process.cgroup import Group
from septet.drivers.sandbox.process.freeze import Freezer, Ice
from septet.drivers.sandbox.process.launch import LauncherProcess
from septet.drivers.sandbox.process.output import OutputPipe
from septet.drivers.sandbox.process.spec import PACKET, Spec, encode_function, into_memory
from septet.drivers.sandbox.process.supervise import descendants
from septet.model.errors import Conflict, InstanceLost, Unavailable
from septet.model.instance import InstanceExit, InstanceInfo, Tier
from septet.ports.sandbox import LaunchRequest, ProtocolFactory

_PACKET = 65536
_DRAIN_SECONDS = 2.0
_KILL_HINT = "give it more memory, or make it use less"


class Owner(Protocol):
    """What an instance needs of its driver."""

    def running(self, instance: Instance) -> None: ...

    async def gateway(self, info: Callable[[], InstanceInfo], listener: socket.socket) -> asyncio.Server | None: ...

    def kill(self, instance: Instance) -> None: ...


def begun(request: LaunchRequest, driver: str, at: float, tier: Tier) -> InstanceInfo:
    """What an instance is said to be when its start begins, at `at` (seconds since the epoch)."""
    return InstanceInfo(
        id=request.id,
        namespace=request.namespace,
        function=request.function,
        revision=request.revision,
        driver=driver,
        state="starting",
        protocol=request.protocol,
        started_at=at,
        memory=request.containers[0].limits.memory,
        labels=dict(request.labels),
        tier=tier,
    )


class Instance:
    """`pid` is its first process on the host, 0 before the launcher said so. `group` is None without cgroups.

    `launched_as` is its name at the launcher: that of one which waited is not that of what it became. `parked_with`
    is what a parked one was made with, None from the moment that it is somebody's; `settled` is set once it waits.
    """

    def __init__(self, request: LaunchRequest, info: InstanceInfo, host_id: int, group: Group | None, owner: Owner):
        self.request = request
        self.info = info
        self.host_id = host_id
        self.group = group
        self.pid = 0
        self.writable: list[str] = []
        self.asked = False
        self.limit = ""
        self.gone = asyncio.Event()
        self.peak = 0
        self.cpu_seconds = 0.0
        self._owner = owner
        self._control: socket.socket | None = None
        self._link: socket.socket | None = None
        self._transport: asyncio.Transport | None = None
        self._pipes: list[OutputPipe] = []
        self._connects: dict[int, asyncio.Future[socket.socket]] = {}
        self._number = 0
        self._exit: tuple[int, bool] | None = None
        self._failure = ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.egress = False
        self.walls = True
        self.ending = False
        self.launched_as = info.id
        self.parked_with: Spec | None = None
        self.settled = asyncio.Event()
        self.launcher: LauncherProcess | None = None
        self.ice: Ice | None = None

    # -- start ------------------------------------------------------------------------------------------------

    async def attach(
        self, control: socket.socket, link: socket.socket | None, pipes: list[tuple[int, OutputPipe]]
    ) -> None:
        """Takes over our ends of the instance's descriptors."""
        self._control, self._link = control, link
        loop = asyncio.get_running_loop()
        control.setblocking(False)
        loop.add_reader(control.fileno(), self._readable)
        for descriptor, pipe in pipes:
            self._pipes.append(pipe)
            await loop.connect_read_pipe(lambda pipe=pipe: pipe, os.fdopen(descriptor, "rb", buffering=0))  # type: ignore[misc]

    def become(self, request: LaunchRequest, info: InstanceInfo, spec: Spec) -> None:
        """From now on a parked one is that function's instance. OSError: it is gone."""
        if self._control is None:
            raise OSError(errno.ESRCH, "it ended while it waited")
        message = encode_function(spec)
        if len(message) <= PACKET:
            self._control.send(message)
        else:
            file = into_memory(message)
            try:
                socket.send_fds(self._control, [b'{"op":"read"}'], [file])
            finally:
                os.close(file)
        self.request, self.info, self.parked_with = request, info, None

    def go(self) -> None:
        self._tell(op="go")

    def _tell(self, **message: object) -> None:
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.send(json.dumps(message).encode())

    def _readable(self) -> None:
        while self._control is not None:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._control, _PACKET, 4, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._drop_control()
                return
            self._heard(json.loads(data), [socket.socket(fileno=number) for number in descriptors])

    def _heard(self, message: dict[str, Any], sockets: list[socket.socket]) -> None:
        operation = message["op"]
        if operation == "running":
            self.info = msgspec.structs.replace(self.info, state="running")
            self._owner.running(self)
        elif operation == "parked":
            self.settled.set()
        elif operation == "connected":
            future = self._connects.pop(message["n"], None)
            if future is not None and not future.done():
                future.set_result(sockets.pop())
        elif operation == "refused":
            future = self._connects.pop(message["n"], None)
            if future is not None and not future.done():
                future.set_exception(InstanceLost(f"the process does not accept connections: {message['message']}"))
        elif operation == "gateway":
            self._spawn(self._serve(sockets.pop()))
        elif operation == "exit":
            self._exit = (message["status"], message["tmp_full"])
        elif operation == "failed":
            self._failure = message["message"]
        for left in sockets:
            left.close()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._server = await self._owner.gateway(lambda: self.info, listener)

    # -- connect ----------------------------------------------------------------------------------------------

    async def connect(self, factory: ProtocolFactory) -> asyncio.Transport:
        if self.info.state not in ("running", "frozen"):
            raise InstanceLost(f"instance {self.info.id} is still starting")
        if self.info.protocol == "frames":
            return await self._connect_link(factory)
        self._number += 1
        future: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        self._connects[self._number] = future
        self._tell(op="connect", n=self._number)
        sock = await future
        sock.setblocking(False)
        transport, _ = await asyncio.get_running_loop().create_connection(factory, sock=sock)
        return transport

    async def _connect_link(self, factory: ProtocolFactory) -> asyncio.Transport:
        if self._link is None:
            if self._transport is None or not self._transport.is_closing():
                raise Conflict(f"instance {self.info.id} has its one stream open already")
            raise InstanceLost(f"the stream of instance {self.info.id} is closed, and there is only one")
        link, self._link = self._link, None
        link.setblocking(False)
        self._transport, _ = await asyncio.get_running_loop().create_unix_connection(factory, sock=link)
        return self._transport

    # -- freeze -----------------------------------------------------------------------------------------------

    async def freeze(self, freezer: Freezer) -> None:
        if self.info.state == "starting":
            raise Conflict(f"instance {self.info.id} is still starting")
        if self.info.state == "frozen":
            return
        if self.ice is None:
            own = self.group.folders.get("memory") if self.group else None
            self.ice = freezer.make(self.info.id, own, self.processes)
        try:
            await self.ice.freeze()
        except OSError as error:
            self.ice.thaw()
            raise Unavailable(f"instance {self.info.id} could not be frozen: {error}") from error
        if self.info.state == "running":
            self.info = msgspec.structs.replace(self.info, state="frozen")

    def processes(self) -> list[int]:
        """The function's on the host, without our own first one; in a namespace set it has none."""
        if self.pid:
            return descendants(self.pid)[1:]
        return self.group.pids() if self.group is not None else []

    def thaw(self) -> None:
        if self.ice is not None:
            self.ice.thaw()
        if self.info.state == "frozen":
            self.info = msgspec.structs.replace(self.info, state="running")

    # -- end --------------------------------------------------------------------------------------------------

    def ask_to_stop(self, gently: bool) -> None:
        self.asked = True
        if gently:
            self.thaw()
            self._tell(op="stop")

    def fail(self, message: str) -> None:
        """It will be killed, and this is why."""
        self._failure = message

    def kill(self, limit: str = "") -> None:
        """At once, with everything in it."""
        if limit:
            self.limit = limit
        if self.info.state == "stopped":
            return
        if self.walls:
            self._owner.kill(self)
        else:
            # Without a pid namespace the first process has to end the others, which it does when this closes.
            self._exit = self._exit or (signal.SIGKILL, False)
            self._drop_control()
        if self.ice is not None and self.ice.holds_the_dead:
            self.ice.thaw()

    def _drop_control(self) -> None:
        if self._control is not None:
            self._readable_off()
            self._control.close()
            self._control = None
        for future in self._connects.values():
            if not future.done():
                future.set_exception(InstanceLost(f"instance {self.info.id} ended"))
        self._connects.clear()

    def _readable_off(self) -> None:
        assert self._control is not None
        asyncio.get_running_loop().remove_reader(self._control.fileno())

    async def finish(self) -> None:
        """No process is left: reads what remains, and closes every descriptor."""
        self._readable()
        self._drop_control()
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._server is not None:
            self._server.close()
        for pipe in self._pipes:
            pipe.hurry()
        if self._pipes:
            await asyncio.wait([pipe.closed for pipe in self._pipes], timeout=_DRAIN_SECONDS)
        for pipe in self._pipes:
            pipe.close()
        for task in self._tasks:
            task.cancel()

    def exit(self, status: int) -> InstanceExit:
        """How it ended: `status` is the first process's wait status, which counts when nothing better is known."""
        if self._failure:
            return InstanceExit(code=None, message=self._failure, asked=self.asked, met=met.counted(self))
        tmp_full = False
        if self._exit is not None:
            status, tmp_full = self._exit
        code = os.waitstatus_to_exitcode(status)
        number, code_or_none = (-code, None) if code < 0 else (None, code)
        limit = self.limit or ("" if code == 0 else self._fired(number, tmp_full))
        return InstanceExit(
            code=code_or_none,
            signal=number,
            limit=limit,
            message=self._sentence(limit, number, code_or_none),
            asked=self.asked,
            met=(*met.counted(self), *((met.tmp_full(self),) if tmp_full else ())),
        )

    def _fired(self, number: int | None, tmp_full: bool) -> str:
        if self.group is not None and self.group.oom_kills():
            return "memory"
        if self.group is not None and self.group.refused_forks() and not self.asked:
            return "pids"
        return "tmp" if tmp_full and not self.asked else ""

    def _sentence(self, limit: str, number: int | None, code: int | None) -> str:
        limits = self.request.containers[0].limits
        if limit == "memory":
            return f"it used more than its {limits.memory} MiB of memory"
        if limit == "pids":
            return f"it ended after it could not start more than {limits.pids} processes"
        if limit == "tmp":
            return f"it ended while its /tmp of {limits.tmp} MiB was full"
        if number is not None:
            names = {item.value: item.name for item in signal.Signals}
            return f"it ended by signal {names.get(number, number)}"
        return f"it ended with code {code}"
