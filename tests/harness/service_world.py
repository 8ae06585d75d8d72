"""A service on real drivers in a temporary directory, with a clock and a fleet that the test owns."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import msgspec

from septet.drivers.blobs.files import FileBlobs
from septet.drivers.blobs.trees import DirectoryTrees
from septet.drivers.logs.files import FileLogs
from septet.drivers.store.sqlite.store import SqliteStore
from septet.drivers.vault.aesgcm import AesGcmVault
from septet.model.access import PLATFORM, Caller
from septet.model.function import (
    Function,
    FunctionSpec,
    FunctionTemplate,
    Revision,
    RevisionSpec,
    RevisionStatus,
    TrafficTarget,
    revision_name,
)
from septet.model.instance import InstanceEvent, InstanceInfo
from septet.model.meta import Meta, OwnerReference
from septet.model.objects import AnyObject, NamespaceSpec, Token, TokenSpec
from septet.model.runtime import Runtime
from septet.ports.fleetview import NodeFacts
from septet.ports.sandbox import Check
from septet.service import commands as c
from septet.service.authenticate import Credentials, digest, new_token
from septet.service.bootstrap import bootstrap
from septet.service.context import Ports, ServiceSettings
from septet.service.service import Service

NOW = 1_800_000_000.0
RUNTIMES = {name: Runtime(name=name) for name in ("python", "node", "exec")}
RUNTIMES["http"] = Runtime(name="http", protocol="http1")


class OwnClock:
    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class OwnFleet:
    """The instances that the test puts in."""

    def __init__(self) -> None:
        self.running: list[InstanceInfo] = []
        self.hindrance = ""
        self.kept = 0
        self.no_egress: dict[str, tuple[Check, ...]] = {}
        """What is missing, by sandbox; "" is the default's name."""
        self.asked: list[tuple[str, str]] = []
        """(kind, name) of the objects that readers waited for."""
        self.changed = asyncio.Event()
        self.events: list[InstanceEvent] = []

    def instances(self, namespace: str = "", function: str = "") -> list[InstanceInfo]:
        return [
            i
            for i in self.running
            if (not namespace or i.namespace == namespace) and (not function or i.function == function)
        ]

    async def watch(self) -> AsyncIterator[InstanceEvent]:
        at = 0
        for instance in self.running:
            yield InstanceEvent(instance=instance, at=NOW)
        while True:
            while at < len(self.events):
                yield self.events[at]
                at += 1
            self.changed.clear()
            await self.changed.wait()

    def tell(self, instance: InstanceInfo) -> None:
        self.events.append(InstanceEvent(instance=instance, at=NOW))
        self.changed.set()

    def obstacle(self, namespace: str, function: str) -> str:
        return self.hindrance

    def zygotes(self, namespace: str, function: str) -> int:
        return self.kept

    def node(self) -> NodeFacts:
        return NodeFacts(sandbox="process", limits="hard", memory_budget=1024, memory_used=128, instances=1)

    def egress_missing(self, sandbox: str = "") -> tuple[Check, ...]:
        return self.no_egress.get(sandbox, ())

    async def known(self, objects: Iterable[AnyObject]) -> None:
        self.asked += [(type(obj).__name__, obj.meta.name) for obj in objects]

    async def checks(self) -> list[Check]:
        return [Check(name="seccomp", state="ok", required=True)]


class World:
    """Everything at hand. `admin` is the admin token's text."""

    def __init__(self, folder: Path, shared_namespaces: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.clock = OwnClock()
        self.fleet = OwnFleet()
        self.store = SqliteStore(folder / "septet.db", self.clock)
        self.blobs = FileBlobs(folder / "blobs")
        self.trees = DirectoryTrees(folder / "trees")
        self.key = folder / "vault.key"
        self.key.write_bytes(b"k" * 32)
        self.vault = AesGcmVault(self.key.read_bytes())
        self.logs = FileLogs(folder / "logs", self.clock)
        self.credentials = Credentials(self.store, self.clock)
        ports = Ports(
            store=self.store,
            blobs=self.blobs,
            trees=self.trees,
            vault=self.vault,
            logs=self.logs,
            clock=self.clock,
            fleet=self.fleet,
            metrics=_metrics,
        )
        settings = ServiceSettings(
            runtimes=RUNTIMES,
            sandboxes=frozenset({"process", "other"}),
            shared_namespaces=shared_namespaces,
            base_url=lambda: "http://127.0.0.1:8080",
            key_file=self.key,
            temporary=folder,
        )
        self.service = Service(ports, settings, self.credentials)
        self.admin = ""
        self._following: asyncio.Task[None] | None = None

    async def open(self) -> World:
        self.admin = await bootstrap(self.store, self.folder)
        self._following = asyncio.create_task(self.credentials.run())
        await self.credentials.synced.wait()
        return self

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self.logs.close()
        await self.store.close()

    async def run(self, command: c.Command[Any], caller: Caller = PLATFORM) -> Any:
        return await self.service.run(caller, command)

    async def namespace(self, name: str, spec: NamespaceSpec | None = None) -> None:
        await self.run(c.ApplyNamespace(name=name, spec=spec or NamespaceSpec()))

    async def blob(self, namespace: str = "default", data: bytes = b"an archive") -> str:
        async def chunks() -> AsyncIterator[bytes]:
            yield data

        facts = await self.run(c.PutBlob(namespace=namespace, chunks=chunks()))
        return str(facts.digest)

    async def function(self, name: str = "hello", namespace: str = "default", **template: Any) -> Function:
        template.setdefault("runtime", "python")
        spec = FunctionSpec(template=FunctionTemplate(**template))
        applied = await self.run(c.ApplyFunction(namespace=namespace, name=name, spec=spec))
        assert isinstance(applied.function, Function)
        return applied.function

    async def revision(self, function: Function, number: int, phase: Any = "ready", **status: Any) -> Revision:
        """As control makes one; the traffic goes to it when it is ready."""
        name = revision_name(function.meta.name, number)
        made = await self.store.create(
            Revision(
                meta=Meta(
                    name=name,
                    namespace=function.meta.namespace,
                    owner=OwnerReference(kind="Function", name=function.meta.name, uid=function.meta.uid),
                ),
                spec=RevisionSpec(
                    function=function.meta.name,
                    function_uid=function.meta.uid,
                    number=number,
                    template=function.spec.template,
                ),
            )
        )
        assert isinstance(made, Revision)
        made = msgspec.structs.replace(made, status=RevisionStatus(phase=phase, **status))
        made = await self.store.update_status(made)
        current = await self.store.get("Function", function.meta.namespace, function.meta.name)
        assert isinstance(current, Function)
        status_now = msgspec.structs.replace(current.status, latest_created=name)
        if phase == "ready":
            traffic = (TrafficTarget(percent=100, revision=name),)
            status_now = msgspec.structs.replace(status_now, latest_ready=name, traffic=traffic)
        await self.store.update_status(msgspec.structs.replace(current, status=status_now))
        assert isinstance(made, Revision)
        return made

    async def token(self, name: str, namespaces: tuple[str, ...], verbs: tuple[str, ...], expires_at: float = 0) -> str:
        """The text of a token put straight into the store."""
        text = new_token()
        spec = TokenSpec(sha256=digest(text), namespaces=namespaces, verbs=verbs, expires_at=expires_at)
        made = await self.store.create(Token(meta=Meta(name=name), spec=spec))
        assert isinstance(made, Token)
        self.credentials.learn(made)
        return text

    async def audit(self) -> list[dict[str, object]]:
        """All entries, newest first, once what was written is on disk."""
        await asyncio.sleep(0.15)
        return await self.store.read_audit(1000)


def instance(id: str, namespace: str, function: str, revision: str, state: Any = "ready") -> InstanceInfo:
    return InstanceInfo(
        id=id,
        namespace=namespace,
        function=function,
        revision=revision,
        driver="process",
        state=state,
        protocol="frames",
        started_at=NOW,
        memory=128,
    )


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


async def _metrics() -> bytes:
    return b"septet_up 1\n"
