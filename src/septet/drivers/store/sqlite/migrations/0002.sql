-- What control still has to look at: functions and revisions that were written to since it last said that nothing is
-- left to be done. `checksum` is a function of this program.
CREATE TABLE unsettled (
  kind TEXT NOT NULL,
  namespace TEXT NOT NULL,
  name TEXT NOT NULL,
  checksum BLOB NOT NULL,
  PRIMARY KEY (kind, namespace, name)
) WITHOUT ROWID;
INSERT INTO unsettled (kind, namespace, name, checksum)
 SELECT kind, namespace, name, checksum('unsettled', kind, namespace, name) FROM objects
  WHERE kind IN ('Function', 'Revision');
