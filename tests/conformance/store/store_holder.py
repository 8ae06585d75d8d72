"""Writes to a store until it is killed; prints each name once its write returned.

In the mode "power" everything that SQLite does not sync is lost: a file is copied to `synced/` whenever it is
synced, and only these copies count.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

import apsw
import broken_stores
from store_beds import OwnClock, function

from septet.drivers.store.sqlite.store import SqliteStore


class SyncedFile(apsw.VFSFile):
    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self.path = Path(name.filename()) if isinstance(name, apsw.URIFilename) else Path(str(name))

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        copy = self.path.parent / "synced" / self.path.name
        part = copy.with_name(copy.name + ".part")
        shutil.copyfile(self.path, part)
        part.replace(copy)


class SyncedFiles(apsw.VFS):
    def __init__(self) -> None:
        super().__init__("synced", "unix", makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> SyncedFile:
        return SyncedFile(name, flags)

    def xDelete(self, name: str, sync: bool) -> None:
        super().xDelete(name, sync)
        (Path(name).parent / "synced" / Path(name).name).unlink(missing_ok=True)


async def main(folder: Path, make: type[SqliteStore]) -> None:
    store = make(folder / "store.db", OwnClock())
    start = await store.version()

    async def write(lane: int) -> None:
        for number in range(100_000):
            name = f"{start}-{lane}-{number}"
            await store.create(function(name))
            print(name, flush=True)

    await asyncio.gather(*(write(lane) for lane in range(4)))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    if sys.argv[3] == "power":
        (place / "synced").mkdir()
        for there in place.glob("store.db*"):
            shutil.copyfile(there, place / "synced" / there.name)
        files = SyncedFiles()
    found = getattr(broken_stores, sys.argv[2], SqliteStore)
    asyncio.run(main(place, found))
