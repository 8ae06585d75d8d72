"""Where instances run. No pid, path or descriptor passes this port, so that a driver may be on another machine.

Lifecycle: `start` returns at once with state "starting"; events follow through the subscription:
starting -> running (its process exists and `connect` may be tried) -> stopped (with the exit). An instance may
appear (adopted), move from running to stopped by itself, or vanish: that is "stopped" too. Readiness is not the
sandbox's: the contract decides it through `connect`. Between running and stopped a driver with the capability may
hold an instance "frozen"; that is asked for, so no event tells it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

from septet.model.function import Isolation, Limits, Network
from septet.model.instance import InstanceEvent, InstanceInfo, InstanceStats
from septet.model.instance import Protocol as InstanceProtocol


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """A tree inside the instance at `target`: a frozen one by digest, or a writable one by its working name."""

    tree: str
    target: str
    writable: bool = False


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """One process tree of an instance. `command[0]` is absolute or found on the sandbox's PATH.

    `files` are private to the instance (secrets): absolute path below /run -> bytes. `runtime` names the
    built-in runtime whose folder is mounted read-only at /opt/septet/runtime and whose interpreter and library
    paths are visible. `main` takes the calls.
    """

    name: str = "function"
    runtime: str = ""
    image: str = ""
    command: tuple[str, ...] = ()
    env: dict[str, str] = {}
    files: dict[str, bytes] = {}
    volumes: tuple[Volume, ...] = ()
    working_directory: str = ""
    limits: Limits = Limits()
    main: bool = True


class LaunchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a driver needs. `id` is unique for ever. `kind` "task" runs to its end and takes no calls.

    `port` is where an http1 process listens. With `gateway` the instance reaches the inner gateway at
    http://127.0.0.1:<gateway>; 0 means it has none. `labels` come back with the instance, also after adoption.
    With `ahead` it is a zygote of the function: it loads the code, takes no calls, and is "running" once later starts
    of the same revision may be forks of it. It ends where that cannot be, and its exit says why.
    """

    id: str
    namespace: str
    function: str
    revision: str
    kind: Literal["serve", "task"] = "serve"
    protocol: InstanceProtocol = "frames"
    port: int = 8080
    gateway: int = 0
    network: Network = Network()
    containers: tuple[Container, ...]
    isolation: Isolation = "default"
    ahead: bool = False
    labels: dict[str, str] = {}


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver can do beyond the port. `limits` says how hard the limits are; `egress_missing` what this host
    lacks for network mode egress, as it was found when the driver was opened."""

    freeze: bool = False
    snapshot: bool = False
    exec: bool = False
    images: bool = False
    adopt: bool = False
    gateway: bool = False
    egress: bool = False
    egress_missing: tuple[Check, ...] = ()
    limits: Literal["hard", "best effort", "none"] = "none"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `septet doctor`: what was probed, whether it works, why not, what that costs, what to do."""

    name: str
    state: Literal["ok", "degraded", "missing"]
    detail: str = ""
    cost: str = ""
    fix: str = ""
    required: bool = False


class OutputSink(Protocol):
    """Where an instance's output goes, line by line as bytes without the newline, at most 64 KiB each."""

    def line(self, instance: InstanceInfo, stream: Literal["stdout", "stderr", "platform"], data: bytes) -> None:
        """Must not block and must not raise; the sink bounds what it keeps."""
        ...


ProtocolFactory = Callable[[], asyncio.Protocol]
EventHandler = Callable[[InstanceEvent], None]
GatewayHandler = Callable[[InstanceInfo], asyncio.Protocol]


class Sandbox(Protocol):
    """A driver. All methods may raise Unavailable.

    sandbox.1  After `close`, or after the process that held the driver died, no process of a driver without
               the `adopt` capability remains; a driver with it lists them again.
    sandbox.2  No descriptor, mount, cgroup, interface or directory of a stopped instance remains.
    """

    name: str

    async def open(self, on_event: EventHandler, output: OutputSink, on_gateway: GatewayHandler | None) -> None:
        """Makes the driver ready, cleans up what an earlier life left, and reports adopted instances as events.

        `on_gateway` makes the protocol for each connection from inside an instance to the inner gateway.
        Handlers are called on the event loop and must not block.
        """
        ...

    def capabilities(self) -> Capabilities: ...

    async def probe(self) -> list[Check]:
        """What this host can do, tried and not assumed. Works before `open`."""
        ...

    async def start(self, request: LaunchRequest) -> InstanceInfo:
        """Begins to start an instance and returns it in state "starting".

        sandbox.3  Every started instance ends in exactly one "stopped" event, whatever happens.
        sandbox.4  Raises Conflict for an id in use, InvalidInput for a request it cannot serve (unknown
                   runtime, missing interpreter, unknown tree, egress not available: the message says which);
                   then nothing was started.
        """
        ...

    async def connect(self, instance: str, factory: ProtocolFactory) -> asyncio.Transport:
        """A byte stream to the process that takes calls, in the instance's protocol.

        sandbox.5  For "frames" there is one stream per instance: a second `connect` raises Conflict while the
                   first is open. For "http1" each call makes a new connection.
        sandbox.6  Raises NotFound for an unknown or stopped instance, and InstanceLost while the process does
                   not (yet) accept: try again until the start timeout.
        """
        ...

    async def stop(self, instance: str, grace: float) -> None:
        """Sends the stop signal, waits `grace` seconds, then kills; returns when the instance is gone.

        sandbox.7  Stopping an unknown or stopped instance is no error. With grace 0 it is killed at once.
        """
        ...

    async def freeze(self, instance: str) -> None:
        """Returns when no process of the function runs any more; the instance's state is "frozen" from then on.

        sandbox.9   A frozen instance uses no processor time. Its streams stay open, what is written to them waits,
                    and after `thaw` it goes on as if nothing had been.
        sandbox.10  Freezing a frozen instance is no error. Raises NotFound for an unknown or stopped instance,
                    Conflict for one that does not run yet, InvalidInput without the `freeze` capability, and
                    Unavailable when it could not be frozen: then it runs on.
        sandbox.11  Limits, `stats`, `connect` and `stop` with its signal and grace hold for a frozen instance as
                    for any other, and its end, whoever ended it, is told as ever.
        """
        ...

    async def thaw(self, instance: str) -> None:
        """Lets a frozen instance run again, state "running".

        sandbox.12  Thawing one that is not frozen is no error. Raises NotFound for an unknown or stopped instance,
                    InvalidInput without the `freeze` capability.
        """
        ...

    async def stats(self, instance: str) -> InstanceStats:
        """What it uses, and which limits it met, as far as the driver can see; asked now and then, not for each call.

        sandbox.8  Raises NotFound.
        """
        ...

    async def instances(self) -> list[InstanceInfo]:
        """All instances that have not stopped, adopted ones included."""
        ...

    async def close(self) -> None:
        """Ends what cannot be adopted, and the driver; calling it twice is fine."""
        ...
