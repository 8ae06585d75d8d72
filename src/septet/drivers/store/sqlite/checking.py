"""The check of everything: each row against its checksum, rows against the log of changes, the file itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apsw

from septet.drivers.store.sqlite import rows, settling
from septet.drivers.store.sqlite.writing import sequence
from septet.model.errors import Corrupt

_ROWS = {
    "objects": "SELECT kind, namespace, name, uid, owner, version, data, checksum FROM objects",
    "changes": "SELECT version, type, kind, namespace, name, data, before, checksum FROM changes",
    "leases": "SELECT name, holder, fence, expires_at, checksum FROM leases",
    "memories": "SELECT name, data, checksum FROM memories",
    "audit": "SELECT data, checksum, id FROM audit",
    "unsettled": "SELECT kind, namespace, name, checksum FROM unsettled",
}

# The newest change of a name that is kept says whether the object is there, and at which version.
_AGAINST_CHANGES = """
SELECT c.kind, c.namespace, c.name FROM changes c
 LEFT JOIN objects o ON o.kind = c.kind AND o.namespace = c.namespace AND o.name = c.name
 WHERE c.version = (SELECT max(version) FROM changes d
                    WHERE d.kind = c.kind AND d.namespace = c.namespace AND d.name = c.name)
   AND CASE c.type WHEN 'delete' THEN o.version IS NOT NULL ELSE o.version IS NOT c.version END
"""


def check_all(db: apsw.Connection) -> list[str]:
    """What is wrong, each in words; what cannot be read at all is named by its table."""
    wrong: list[str] = []
    for what, look in (
        ("the file", _file),
        ("the table objects", _objects),
        ("the table changes", _changes),
        ("the table leases", _leases),
        ("the table audit", _audit),
        ("the table unsettled", _unsettled),
        ("the table memories", _memories),
        ("objects and changes", _together),
    ):
        try:
            wrong.extend(look(db))
        except (apsw.Error, UnicodeDecodeError) as error:
            wrong.append(f"{what} cannot be read: {error}")
        except Corrupt as error:
            wrong.append(error.message)
    return wrong


def _file(db: apsw.Connection) -> Iterator[str]:
    for (text,) in db.execute("PRAGMA integrity_check").fetchall():
        if text != "ok":
            yield f"the file: {text}"


def _rows(db: apsw.Connection, table: str) -> Iterator[Any]:
    yield from db.execute(_ROWS[table])


def _objects(db: apsw.Connection) -> Iterator[str]:
    for kind, namespace, name, *rest, check in _rows(db, "objects"):
        if rows.object_checksum(kind, namespace, name, *rest) != check:
            yield f"object {kind} {namespace}/{name}"


def _changes(db: apsw.Connection) -> Iterator[str]:
    for version, *rest, check in _rows(db, "changes"):
        if rows.change_checksum(version, *rest) != check:
            yield f"change {version}"


def _leases(db: apsw.Connection) -> Iterator[str]:
    for name, holder, fence, expires_at, check in _rows(db, "leases"):
        if rows.checksum("lease", name, holder, fence, expires_at) != check:
            yield f"lease {name}"


def _audit(db: apsw.Connection) -> Iterator[str]:
    for data, check, id_ in _rows(db, "audit"):
        if rows.checksum("audit", data) != check:
            yield f"audit entry {id_}"


def _unsettled(db: apsw.Connection) -> Iterator[str]:
    for kind, namespace, name, check in _rows(db, "unsettled"):
        if settling.checksum(kind, namespace, name) != check:
            yield f"note on {kind} {namespace}/{name}"


def _memories(db: apsw.Connection) -> Iterator[str]:
    for name, data, check in _rows(db, "memories"):
        if rows.checksum("memory", name, data) != check:
            yield f"memory {name}"


def _together(db: apsw.Connection) -> Iterator[str]:
    for kind, namespace, name in db.execute(_AGAINST_CHANGES):
        yield f"object {kind} {namespace}/{name} is not what the newest change says"
    for (newest,) in db.execute("SELECT coalesce(max(version), 0) FROM changes"):
        if int(str(newest)) > sequence(db):
            yield "the sequence of versions went back"
