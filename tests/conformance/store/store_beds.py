"""Stores to test, each in a directory of its own, with a clock that the test owns."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from septet.drivers.store.sqlite.store import SqliteStore
from septet.model.function import Function, FunctionSpec, FunctionTemplate
from septet.model.meta import Meta, OwnerReference
from septet.model.objects import AnyObject
from septet.ports.store import Change, Page

HERE = Path(__file__).parent
SRC = Path(__file__).parents[3] / "src"
PATIENCE = 2.0
NOW = 1_700_000_000.0


class OwnClock:
    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SqliteBed:
    """`make` says which class: the driver, or one that is broken on purpose."""

    def __init__(self, folder: Path, make: type[SqliteStore] = SqliteStore) -> None:
        self.folder = folder
        self.path = folder / "store.db"
        self.make = make
        self.clock = OwnClock()
        self.store: SqliteStore

    async def open(self, keep: int = 1000) -> None:
        self.store = self.make(self.path, self.clock, keep=keep, keep_audit=keep)

    async def close(self) -> None:
        await self.store.close()

    async def reopen(self, keep: int = 1000) -> None:
        await self.close()
        await self.open(keep)

    async def killed(self, mode: str, after: int) -> tuple[list[str], Path]:
        """Another process writes until it is killed; what it acknowledged, and the directory that remains.

        `mode` "power" leaves only what was synced.
        """
        await self.close()
        found = await killed_holder(self.folder, self.make, mode, after)
        await self.open()
        return found

    async def listed(self, store: SqliteStore | None = None, **question: str) -> list[AnyObject]:
        page = await (store or self.store).page("Function", **question)  # type: ignore[arg-type]
        return list(page.items)

    async def pages(self, limit: int, between: Callable[[], object] | None = None, **question: object) -> list[Page]:
        """All pages of a list; `between` makes an awaitable that is awaited after each."""
        found: list[Page] = []
        cursor = ""
        while True:
            page = await self.store.page("Function", limit=limit, cursor=cursor, **question)  # type: ignore[arg-type]
            found.append(page)
            cursor = page.cursor
            if not cursor:
                return found
            if between is not None:
                await between()  # type: ignore[misc]


async def killed_holder(folder: Path, make: type[SqliteStore], mode: str, after: int) -> tuple[list[str], Path]:
    """Runs `store_holder.py` on the store in `folder` and kills it a little after `after` acknowledgements."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / "store_holder.py"),
        str(folder),
        make.__name__,
        mode,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{SRC}:{HERE}"},
    )
    assert process.stdout is not None
    acknowledged: list[str] = []
    try:
        while len(acknowledged) < after:
            line = await asyncio.wait_for(process.stdout.readline(), 20)
            assert line.endswith(b"\n"), "the writer ended by itself"
            acknowledged.append(line.decode().strip())
    finally:
        process.kill()
    rest = (await process.stdout.read()).decode().split("\n")
    acknowledged += [line for line in rest[:-1] if line]
    await process.wait()
    return acknowledged, folder / "synced" if mode == "power" else folder


BEDS: dict[str, Callable[[Path], SqliteBed]] = {"sqlite": SqliteBed}


def function(name: str, namespace: str = "default", runtime: str = "python", **meta: object) -> Function:
    return Function(
        meta=Meta(name=name, namespace=namespace, **meta),  # type: ignore[arg-type]
        spec=FunctionSpec(template=FunctionTemplate(runtime=runtime)),
    )


def owned_by(owner: AnyObject) -> OwnerReference:
    return OwnerReference(kind=type(owner).__name__, name=owner.meta.name, uid=owner.meta.uid)


def names(objects: Sequence[AnyObject]) -> list[str]:
    return [obj.meta.name for obj in objects]


async def take(changes: AsyncIterator[Change], count: int) -> list[Change]:
    """The next so many changes, each within a time."""
    found: list[Change] = []
    for _ in range(count):
        try:
            found.append(await asyncio.wait_for(anext(changes), PATIENCE))
        except TimeoutError:
            raise AssertionError(f"{len(found)} changes came, not {count}") from None
    return found


@contextlib.asynccontextmanager
async def watching(
    store: SqliteStore, after: int, kinds: frozenset[str] | None = None
) -> AsyncIterator[AsyncIterator[Change]]:
    changes = store.watch(after, kinds)
    try:
        yield changes
    finally:
        await changes.aclose()  # type: ignore[attr-defined]
