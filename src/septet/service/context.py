"""What every handler works with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from septet.model.access import Caller
from septet.model.objects import AnyObject
from septet.model.runtime import Runtime
from septet.policy import access
from septet.ports.blobs import Blobs, Trees, Vault
from septet.ports.clock import Clock
from septet.ports.fleetview import FleetView
from septet.ports.logs import Logs
from septet.ports.store import Store
from septet.service.authenticate import Credentials
from septet.service.claims import Claims

Object = TypeVar("Object")


@dataclass(frozen=True)
class ServiceSettings:
    """What the service is told by the composition root."""

    runtimes: Mapping[str, Runtime]
    """The built-in runtimes by name."""
    sandboxes: frozenset[str] = frozenset({"process"})
    """Names of the drivers that functions may ask for."""
    shared_namespaces: tuple[str, ...] = ()
    """Namespaces whose functions may ask for isolation `shared-namespace`; "*" for all."""
    base_url: Callable[[], str] = lambda: ""
    """The main listener's address, known once it is bound; without a slash at the end."""
    archive_limit: int = 512 * 1024 * 1024
    """Bytes of an uploaded archive."""
    key_file: Path | None = None
    """Where the vault's key stands; None when it is kept elsewhere and no backup can hold it."""
    temporary: Path | None = None
    """A directory for the store's copy while a backup is made, on a disk with room for it; None: the system's."""


@dataclass(frozen=True)
class Ports:
    """The world, as the service sees it. `metrics` renders the exposition text."""

    store: Store
    blobs: Blobs
    trees: Trees
    vault: Vault
    logs: Logs
    clock: Clock
    fleet: FleetView
    metrics: Callable[[], Awaitable[bytes]]


@dataclass(frozen=True)
class Context:
    """One command's surroundings: who calls, the ports, and what the service keeps in memory."""

    caller: Caller
    ports: Ports
    settings: ServiceSettings
    credentials: Credentials
    claims: Claims

    def may(self, verb: str, namespace: str) -> bool:
        """Whether the caller holds `verb` there; for showing a part of a list, and for what is handed on."""
        return access.decide(self.caller, verb, namespace, now=self.ports.clock.wall()).allowed

    async def get(self, kind: type[Object], namespace: str, name: str) -> Object:
        """An object by name; NotFound."""
        return cast("Object", await self.ports.store.get(kind.__name__, namespace, name))

    async def told(self, *objects: AnyObject) -> None:
        """Before these are answered: what they say of calls holds for the calls that the reader makes next."""
        await self.ports.fleet.known(objects)

    async def all(self, kind: type[Object], namespace: str | None = None) -> list[Object]:
        """Every object of a kind (of a namespace), by name."""
        page = await self.ports.store.page(kind.__name__, namespace)
        return [cast("Object", obj) for obj in page.items]

    async def create(self, obj: Object) -> Object:
        return cast("Object", await self.ports.store.create(cast("AnyObject", obj)))

    async def update(self, obj: Object) -> Object:
        return cast("Object", await self.ports.store.update(cast("AnyObject", obj)))
