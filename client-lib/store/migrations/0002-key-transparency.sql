-- Device store, version 2: what this device knows of key-transparency logs, and contacts whose keys
-- a log vouches for. What was believed at first use is no proof: it is looked up anew.

DROP TABLE contact;
DROP TABLE contact_refused;

-- Other people and the own account, as the log of their home shows them.
CREATE TABLE contact (
  user_id       TEXT PRIMARY KEY,
  account_key   BLOB NOT NULL CHECK (length(account_key) = 32),
  value         BLOB NOT NULL,                  -- encoded SignedManifest: the value of the version
  version       INTEGER NOT NULL,
  first_seen_ms INTEGER NOT NULL,
  verified_ms   INTEGER NOT NULL,               -- when it was shown to be the greatest version
  tree_size     INTEGER NOT NULL,               -- of the head that showed it
  source        TEXT NOT NULL CHECK (source IN ('log', 'credential')),
  compared_key  BLOB CHECK (length(compared_key) = 32)  -- account key that people compared
) STRICT, WITHOUT ROWID;

-- The log of a domain: its node's record, which names the keys. Replaced only by its own heirs.
CREATE TABLE kt_log (
  domain    TEXT PRIMARY KEY,
  record    BLOB NOT NULL,                      -- encoded SignedNodeRecord
  pinned_ms INTEGER NOT NULL,
  in_log    INTEGER NOT NULL                    -- 1: the log itself showed this record
) STRICT, WITHOUT ROWID;

-- State of a log's client: heads, labels, duties, credentials.
CREATE TABLE kt_state (
  log    TEXT NOT NULL,                         -- domain and a hash of the log's VRF key
  key    TEXT NOT NULL,
  bytes  BLOB NOT NULL,
  PRIMARY KEY (log, key)
) STRICT, WITHOUT ROWID;

-- What happened to keys, for people: kept until the application has seen it and longer.
CREATE TABLE key_event (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,
  at_ms   INTEGER NOT NULL,
  type    TEXT NOT NULL,
  subject TEXT NOT NULL,                        -- user id or domain
  reason  TEXT NOT NULL,
  UNIQUE (type, subject, reason)
) STRICT;

-- An account key that is on its way into the log; it replaces account_seed when it is there.
ALTER TABLE account ADD COLUMN next_account_seed BLOB CHECK (length(next_account_seed) = 32);
-- Number of the newest recovery bundle that this device made or saw; 0: none.
ALTER TABLE account ADD COLUMN bundle_seq INTEGER NOT NULL DEFAULT 0;
