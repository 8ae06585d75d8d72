-- Objects, the log of changes, leases and the audit log. Every row carries a checksum over all that it says.
CREATE TABLE objects (
  kind TEXT NOT NULL,
  namespace TEXT NOT NULL,
  name TEXT NOT NULL,
  uid TEXT NOT NULL UNIQUE,
  owner TEXT NOT NULL,
  version INTEGER NOT NULL,
  data BLOB NOT NULL,
  checksum BLOB NOT NULL,
  PRIMARY KEY (kind, namespace, name)
) WITHOUT ROWID;
CREATE INDEX objects_by_owner ON objects (owner) WHERE owner != '';

-- `before` is the object's state until this change, so that a list can be shown as it was.
CREATE TABLE changes (
  version INTEGER PRIMARY KEY AUTOINCREMENT,
  type TEXT NOT NULL,
  kind TEXT NOT NULL,
  namespace TEXT NOT NULL,
  name TEXT NOT NULL,
  data BLOB NOT NULL,
  before BLOB,
  checksum BLOB NOT NULL
);
CREATE INDEX changes_by_name ON changes (kind, namespace, name, version);

CREATE TABLE leases (
  name TEXT PRIMARY KEY,
  holder TEXT NOT NULL,
  fence INTEGER NOT NULL,
  expires_at REAL NOT NULL,
  checksum BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE audit (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  data BLOB NOT NULL,
  checksum BLOB NOT NULL
);
