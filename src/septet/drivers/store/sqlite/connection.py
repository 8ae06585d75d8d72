"""Opening the database file: settings, migrations, and SQLite's errors in our words."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import apsw

from septet.drivers.store.sqlite import rows
from septet.model.errors import Corrupt, Unavailable

BUSY_MS = 5_000
LOG_BYTES = 16 * 1024 * 1024


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """SQLite's failures as Corrupt (the file is damaged) or Unavailable (disk, locks, permissions)."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError, UnicodeDecodeError) as error:
        raise Corrupt(
            f"the store's file is damaged: {error}", hint="restore the newest backup: `septet restore`"
        ) from error
    except apsw.FullError as error:
        raise Unavailable("the disk with the data directory is full", hint="free space; nothing was written") from error
    except apsw.Error as error:
        raise Unavailable(f"the store does not answer: {error}", hint="look at the data directory's disk") from error


def connect(path: Path, *, readonly: bool = False) -> apsw.Connection:
    """A connection with our settings: WAL, and a commit is on disk before it returns."""
    if not readonly:
        # The log beside it takes the file's mode, so that has to be right from the start.
        _make_private(path)
    flags = apsw.SQLITE_OPEN_READONLY if readonly else apsw.SQLITE_OPEN_READWRITE
    db = apsw.Connection(str(path), flags=flags)
    db.set_busy_timeout(BUSY_MS)
    if not readonly:
        db.pragma("journal_mode", "wal")
        db.pragma("synchronous", "full")
        db.pragma("journal_size_limit", LOG_BYTES)
    db.pragma("trusted_schema", False)
    db.pragma("cell_size_check", True)
    return db


def _make_private(path: Path) -> None:
    try:
        path.touch(mode=0o600)
        path.chmod(0o600)
    except OSError as error:
        raise Unavailable(
            f"the store's file {path} cannot be made or kept private: {error.strerror}",
            hint="the data directory must be ours",
        ) from error


def migrations() -> list[tuple[int, str]]:
    """(number, SQL) in order."""
    folder = resources.files(__package__) / "migrations"
    found = [(int(item.name[:4]), item.read_text()) for item in folder.iterdir() if item.name.endswith(".sql")]
    return sorted(found)


def migrate(db: apsw.Connection, path: Path, steps: list[tuple[int, str]] | None = None) -> int:
    """Brings the schema up to date, each step in one transaction, after a copy of a file that has data.

    Returns the schema's number. Unavailable when the file is newer than this program.
    """
    steps = migrations() if steps is None else steps
    current = int(db.pragma("user_version"))
    newest = steps[-1][0]
    if current > newest:
        raise Unavailable(
            f"the store was written by a newer version (schema {current}, this program knows {newest})",
            hint="install that version, or restore a backup made by this one",
        )
    if 0 < current < newest:
        copy(db, path.with_name(f"{path.name}.before-{newest:04d}"))
    db.create_scalar_function("checksum", rows.checksum, deterministic=True)
    for number, sql in steps:
        if number > current:
            with db:
                db.execute(sql)
                db.pragma("user_version", number)
    return newest


def copy(db: apsw.Connection, target: Path) -> None:
    """A consistent copy of the whole database while others write, complete and on disk, or not there."""
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    try:
        _make_private(part)
        _copy_pages(db, part)
        part.replace(target)
    finally:
        # What is left of a copy that failed would take the room on a disk that may just be full.
        part.unlink(missing_ok=True)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _copy_pages(db: apsw.Connection, target: Path) -> None:
    to = apsw.Connection(str(target), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        with to.backup("main", db, "main") as backup:
            while not backup.done:
                backup.step(256)
        to.pragma("journal_mode", "delete")
    finally:
        to.close()
