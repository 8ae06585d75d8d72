"""Lists as of a version, and the log of changes, as functions of a read transaction."""

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
# The plus keeps the search among changes to those after the version, which are few.
_AS_OF = """
SELECT namespace, name, 0, uid, owner, version, '', data, NULL, checksum FROM objects
 WHERE kind = :kind AND version <= :version AND {place}
UNION ALL
SELECT c.namespace, c.name, 1, '', '', c.version, c.type, c.data, c.before, c.checksum FROM changes c
 WHERE +c.kind = :kind AND c.version > :version AND c.before IS NOT NULL AND {changed_place}
   AND NOT EXISTS (SELECT 1 FROM changes d WHERE d.kind = c.kind AND d.namespace = c.namespace AND d.name = c.name
                   AND d.version > :version AND d.version < c.version)
ORDER BY 1, 2 LIMIT :limit
"""
_ALL = _AS_OF.format(
    place="(namespace, name) > (:namespace, :name)", changed_place="(c.namespace, c.name) > (:namespace, :name)"
)
_ONE_NAMESPACE = _AS_OF.format(
    place="namespace = :namespace AND name > :name", changed_place="c.namespace = :namespace AND c.name > :name"
)


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
    if cursor.version > newest(db):
        raise Expired(f"the list began at version {cursor.version}, which is not here", hint="begin the list again")
    found: list[AnyObject] = []
    # One more than asked for, to know whether anything follows.
    size = min(BATCH, limit + 1) if limit and not cursor.labels else BATCH
    after = cursor.after
    while True:
        batch = _batch(db, cursor, after, size)
        for after, obj in batch:  # noqa: B007 (the last one is where the next batch begins)
            if all(obj.meta.labels.get(key) == value for key, value in cursor.labels.items()):
                if limit and len(found) == limit:
                    last = found[-1].meta
                    rest = msgspec.structs.replace(cursor, after=(last.namespace, last.name))
                    return Page(tuple(found), cursor.version, rest.text())
                found.append(obj)
        if len(batch) < size:
            return Page(tuple(found), cursor.version, "")


def _batch(
    db: apsw.Connection, cursor: Cursor, after: tuple[str, str], size: int
) -> list[tuple[tuple[str, str], AnyObject]]:
    question = {
        "kind": cursor.kind,
        "version": cursor.version,
        "namespace": after[0],
        "name": after[1],
        "limit": size,
    }
    answer = db.execute(_ALL if cursor.namespace is None else _ONE_NAMESPACE, question).fetchall()
    return [((row[0], row[1]), _checked(cursor.kind, row)) for row in cast("list[_Row]", answer)]


_Row = tuple[str, str, int, str, str, int, str, bytes, bytes | None, bytes]


def _checked(kind: str, row: _Row) -> AnyObject:
    namespace, name, from_change, uid, owner, version, type_, data, before, check = row
    where = f"the row of {kind} {namespace}/{name}"
    if not from_change:
        right = rows.object_checksum(kind, namespace, name, uid, owner, version, data)
    else:
        where = f"change {version}"
        right = rows.change_checksum(version, type_, kind, namespace, name, data, before)
    if right != check:
        raise rows.corrupt(where)
    return rows.decode(kind, (before or b"") if from_change else data, where)


def changes(db: apsw.Connection, after: int, kinds: frozenset[str] | None, limit: int = BATCH) -> list[Change]:
    """The next changes after a version; Expired, Corrupt."""
    if after < oldest_kept(db):
        raise Expired(f"version {after} is no longer kept", hint="list again, and watch from the list's version")
    if after > newest(db):
        # A restored store may be older than those who watched it.
        raise Expired(f"version {after} is not here", hint="list again, and watch from the list's version")
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
