-- Device store, version 1. One device of one account; every secret of it is in this file.
-- Times are milliseconds since the Unix epoch unless the name says otherwise.

CREATE TABLE account (
  id                 INTEGER PRIMARY KEY CHECK (id = 1),
  user_id            TEXT NOT NULL,
  node_address       TEXT NOT NULL,             -- qpc://host:port#pin
  account_seed       BLOB CHECK (length(account_seed) = 32),
  identity_seed      BLOB NOT NULL CHECK (length(identity_seed) = 32),
  certificate_pem    TEXT NOT NULL,
  private_key_pem    TEXT NOT NULL,
  opaque_server_key  BLOB,                      -- pinned at first use
  registered         INTEGER NOT NULL,
  session_expires_ms INTEGER NOT NULL
) STRICT;

-- X-Wing keys of this device. Kept until 31 days after not_after: a row may lie 30 days.
CREATE TABLE hybrid_key (
  key_id       BLOB PRIMARY KEY CHECK (length(key_id) = 8),
  seed         BLOB NOT NULL CHECK (length(seed) = 32),
  public_key   BLOB NOT NULL,
  not_after_ms INTEGER NOT NULL,
  published    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- KeyPackages of this device whose private part is still here.
CREATE TABLE key_package (
  ref           BLOB PRIMARY KEY,
  suite         INTEGER NOT NULL,
  public_bytes  BLOB NOT NULL,
  private_bytes BLOB NOT NULL,
  last_resort   INTEGER NOT NULL,
  not_after_ms  INTEGER NOT NULL,
  published     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- References of single-use packages that a Welcome consumed: a second one is refused.
CREATE TABLE key_package_used (
  ref     BLOB PRIMARY KEY,
  used_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Other people. `account_key` is pinned at first use and never replaced silently.
CREATE TABLE contact (
  user_id         TEXT PRIMARY KEY,
  account_key     BLOB NOT NULL CHECK (length(account_key) = 32),
  manifest        BLOB NOT NULL,
  signature       BLOB NOT NULL,
  manifest_seq    INTEGER NOT NULL,
  first_seen_ms   INTEGER NOT NULL,
  checked_ms      INTEGER NOT NULL,
  verification    TEXT NOT NULL CHECK (verification IN ('firstUse'))
) STRICT, WITHOUT ROWID;

-- A refused account key of a contact, kept as evidence.
CREATE TABLE contact_refused (
  user_id     TEXT NOT NULL,
  account_key BLOB NOT NULL,
  seen_ms     INTEGER NOT NULL,
  PRIMARY KEY (user_id, account_key)
) STRICT, WITHOUT ROWID;

-- Signed prekeys of other devices.
CREATE TABLE device_prekey (
  rid          BLOB PRIMARY KEY CHECK (length(rid) = 32),
  public_key   BLOB NOT NULL,
  not_after_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Claim ids of KeyPackage fetches under way: a retry with the same id burns no package.
CREATE TABLE key_package_claim (
  user_id  TEXT PRIMARY KEY,
  claim_id BLOB NOT NULL CHECK (length(claim_id) = 16),
  made_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE conversation (
  id            BLOB PRIMARY KEY CHECK (length(id) = 32),
  group_id      BLOB NOT NULL UNIQUE CHECK (length(group_id) = 32),
  suite         INTEGER NOT NULL,
  name          TEXT NOT NULL,
  creator       TEXT NOT NULL,
  is_committer  INTEGER NOT NULL,
  joined_ms     INTEGER NOT NULL,
  sent_count    INTEGER NOT NULL,               -- n of the last own message
  lamport       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- MLS group state, split so that a message writes about 1 KB (docs/protocol/cryptography.md).
CREATE TABLE mls_cold (
  group_id BLOB PRIMARY KEY,
  epoch    INTEGER NOT NULL,
  bytes    BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE mls_hot (
  group_id BLOB PRIMARY KEY,
  bytes    BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE mls_past (
  group_id BLOB NOT NULL,
  epoch    INTEGER NOT NULL,
  bytes    BLOB NOT NULL,
  PRIMARY KEY (group_id, epoch)
) STRICT, WITHOUT ROWID;

-- Channel envelope keys of the kept epochs, found by key id.
CREATE TABLE envelope_key (
  key_id   BLOB NOT NULL CHECK (length(key_id) = 8),
  group_id BLOB NOT NULL,
  epoch    INTEGER NOT NULL,
  key      BLOB NOT NULL CHECK (length(key) = 32),
  PRIMARY KEY (key_id, group_id, epoch)
) STRICT, WITHOUT ROWID;

-- History: what was sent and received. Deleting a text keeps its row, so that its id stays known.
CREATE TABLE message (
  id              INTEGER PRIMARY KEY AUTOINCREMENT,
  conversation_id BLOB NOT NULL,
  sender_user     TEXT NOT NULL,
  sender_device   TEXT NOT NULL,
  inner_id        BLOB NOT NULL CHECK (length(inner_id) = 16),
  n               INTEGER NOT NULL,
  lamport         INTEGER NOT NULL,
  text            TEXT NOT NULL,
  sent_ms         INTEGER NOT NULL,
  received_ms     INTEGER,                      -- null: sent by this device
  displayed_ms    INTEGER,                      -- null: not yet handed to the application
  UNIQUE (conversation_id, sender_device, inner_id)
) STRICT;
CREATE INDEX message_undisplayed ON message (id) WHERE displayed_ms IS NULL;

-- Tags and 16-byte hashes of MLS bytes that were processed or parked; kept 90 days.
CREATE TABLE seen (
  mark    BLOB PRIMARY KEY CHECK (length(mark) = 16),
  seen_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Rows that cannot be opened yet; they are acknowledged, so they live only here.
CREATE TABLE parked (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  mid         BLOB NOT NULL,
  kind        INTEGER NOT NULL,
  payload     BLOB NOT NULL,
  seq         INTEGER NOT NULL,
  received_ms INTEGER NOT NULL,
  reason      TEXT NOT NULL,
  waits_for   TEXT NOT NULL,
  parked_ms   INTEGER NOT NULL
) STRICT;

-- Rows that can never be opened: said, not dropped.
CREATE TABLE undecryptable (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,
  mid     BLOB NOT NULL,
  seq     INTEGER NOT NULL,
  reason  TEXT NOT NULL,
  bytes   INTEGER NOT NULL,
  at_ms   INTEGER NOT NULL
) STRICT;

-- Rows that the node says are gone.
CREATE TABLE gap (
  store_id BLOB NOT NULL,
  from_seq INTEGER NOT NULL,
  to_seq   INTEGER NOT NULL,
  at_ms    INTEGER NOT NULL,
  PRIMARY KEY (store_id, from_seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE cursor (
  log      BLOB PRIMARY KEY,                    -- empty: the inbox
  store_id BLOB NOT NULL CHECK (length(store_id) = 8),
  seq      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One ciphertext, however many devices it goes to.
CREATE TABLE outbox_payload (
  id    INTEGER PRIMARY KEY AUTOINCREMENT,
  mid   BLOB NOT NULL CHECK (length(mid) = 16),
  bytes BLOB NOT NULL
) STRICT;
-- SEALED -> ACCEPTED (the own node's OK) or FAILED; order per target is the order of ids.
CREATE TABLE outbox (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  payload_id  INTEGER NOT NULL REFERENCES outbox_payload (id),
  rid         BLOB NOT NULL CHECK (length(rid) = 32),
  domain      TEXT NOT NULL,
  message_id  INTEGER,                          -- null: commit or Welcome
  state       TEXT NOT NULL CHECK (state IN ('SEALED', 'ACCEPTED', 'FAILED')),
  created_ms  INTEGER NOT NULL,
  accepted_ms INTEGER,
  store_id    BLOB,                             -- the node's store that accepted it
  failure     TEXT
) STRICT;
CREATE INDEX outbox_open ON outbox (rid, id) WHERE state = 'SEALED';
CREATE INDEX outbox_message ON outbox (message_id);
CREATE INDEX outbox_payload_of ON outbox (payload_id);
