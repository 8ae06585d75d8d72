"""Writes, as functions of one open transaction."""

from __future__ import annotations

import contextlib
import uuid
from typing import Any, NamedTuple, cast

import apsw
import msgspec

from septet.drivers.store.sqlite import rows, settling
from septet.model.errors import Conflict, NotFound
from septet.model.meta import Meta
from septet.model.objects import AnyObject, kind_of


class Stored(NamedTuple):
    """An object as its row has it."""

    obj: AnyObject
    data: bytes


def load(db: apsw.Connection, kind: str, namespace: str, name: str) -> Stored:
    """The object of that name; NotFound, Corrupt."""
    row = db.execute(
        "SELECT uid, owner, version, data, checksum FROM objects WHERE kind = ? AND namespace = ? AND name = ?",
        (kind, namespace, name),
    ).fetchone()
    if row is None:
        raise missing(kind, namespace, name)
    uid, owner, version, data, check = cast("tuple[str, str, int, bytes, bytes]", row)
    where = f"the row of {kind} {namespace}/{name}"
    if rows.object_checksum(kind, namespace, name, uid, owner, version, data) != check:
        raise rows.corrupt(where)
    return Stored(rows.decode(kind, data, where), data)


def missing(kind: str, namespace: str, name: str) -> NotFound:
    where = f" in namespace {namespace!r}" if namespace else ""
    return NotFound(
        f"there is no {kind.lower()} {name!r}{where}",
        details={"kind": kind, "name": name, "namespace": namespace},
        stage="control",
    )


def sequence(db: apsw.Connection) -> int:
    """The highest version ever given, as SQLite keeps it: it never goes back, whatever is deleted. Corrupt."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'changes'").fetchone()
    found = row[0] if row else 0
    if not isinstance(found, int):
        raise rows.corrupt("the sequence of versions")
    return found


def next_version(db: apsw.Connection) -> int:
    """The version that the next change will get. Corrupt."""
    row = db.execute("SELECT coalesce(max(version), 0) FROM changes").fetchone()
    # The sequence carries no checksum: should it have gone back, what is there is not given again.
    return max(sequence(db), cast("int", row[0]) if row else 0) + 1


def create(db: apsw.Connection, obj: AnyObject, now: float) -> AnyObject:
    kind, meta = kind_of(obj), obj.meta
    taken = db.execute(
        "SELECT 1 FROM objects WHERE kind = ? AND namespace = ? AND name = ?", (kind, meta.namespace, meta.name)
    ).fetchone()
    if taken:
        raise Conflict(
            f"there is a {kind.lower()} {meta.name!r} already",
            hint="update it, or choose another name",
            details={"kind": kind, "name": meta.name, "namespace": meta.namespace},
        )
    version = next_version(db)
    made = msgspec.structs.replace(
        meta,
        uid=str(uuid.uuid4()),
        resource_version=version,
        generation=1,
        created_at=now,
        deleting_since=None,
    )
    return _put(db, _with(obj, meta=made), None)


def update(db: apsw.Connection, obj: AnyObject, now: float) -> AnyObject:
    stored = _current(db, obj)
    old = stored.obj.meta
    kept: dict[str, Any] = {"uid": old.uid, "created_at": old.created_at, "deleting_since": old.deleting_since}
    same = msgspec.structs.replace(obj.meta, **kept, resource_version=old.resource_version, generation=old.generation)
    changed = _with(obj, meta=same, status=getattr(stored.obj, "status", None))
    if changed == stored.obj:
        return stored.obj
    grown = old.generation + (_spec(obj) != _spec(stored.obj))
    meta = msgspec.structs.replace(same, resource_version=next_version(db), generation=grown)
    if old.deleting_since is not None and not meta.finalizers:
        return _remove(db, _with(changed, meta=meta), stored.data, now)
    return _put(db, _with(changed, meta=meta), stored.data)


def update_status(db: apsw.Connection, obj: AnyObject) -> AnyObject:
    stored = _current(db, obj)
    if getattr(obj, "status", None) == getattr(stored.obj, "status", None):
        return stored.obj
    meta = msgspec.structs.replace(stored.obj.meta, resource_version=next_version(db))
    return _put(db, _with(stored.obj, meta=meta, status=getattr(obj, "status", None)), stored.data)


def delete(db: apsw.Connection, kind: str, namespace: str, name: str, version: int, now: float) -> AnyObject:
    stored = load(db, kind, namespace, name)
    if version and stored.obj.meta.resource_version != version:
        raise _changed(kind, stored.obj.meta, version)
    return _delete(db, stored, now)


def _delete(db: apsw.Connection, stored: Stored, now: float) -> AnyObject:
    meta = stored.obj.meta
    if meta.finalizers:
        if meta.deleting_since is not None:
            return stored.obj
        marked = msgspec.structs.replace(meta, deleting_since=now, resource_version=next_version(db))
        return _put(db, _with(stored.obj, meta=marked), stored.data)
    gone = msgspec.structs.replace(meta, resource_version=next_version(db))
    return _remove(db, _with(stored.obj, meta=gone), stored.data, now)


def _current(db: apsw.Connection, obj: AnyObject) -> Stored:
    kind, meta = kind_of(obj), obj.meta
    stored = load(db, kind, meta.namespace, meta.name)
    if meta.uid and meta.uid != stored.obj.meta.uid:
        raise missing(kind, meta.namespace, meta.name)
    if meta.resource_version and meta.resource_version != stored.obj.meta.resource_version:
        raise _changed(kind, stored.obj.meta, meta.resource_version)
    return stored


def _changed(kind: str, meta: Meta, version: int) -> Conflict:
    return Conflict(
        f"the {kind.lower()} {meta.name!r} was changed meanwhile: it is at version {meta.resource_version}, "
        f"not {version}",
        hint="read it again and apply the change to what it is now",
        details={"kind": kind, "name": meta.name, "resource_version": meta.resource_version},
    )


def _put(db: apsw.Connection, obj: AnyObject, before: bytes | None) -> AnyObject:
    kind, meta, data = kind_of(obj), obj.meta, rows.encode(obj)
    owner = meta.owner.uid if meta.owner else ""
    version = meta.resource_version
    check = rows.object_checksum(kind, meta.namespace, meta.name, meta.uid, owner, version, data)
    db.execute(
        "INSERT INTO objects (kind, namespace, name, uid, owner, version, data, checksum)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (kind, namespace, name) DO UPDATE SET uid = excluded.uid, owner = excluded.owner,"
        " version = excluded.version, data = excluded.data, checksum = excluded.checksum",
        (kind, meta.namespace, meta.name, meta.uid, owner, version, data, check),
    )
    _log(db, "put", obj, data, before)
    settling.note(db, obj)
    return obj


def _remove(db: apsw.Connection, obj: AnyObject, before: bytes, now: float) -> AnyObject:
    """The object goes, and with it all that it owns."""
    kind, meta = kind_of(obj), obj.meta
    db.execute("DELETE FROM objects WHERE kind = ? AND namespace = ? AND name = ?", (kind, meta.namespace, meta.name))
    _log(db, "delete", obj, rows.encode(obj), before)
    settling.note_removal(db, obj)
    # Said with the index's own condition; without it the whole table is read.
    owned = db.execute(
        "SELECT kind, namespace, name FROM objects WHERE owner = ? AND owner != ''", (meta.uid,)
    ).fetchall()
    for owned_kind, namespace, name in cast("list[tuple[str, str, str]]", owned):
        # One that went by way of another is not there any more.
        with contextlib.suppress(NotFound):
            _delete(db, load(db, owned_kind, namespace, name), now)
    return obj


def _log(db: apsw.Connection, type_: str, obj: AnyObject, data: bytes, before: bytes | None) -> None:
    kind, meta = kind_of(obj), obj.meta
    version = meta.resource_version
    check = rows.change_checksum(version, type_, kind, meta.namespace, meta.name, data, before)
    db.execute(
        "INSERT INTO changes (version, type, kind, namespace, name, data, before, checksum)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (version, type_, kind, meta.namespace, meta.name, data, before, check),
    )


def _spec(obj: AnyObject) -> object:
    return obj.spec


def _with(obj: AnyObject, *, meta: Meta, status: object = None) -> AnyObject:
    changes: dict[str, Any] = {"meta": meta}
    if status is not None:
        changes["status"] = status
    return msgspec.structs.replace(obj, **changes)
