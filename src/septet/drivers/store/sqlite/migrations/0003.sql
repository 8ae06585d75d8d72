-- What control learnt and would learn again: no objects, no versions, not watched.
CREATE TABLE memories (
  name TEXT PRIMARY KEY,
  data BLOB NOT NULL,
  checksum BLOB NOT NULL
) WITHOUT ROWID;
