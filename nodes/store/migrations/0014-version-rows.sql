-- Version 14: a label names the rows of its versions, so that they need no index of their own. Each
-- new version wrote a page somewhere in the middle of it, and each reading went through it.

-- version_rows: the id in kt_version of each version, 8 bytes each, most significant first.
ALTER TABLE kt_label ADD COLUMN version_rows BLOB NOT NULL DEFAULT x'';
UPDATE kt_label SET version_rows = coalesce(
  (SELECT unhex(group_concat(printf('%016x', id), '' ORDER BY version))
     FROM kt_version WHERE kt_version.label = kt_label.id),
  x'');

CREATE TABLE kt_version_by_row (
  id INTEGER PRIMARY KEY,
  label INTEGER NOT NULL,
  version INTEGER NOT NULL,
  commitment BLOB NOT NULL CHECK (length(commitment) = 32),
  opening BLOB NOT NULL,
  value BLOB NOT NULL
) STRICT;
INSERT INTO kt_version_by_row (id, label, version, commitment, opening, value)
  SELECT id, label, version, commitment, opening, value FROM kt_version;
DROP TABLE kt_version;
ALTER TABLE kt_version_by_row RENAME TO kt_version;
