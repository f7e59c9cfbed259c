-- Version 2: the node's key transparency log, and what it keeps of the logs of its peers
-- (docs/decisions/0006-key-log-reads-in-the-node-thread.md). Entries, heads and tiles are only
-- added; labels can be erased. Tables with a rowid are written at their right edge.

-- Accounts and devices ---------------------------------------------------------------------------

-- The other two signatures of a signed manifest; empty when it has none.
ALTER TABLE account ADD COLUMN ak_prev_signature BLOB NOT NULL DEFAULT x'';
ALTER TABLE account ADD COLUMN manifest_approval BLOB NOT NULL DEFAULT x'';

-- When the device became one of the account's; NULL: before version 2.
ALTER TABLE device ADD COLUMN added_ms INTEGER;

-- The log ----------------------------------------------------------------------------------------

-- superseded: ids of prefix tiles that the newest tree no longer reaches, ascending, as differences
-- in LEB128; for a later pruning.
CREATE TABLE kt_entry (
  position INTEGER PRIMARY KEY CHECK (position >= 0),
  timestamp_ms INTEGER NOT NULL,
  prefix_root BLOB NOT NULL CHECK (length(prefix_root) = 32),
  root_tile INTEGER NOT NULL,
  superseded BLOB NOT NULL
) STRICT;

-- One signed head for each size, for ever: a second one would be a fork.
CREATE TABLE kt_head (
  size INTEGER PRIMARY KEY CHECK (size > 0),
  root BLOB NOT NULL CHECK (length(root) = 32),
  signature BLOB NOT NULL,
  rfc6962_root BLOB NOT NULL CHECK (length(rfc6962_root) = 32),
  note_signature BLOB NOT NULL
) STRICT;
CREATE TRIGGER kt_head_stays BEFORE UPDATE ON kt_head
  BEGIN SELECT RAISE(ABORT, 'a head is never replaced'); END;
CREATE TRIGGER kt_head_is_kept BEFORE DELETE ON kt_head
  BEGIN SELECT RAISE(ABORT, 'a head is never removed'); END;
CREATE TRIGGER kt_head_is_new BEFORE INSERT ON kt_head
  WHEN EXISTS (SELECT 1 FROM kt_head WHERE size >= NEW.size)
  BEGIN SELECT RAISE(ABORT, 'a head is never replaced'); END;

-- Tiles of the prefix tree.
CREATE TABLE kt_tile (
  id INTEGER PRIMARY KEY,
  bytes BLOB NOT NULL
) STRICT;

-- Full tiles of both log trees; tree: 1 KEYTRANS, 2 RFC 6962.
CREATE TABLE kt_ltile (
  id INTEGER PRIMARY KEY,
  tree INTEGER NOT NULL CHECK (tree IN (1, 2)),
  level INTEGER NOT NULL,
  n INTEGER NOT NULL,
  bytes BLOB NOT NULL,
  UNIQUE (tree, level, n)
) STRICT;

-- positions: the entry of each version, as differences in LEB128.
CREATE TABLE kt_label (
  id INTEGER PRIMARY KEY,
  label BLOB NOT NULL UNIQUE,
  positions BLOB NOT NULL
) STRICT;

CREATE TABLE kt_version (
  id INTEGER PRIMARY KEY,
  label INTEGER NOT NULL,
  version INTEGER NOT NULL,
  commitment BLOB NOT NULL CHECK (length(commitment) = 32),
  opening BLOB NOT NULL,
  value BLOB NOT NULL,
  UNIQUE (label, version)
) STRICT;

CREATE TABLE kt_vrf (
  label INTEGER NOT NULL,
  version INTEGER NOT NULL,
  output BLOB NOT NULL CHECK (length(output) = 32),
  proof BLOB NOT NULL,
  PRIMARY KEY (label, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE kt_cosig (
  id INTEGER PRIMARY KEY,
  size INTEGER NOT NULL,
  cosigner TEXT NOT NULL,
  key_id INTEGER NOT NULL,
  signature BLOB NOT NULL,
  UNIQUE (size, cosigner, key_id)
) STRICT;

-- Labels of closed accounts that are still there; position: the closing entry.
CREATE TABLE kt_closing (
  label BLOB PRIMARY KEY,
  position INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Logs of peers ----------------------------------------------------------------------------------

-- size and what belongs to it: NULL while nothing was replayed. status: NULL while never set.
CREATE TABLE kt_followed (
  origin TEXT PRIMARY KEY,
  status TEXT,
  size INTEGER,
  state BLOB,
  rfc6962_root BLOB,
  checkpoint BLOB,
  CHECK ((size IS NULL) = (state IS NULL) AND (size IS NULL) = (rfc6962_root IS NULL)
    AND (size IS NULL) = (checkpoint IS NULL))
) STRICT;

CREATE TABLE kt_peer_head (
  origin TEXT NOT NULL,
  size INTEGER NOT NULL,
  root BLOB NOT NULL CHECK (length(root) = 32),
  signature BLOB NOT NULL,
  PRIMARY KEY (origin, size)
) STRICT, WITHOUT ROWID;

CREATE TABLE kt_evidence (
  id INTEGER PRIMARY KEY,
  hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
  origin TEXT NOT NULL,
  kind TEXT NOT NULL,
  bytes BLOB NOT NULL,
  found_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX kt_evidence_origin ON kt_evidence (origin);
