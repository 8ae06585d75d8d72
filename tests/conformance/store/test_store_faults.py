"""Kills at any moment, altered bits, a full disk: nothing acknowledged is lost, nothing altered is served."""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import shutil
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path

import apsw
import msgspec
import pytest
from broken_stores import NeverSyncs
from clauses import raises
from store_beds import OwnClock, SqliteBed, function, killed_holder, names, take, watching
from store_clauses import alter

from septet.drivers.store.sqlite.connection import migrate, migrations
from septet.drivers.store.sqlite.store import SqliteStore
from septet.model.errors import Corrupt, SeptetError, Unavailable
from septet.model.meta import Meta
from septet.model.objects import Secret

KILLS = 20


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[SqliteBed]:
    made = SqliteBed(tmp_path)
    await made.open()
    yield made
    await made.close()


async def test_twenty_kills_lose_nothing(bed: SqliteBed) -> None:
    await bed.close()
    acknowledged: set[str] = set()
    chance = random.Random(20)
    for _ in range(KILLS):
        done, _ = await killed_holder(bed.folder, SqliteStore, "kill", after=chance.randrange(1, 120))
        acknowledged |= set(done)
    await bed.open()
    assert acknowledged <= set(names(await bed.listed()))
    assert len(acknowledged) > KILLS
    assert await bed.store.check() == []


async def test_power_cuts_in_a_row_lose_nothing(tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    folder = tmp_path
    for turn, after in enumerate((3, 60, 25)):
        done, synced = await killed_holder(folder, SqliteStore, "power", after)
        acknowledged |= set(done)
        folder = tmp_path / f"after{turn}"
        shutil.copytree(synced, folder, ignore=shutil.ignore_patterns("*.part"))
    store = SqliteStore(folder / "store.db", OwnClock())
    found = (await store.page("Function")).items
    wrong = await store.check()
    await store.close()
    assert acknowledged <= set(names(found))
    assert wrong == []


async def test_a_power_cut_would_show_a_store_that_does_not_sync(tmp_path: Path) -> None:
    """The control of the test above."""
    done, synced = await killed_holder(tmp_path, NeverSyncs, "power", 25)
    for left in synced.glob("*.part"):
        left.unlink()
    store = SqliteStore(synced / "store.db", OwnClock())
    found = names((await store.page("Function")).items)
    await store.close()
    assert not set(done) <= set(found)


# -- altered bits


async def test_an_altered_row_is_never_served(bed: SqliteBed) -> None:
    await bed.store.create(function("a"))
    cursor = (await bed.store.page("Function", limit=1)).version
    assert cursor == 1
    await bed.store.create(function("b"))
    await bed.store.acquire("loop", "me", 10)
    await bed.store.record_audit({"who": "me"})
    await bed.close()
    alter(bed.path, "UPDATE objects SET data = replace(data, 'python', 'pythoN') WHERE name = 'a'")
    alter(bed.path, "UPDATE changes SET data = replace(data, 'python', 'pythoN') WHERE version = 2")
    alter(bed.path, "UPDATE leases SET holder = 'you'")
    alter(bed.path, "UPDATE audit SET data = replace(data, 'me', 'it')")
    await bed.open()
    await raises(Corrupt, bed.store.get("Function", "default", "a"))
    await raises(Corrupt, bed.store.page("Function"))
    await raises(Corrupt, bed.store.update(function("a", runtime="node")))
    await raises(Corrupt, bed.store.delete("Function", "default", "a"))
    async with watching(bed.store, 0) as changes:
        await raises(Corrupt, take(changes, 2))
    await raises(Corrupt, bed.store.acquire("loop", "you", 10))
    await raises(Corrupt, bed.store.read_audit())
    assert (await bed.store.get("Function", "default", "b")).meta.name == "b"
    assert (await bed.store.create(function("c"))).meta.resource_version == 3


async def test_an_altered_earlier_state_is_never_served(bed: SqliteBed) -> None:
    for name in ("a", "b"):
        await bed.store.create(function(name))
    cursor = (await bed.store.page("Function", limit=1)).cursor
    await bed.store.update(function("b", runtime="node"))
    await bed.close()
    alter(bed.path, "UPDATE changes SET before = replace(before, 'python', 'pythoN') WHERE version = 3")
    await bed.open()
    await raises(Corrupt, bed.store.page("Function", limit=1, cursor=cursor))


async def test_flipped_bits_anywhere_are_found_and_never_served(tmp_path: Path) -> None:
    """Whatever byte of the file is altered: what is read is right or refused, and what is missing is noticed."""
    right = await _filled(tmp_path / "right")
    original = (tmp_path / "right" / "store.db").read_bytes()
    chance = random.Random(19)
    positions = [chance.randrange(len(original)) for _ in range(150)]
    positions += [chance.randrange(4096) for _ in range(25)]  # the schema's page
    refused = 0
    for turn, at in enumerate(positions):
        folder = tmp_path / str(turn)
        folder.mkdir()
        data = bytearray(original)
        data[at] ^= 1 << chance.randrange(8)
        (folder / "store.db").write_bytes(data)
        refused += await _look(folder, right)
        shutil.rmtree(folder)
    assert refused > 20, "nothing was hit"


async def _filled(folder: Path) -> dict[str, object]:
    folder.mkdir()
    store = SqliteStore(folder / "store.db", OwnClock())
    for number in range(30):
        await store.create(function(f"f{number}", annotations={"a": "x" * 100}))
    for number in range(0, 30, 3):
        await store.update(function(f"f{number}", runtime="node"))
    await store.create(Secret(meta=Meta(name="s")))
    right = await _all(store)
    await store.close()
    return right


async def _all(store: SqliteStore) -> dict[str, object]:
    """Answers of a store by question; a refusal counts as none."""
    found: dict[str, object] = {}

    async def ask(question: str, work: Awaitable[object]) -> None:
        try:
            found[question] = await work
        except SeptetError as error:
            assert isinstance(error, Corrupt | Unavailable), repr(error)
            found[question] = None

    async def changes() -> object:
        async with watching(store, 0) as told:
            return await take(told, 41)

    for number in range(30):
        await ask(f"f{number}", store.get("Function", "default", f"f{number}"))
    await ask("list", store.page("Function"))
    await ask("secrets", store.page("Secret"))
    await ask("version", store.version())
    await ask("watch", changes())
    return found


async def _look(folder: Path, right: dict[str, object]) -> bool:
    """True when the alteration was refused or named; asserts that nothing wrong was served."""
    try:
        store = SqliteStore(folder / "store.db", OwnClock())
    except SeptetError:
        return True
    try:
        wrong = await store.check()
        try:
            found = await _all(store)
        except (SeptetError, AssertionError):
            assert wrong, "something is missing, and the check does not say so"
            return True
        served = {question: answer for question, answer in found.items() if answer is not None}
        altered = {question for question, answer in served.items() if answer != right[question]}
        assert not altered or wrong, f"served altered: {altered}"
        for question in altered:
            # A list may lack what the tree no longer leads to, which the check names; what it has is right.
            assert question in ("list", "secrets", "watch", "version"), question
            _no_forgery(served[question], right[question])
        return bool(wrong) or len(served) < len(found)
    finally:
        await store.close()


def _no_forgery(found: object, right: object) -> None:
    if isinstance(found, list) and isinstance(right, list):
        assert all(item in right for item in found)
    elif hasattr(found, "items") and hasattr(right, "items"):
        assert all(item in right.items for item in found.items)


# -- the disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=2m")
    assert done == 0, os.strerror(ctypes.get_errno())
    yield folder
    assert libc.umount2(os.fsencode(folder), 2) == 0


@pytest.mark.root
async def test_a_full_disk_refuses_writes_and_recovers(small_disk: Path) -> None:
    bed = SqliteBed(small_disk)
    await bed.open()
    try:
        await bed.store.create(function("first"))
        ballast = small_disk / "ballast"
        with pytest.raises(OSError, match="No space"), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        made = {"first"}
        failure: SeptetError | None = None
        for number in range(200):
            try:
                await bed.store.create(function(f"f{number}", annotations={"a": "x" * 3000}))
                made.add(f"f{number}")
            except SeptetError as error:
                failure = error
                break
        assert isinstance(failure, Unavailable) and "full" in failure.message
        assert set(names(await bed.listed())) == made
        ballast.unlink()
        await bed.store.create(function("later"))
        await bed.reopen()
        assert set(names(await bed.listed())) == made | {"later"}
        assert await bed.store.check() == []
    finally:
        await bed.close()


async def test_the_file_and_its_log_are_private(bed: SqliteBed) -> None:
    await bed.store.create(function("a"))
    await bed.store.backup(bed.folder / "copy.db")
    modes = {path.name: path.stat().st_mode & 0o777 for path in bed.folder.iterdir()}
    assert {"store.db", "store.db-wal", "copy.db"} <= set(modes)
    assert set(modes.values()) == {0o600}


async def test_what_is_no_database_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"something else" * 1000)
    with pytest.raises(Corrupt):
        SqliteStore(tmp_path / "store.db", OwnClock())


# -- migrations


async def test_a_migration_makes_a_backup_first_and_is_one_step(bed: SqliteBed) -> None:
    made = await bed.store.create(function("a"))
    await bed.close()
    newest = migrations()[-1][0]
    steps = [*migrations(), (newest + 1, "CREATE TABLE extra (a)"), (newest + 2, "CREATE TABLE more (a); no sql")]
    db = apsw.Connection(str(bed.path))
    with pytest.raises(apsw.SQLError):
        migrate(db, bed.path, steps)
    assert db.pragma("user_version") == newest + 1
    tables = {str(row[0]) for row in db.execute("SELECT name FROM sqlite_schema")}
    db.close()
    assert "extra" in tables and "more" not in tables
    before = SqliteStore(bed.path.with_name(f"store.db.before-{newest + 2:04d}"), bed.clock)
    try:
        assert await before.get("Function", "default", "a") == made
    finally:
        await before.close()


async def test_all_that_an_older_version_wrote_is_looked_at_once_more(bed: SqliteBed) -> None:
    for name in ("a", "b"):
        await bed.store.create(function(name))
    await bed.store.create(Secret(meta=Meta(name="s")))
    await bed.close()
    db = apsw.Connection(str(bed.path))
    db.execute("DROP TABLE unsettled; DROP TABLE memories; PRAGMA user_version = 1")
    db.close()
    await bed.open()
    keys, _ = await bed.store.unsettled()
    assert keys == [("Function", "default", "a"), ("Function", "default", "b")]
    assert await bed.store.check() == []


async def test_a_store_of_a_newer_version_is_left_alone(bed: SqliteBed) -> None:
    await bed.close()
    db = apsw.Connection(str(bed.path))
    db.pragma("user_version", 9999)
    db.close()
    with pytest.raises(Unavailable, match="newer"):
        SqliteStore(bed.path, bed.clock)
    db = apsw.Connection(str(bed.path))
    db.pragma("user_version", migrations()[-1][0])
    db.close()
    await bed.open()


async def test_work_that_fails_does_not_disturb_its_group(bed: SqliteBed) -> None:
    await bed.store.create(function("taken"))
    tries = await asyncio.gather(
        *(bed.store.create(function("taken" if number % 3 == 0 else f"f{number}")) for number in range(30)),
        return_exceptions=True,
    )
    failed = [number for number, outcome in enumerate(tries) if isinstance(outcome, BaseException)]
    assert failed == list(range(0, 30, 3))
    versions = sorted(obj.meta.resource_version for obj in tries if isinstance(obj, msgspec.Struct))
    assert versions == list(range(2, 22))
