"""Objects: desired state and status, with versions, lists and a watch. SQLite now, PostgreSQL later.

The clauses below are numbered; the conformance suite has a test per clause, run for every driver.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from septet.model.function import Function, Revision
from septet.model.objects import AnyObject


class Change(NamedTuple):
    """One committed write, in the order of `version`. After a deletion `obj` is the last state."""

    version: int
    type: Literal["put", "delete"]
    kind: str
    obj: AnyObject


class Page(NamedTuple):
    """A part of a list. `version` is the store's version that the whole list shows; `cursor` is empty at the
    end and otherwise the argument for the next call."""

    items: tuple[AnyObject, ...]
    version: int
    cursor: str


class Family(NamedTuple):
    """A function with the revisions that it owns; `function` is None for a revision that outlives it. `settled`: see
    `Store.settle`."""

    function: Function | None
    revisions: tuple[Revision, ...]
    settled: bool = False


class LeaseGrant(NamedTuple):
    """A lease held by `holder` until `expires_at` (wall clock); `fence` grows with every new holder."""

    name: str
    holder: str
    fence: int
    expires_at: float


class Store(Protocol):
    """All methods may raise Unavailable (the store does not answer) and Corrupt (a row fails its checksum).

    store.1  What a write returned is durable: it survives SIGKILL and power loss.
    store.2  Versions grow by every write, over all kinds, with no reuse, also across restarts.
    store.3  A kind, namespace and name identify one object at a time; a new one of the same name has a new uid.
    """

    async def create(self, obj: AnyObject) -> AnyObject:
        """Stores a new object and returns it with uid, created_at, resource_version and generation 1.

        store.4  Raises Conflict when kind, namespace and name are taken; nothing changes.
        """
        ...

    async def get(self, kind: str, namespace: str, name: str) -> AnyObject:
        """store.5  Raises NotFound, with kind and name in `details`."""
        ...

    async def page(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        labels: dict[str, str] | None = None,
        limit: int = 0,
        cursor: str = "",
    ) -> Page:
        """Objects of a kind by namespace and name; `namespace` None means all, `labels` must all match.

        store.6  All pages of one list show the store as it was at the first page's version.
        store.7  Raises Expired when a cursor's version is no longer kept; InvalidInput for a foreign cursor.
        """
        ...

    async def update(self, obj: AnyObject) -> AnyObject:
        """Replaces spec and metadata, keeping the stored status; returns the new object.

        store.8   Raises NotFound when it is gone or has another uid, Conflict when `resource_version` differs
                  from the stored one (0 means: do not compare).
        store.9   `generation` grows only when the spec differs; an update that changes nothing writes nothing.
        store.10  uid, created_at and deleting_since are the store's: changes to them are ignored.
        store.11  When the last finalizer of an object that is being deleted goes, the object goes.
        """
        ...

    async def update_status(self, obj: AnyObject) -> AnyObject:
        """Replaces the status alone, keeping spec and metadata; NotFound and Conflict as in `update`.

        store.12  Never changes the generation; an equal status writes nothing.
        """
        ...

    async def delete(self, kind: str, namespace: str, name: str, *, resource_version: int = 0) -> AnyObject:
        """Removes the object, or marks it as being deleted while it has finalizers; returns its last state.

        store.13  Raises NotFound, Conflict as in `update`.
        store.14  Objects whose `owner.uid` is the removed one go in the same transaction (those with
                  finalizers are marked).
        """
        ...

    def watch(self, after: int, kinds: frozenset[str] | None = None) -> AsyncIterator[Change]:
        """All changes with a version greater than `after`, first those already written, then as they come.

        store.15  No gap, no duplicate, in the order of versions.
        store.16  Raises Expired on the first step when `after` is older than what is kept.
        """
        ...

    def family(self, kind: str, namespace: str, name: str) -> Family | None:
        """The function of that name, or that of the revision of that name, with all its revisions; None when there is
        none. At once: it is asked while a call waits, so a driver of a distant store keeps here what it needs for it.

        store.20  Shows every write that has returned.
        """
        ...

    async def settle(self, families: Sequence[Family]) -> list[tuple[str, str]]:
        """Notes, durably, that nothing is left to be done for these; returns (namespace, name) of those noted.

        store.21  One that changed, or got or lost a revision, since it was read is not noted.
        """
        ...

    async def unsettled(self) -> tuple[list[tuple[str, str, str]], int]:
        """(kind, namespace, name) of all functions that are not settled and of their revisions that are not, and
        the version that this shows.

        store.22  A function is unsettled from each write to it or to a revision of it on, as that write itself is,
                  until it is settled.
        """
        ...

    async def version(self) -> int:
        """The version of the newest write."""
        ...

    async def acquire(self, name: str, holder: str, seconds: float) -> LeaseGrant | None:
        """Takes or renews a lease; None when another holder has it.

        store.17  At any moment at most one holder has a lease; a fence is never used by two holders.
        """
        ...

    async def release(self, name: str, holder: str) -> None:
        """Gives a lease back; of a lease held by somebody else, nothing happens."""
        ...

    async def record_audit(self, entry: dict[str, object]) -> None:
        """Appends to the audit log (who, what, when, from where, outcome); durable within 100 ms."""
        ...

    async def read_audit(self, limit: int = 100, before: int = 0) -> list[dict[str, object]]:
        """The newest audit entries first, each with its `id`; `before` is an id."""
        ...

    async def remember(self, memories: Mapping[str, bytes | None]) -> None:
        """Keeps what control learnt, by name and at most 64 KiB each; None forgets. These are no objects: they have no
        version, and no watch tells of them.

        store.23  What returned is durable, all of one call or nothing of it; the last one of a name counts.
        """
        ...

    async def recollect(self, prefix: str) -> dict[str, bytes]:
        """All memories whose names begin with `prefix`.

        store.24  One that fails its checksum is left out and is no error: whoever learnt it learns it again.
        """
        ...

    async def backup(self, path: Path) -> None:
        """store.18  Writes a consistent copy while others write; the copy opens as a store by itself."""
        ...

    async def check(self) -> list[str]:
        """store.19  Reads everything and names each row that fails its checksum."""
        ...

    async def close(self) -> None:
        """Ends all watches and closes the files; calling it twice is fine."""
        ...
