"""Functions with their revisions, and which of them control is done with, as functions of a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import apsw

from septet.drivers.store.sqlite import rows
from septet.model.function import Function, Revision
from septet.model.objects import AnyObject, kind_of
from septet.ports.store import Family

KINDS = frozenset({"Function", "Revision"})

_OWNED = (
    "SELECT namespace, name, uid, owner, version, data, checksum FROM objects"
    " WHERE owner = ? AND owner != '' AND kind = 'Revision'"
)
_ONE = (
    "SELECT namespace, name, uid, owner, version, data, checksum FROM objects"
    " WHERE kind = ? AND namespace = ? AND name = ?"
)


def family(db: apsw.Connection, kind: str, namespace: str, name: str) -> Family | None:
    """As `Store.family`; Corrupt."""
    alone: tuple[Revision, ...] = ()
    if kind == "Revision":
        alone = tuple(cast("list[Revision]", _read(db, kind, _ONE, (kind, namespace, name))))
        if not alone:
            return None
        name = alone[0].spec.function
    found = cast("list[Function]", _read(db, "Function", _ONE, ("Function", namespace, name)))
    if not found or (alone and alone[0].spec.function_uid != found[0].meta.uid):
        return Family(None, alone) if alone else None
    revisions = cast("list[Revision]", _read(db, "Revision", _OWNED, (found[0].meta.uid,)))
    waits = db.execute(
        "SELECT 1 FROM unsettled WHERE kind = 'Function' AND namespace = ? AND name = ?", (namespace, name)
    ).fetchone()
    return Family(found[0], tuple(revisions), waits is None)


def _read(db: apsw.Connection, kind: str, question: str, values: tuple[str, ...]) -> list[AnyObject]:
    found: list[AnyObject] = []
    for row in db.execute(question, values).fetchall():
        namespace, name, uid, owner, version, data, check = cast("tuple[str, str, str, str, int, bytes, bytes]", row)
        where = f"the row of {kind} {namespace}/{name}"
        if rows.object_checksum(kind, namespace, name, uid, owner, version, data) != check:
            raise rows.corrupt(where)
        found.append(rows.decode(kind, data, where))
    return found


def settle(db: apsw.Connection, families: Sequence[Family]) -> list[tuple[str, str]]:
    noted = []
    for each in families:
        if each.function is None or not _unchanged(db, each.function, each.revisions):
            continue
        meta = each.function.meta
        keys = [("Function", meta.namespace, meta.name)]
        keys += [("Revision", revision.meta.namespace, revision.meta.name) for revision in each.revisions]
        db.executemany("DELETE FROM unsettled WHERE kind = ? AND namespace = ? AND name = ?", keys)
        noted.append((meta.namespace, meta.name))
    return noted


def _unchanged(db: apsw.Connection, function: Function, revisions: Sequence[Revision]) -> bool:
    """Versions are never used again, so equal ones are the same objects as they were."""
    meta = function.meta
    row = db.execute(
        "SELECT version FROM objects WHERE kind = 'Function' AND namespace = ? AND name = ?",
        (meta.namespace, meta.name),
    ).fetchone()
    owned = db.execute(
        "SELECT version FROM objects WHERE owner = ? AND owner != '' AND kind = 'Revision'", (meta.uid,)
    ).fetchall()
    expected = sorted(revision.meta.resource_version for revision in revisions)
    return row == (meta.resource_version,) and sorted(cast("list[tuple[int]]", owned)) == [(v,) for v in expected]


def unsettled(db: apsw.Connection) -> list[tuple[str, str, str]]:
    found = []
    for row in db.execute("SELECT kind, namespace, name, checksum FROM unsettled").fetchall():
        kind, namespace, name, check = cast("tuple[str, str, str, bytes]", row)
        if checksum(kind, namespace, name) != check:
            raise rows.corrupt(f"the note that {kind} {namespace}/{name} is not settled")
        found.append((kind, namespace, name))
    return found


def checksum(kind: str, namespace: str, name: str) -> bytes:
    return rows.checksum("unsettled", kind, namespace, name)


def note(db: apsw.Connection, obj: AnyObject) -> None:
    """It was written: it and its function are to be looked at."""
    kind, meta = kind_of(obj), obj.meta
    if kind not in KINDS:
        return
    _insert(db, kind, meta.namespace, meta.name)
    if isinstance(obj, Revision):
        _insert(db, "Function", meta.namespace, obj.spec.function)


def note_removal(db: apsw.Connection, obj: AnyObject) -> None:
    """It is gone: its function, if it is still there, is to be looked at."""
    kind, meta = kind_of(obj), obj.meta
    if kind not in KINDS:
        return
    db.execute("DELETE FROM unsettled WHERE kind = ? AND namespace = ? AND name = ?", (kind, meta.namespace, meta.name))
    if isinstance(obj, Revision):
        _insert(db, "Function", meta.namespace, obj.spec.function)


def _insert(db: apsw.Connection, kind: str, namespace: str, name: str) -> None:
    db.execute(
        "INSERT OR IGNORE INTO unsettled (kind, namespace, name, checksum) SELECT ?1, ?2, ?3, ?4"
        " WHERE EXISTS (SELECT 1 FROM objects WHERE kind = ?1 AND namespace = ?2 AND name = ?3)",
        (kind, namespace, name, checksum(kind, namespace, name)),
    )
