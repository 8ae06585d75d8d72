"""Lists as of a version, the change log, and the check of every row, as functions of a read transaction."""

from __future__ import annotations

import base64
import binascii
from typing import cast

import apsw
import msgspec

from septet.drivers.store.sqlite import rows
from septet.drivers.store.sqlite.writing import next_version
from septet.model.errors import Expired, InvalidInput
from septet.model.objects import AnyObject
from septet.ports.store import Change, Page

BATCH = 500

# Objects unchanged since the version, and, for those changed later, what they were before their first later change.
_AS_OF = """
SELECT namespace, name, data, NULL, NULL FROM objects
 WHERE kind = :kind AND version <= :version AND (:all OR namespace = :namespace)
   AND (namespace, name) > (:after_namespace, :after_name)
UNION ALL
SELECT c.namespace, c.name, c.before, c.version, c.checksum FROM changes c
 WHERE c.kind = :kind AND c.version > :version AND c.before IS NOT NULL AND (:all OR c.namespace = :namespace)
   AND (c.namespace, c.name) > (:after_namespace, :after_name)
   AND NOT EXISTS (SELECT 1 FROM changes d WHERE d.kind = c.kind AND d.namespace = c.namespace AND d.name = c.name
                   AND d.version > :version AND d.version < c.version)
ORDER BY 1, 2 LIMIT :limit
"""


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Where a list goes on: its own question, its version, and the last object seen."""

    kind: str
    namespace: str | None
    labels: dict[str, str]
    version: int
    after: tuple[str, str]

    def text(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode()


def parse_cursor(text: str) -> Cursor:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text.encode()), type=Cursor)
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        raise InvalidInput("the cursor is none that this store gave out", details={"field": "cursor"}) from error


def newest(db: apsw.Connection) -> int:
    return next_version(db) - 1


def oldest_kept(db: apsw.Connection) -> int:
    """The version up to which changes are forgotten."""
    row = db.execute("SELECT min(version) FROM changes").fetchone()
    first = cast("int | None", row[0]) if row else None
    return first - 1 if first is not None else newest(db)


def page(db: apsw.Connection, cursor: Cursor, limit: int) -> Page:
    """The part of the list after the cursor; `limit` 0 gives all."""
    if cursor.version < oldest_kept(db):
        raise Expired(
            f"the list began at version {cursor.version}, which is no longer kept", hint="begin the list again"
        )
    found: list[AnyObject] = []
    after = cursor.after
    while True:
        batch = _batch(db, cursor, after)
        for namespace, name, data in batch:
            after = (namespace, name)
            obj = rows.decode(cursor.kind, data, f"the row of {cursor.kind} {namespace}/{name}")
            if all(obj.meta.labels.get(key) == value for key, value in cursor.labels.items()):
                if limit and len(found) == limit:
                    last = found[-1].meta
                    rest = msgspec.structs.replace(cursor, after=(last.namespace, last.name))
                    return Page(tuple(found), cursor.version, rest.text())
                found.append(obj)
        if len(batch) < BATCH:
            return Page(tuple(found), cursor.version, "")


def _batch(db: apsw.Connection, cursor: Cursor, after: tuple[str, str]) -> list[tuple[str, str, bytes]]:
    question = {
        "kind": cursor.kind,
        "namespace": cursor.namespace or "",
        "all": cursor.namespace is None,
        "version": cursor.version,
        "after_namespace": after[0],
        "after_name": after[1],
        "limit": BATCH,
    }
    result: list[tuple[str, str, bytes]] = []
    answer = cast("list[tuple[str, str, bytes, int | None, bytes | None]]", db.execute(_AS_OF, question).fetchall())
    for namespace, name, data, changed, _ in answer:
        if changed is None:
            _check_object(db, cursor.kind, namespace, name)
        else:
            _check_change(db, changed)
        result.append((namespace, name, data))
    return result


def _check_object(db: apsw.Connection, kind: str, namespace: str, name: str) -> None:
    row = db.execute(
        "SELECT uid, owner, version, data, checksum FROM objects WHERE kind = ? AND namespace = ? AND name = ?",
        (kind, namespace, name),
    ).fetchone()
    uid, owner, version, data, check = cast("tuple[str, str, int, bytes, bytes]", row)
    if rows.object_checksum(kind, namespace, name, uid, owner, version, data) != check:
        raise rows.corrupt(f"the row of {kind} {namespace}/{name}")


def _check_change(db: apsw.Connection, version: int) -> None:
    changes(db, version - 1, None, 1)


def changes(db: apsw.Connection, after: int, kinds: frozenset[str] | None, limit: int = BATCH) -> list[Change]:
    """The next changes after a version; Expired, Corrupt."""
    if after < oldest_kept(db):
        raise Expired(f"version {after} is no longer kept", hint="list again, and watch from the list's version")
    marks = ",".join("?" * len(kinds)) if kinds is not None else ""
    only = f" AND kind IN ({marks})" if kinds is not None else ""
    answer = db.execute(
        "SELECT version, type, kind, namespace, name, data, before, checksum FROM changes"  # noqa: S608 (marks only)
        f" WHERE version > ?{only} ORDER BY version LIMIT ?",
        (after, *sorted(kinds or ()), limit),
    ).fetchall()
    found: list[Change] = []
    for row in answer:
        version, type_, kind, namespace, name, data, before, check = cast(
            "tuple[int, str, str, str, str, bytes, bytes | None, bytes]", row
        )
        if rows.change_checksum(version, type_, kind, namespace, name, data, before) != check:
            raise rows.corrupt(f"change {version}")
        obj = rows.decode(kind, data, f"change {version}")
        found.append(Change(version, "delete" if type_ == "delete" else "put", kind, obj))
    return found


def check_all(db: apsw.Connection) -> list[str]:
    """Every row that fails its checksum, by name; and what SQLite itself finds wrong with the file."""
    wrong: list[str] = []
    for (text,) in cast("list[tuple[str]]", db.execute("PRAGMA integrity_check").fetchall()):
        if text != "ok":
            wrong.append(f"the file: {text}")
    for row in db.execute("SELECT kind, namespace, name, uid, owner, version, data, checksum FROM objects"):
        *said, check = cast("tuple[str, str, str, str, str, int, bytes, bytes]", row)
        if rows.object_checksum(*said) != check:  # type: ignore[arg-type]
            wrong.append(f"object {said[0]} {said[1]}/{said[2]}")
    for row in db.execute("SELECT version, type, kind, namespace, name, data, before, checksum FROM changes"):
        *told, check = cast("tuple[int, str, str, str, str, bytes, bytes | None, bytes]", row)
        if rows.change_checksum(*told) != check:  # type: ignore[arg-type]
            wrong.append(f"change {told[0]}")
    for name, holder, fence, expires_at, check in cast(
        "list[tuple[str, str, int, float, bytes]]",
        db.execute("SELECT name, holder, fence, expires_at, checksum FROM leases").fetchall(),
    ):
        if rows.checksum("lease", name, holder, fence, expires_at) != check:
            wrong.append(f"lease {name}")
    for id_, data, check in cast(
        "list[tuple[int, bytes, bytes]]", db.execute("SELECT id, data, checksum FROM audit").fetchall()
    ):
        if rows.checksum("audit", data) != check:
            wrong.append(f"audit entry {id_}")
    return wrong
