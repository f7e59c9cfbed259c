-- Version 1 of the node's store: accounts, keys, inboxes, and both ends of the relay streams.
-- Times are Unix milliseconds by this node's clock. Tables whose rowid only grows are written at
-- their right edge; every random access goes through a narrow index.

CREATE TABLE meta (
  name TEXT PRIMARY KEY,
  value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE secret (
  name TEXT PRIMARY KEY,
  value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Accounts and devices ---------------------------------------------------------------------------

CREATE TABLE account (
  id INTEGER PRIMARY KEY,
  user_id TEXT NOT NULL UNIQUE,
  setup_id INTEGER NOT NULL,
  opaque_record BLOB NOT NULL,
  manifest BLOB NOT NULL,
  manifest_signature BLOB NOT NULL,
  manifest_seq INTEGER NOT NULL
) STRICT;

CREATE TABLE device (
  id INTEGER PRIMARY KEY,
  account INTEGER NOT NULL REFERENCES account (id),
  device_id TEXT NOT NULL,
  identity_pub BLOB NOT NULL UNIQUE CHECK (length(identity_pub) = 32),
  -- NULL: logged out.
  transport_spki BLOB UNIQUE CHECK (length(transport_spki) = 32),
  session_expires_ms INTEGER NOT NULL,
  UNIQUE (account, device_id)
) STRICT;

-- Keys of devices --------------------------------------------------------------------------------

-- gone_ms: consumed, replaced or expired then. The row stays 90 days so that its ref stays known;
-- the bytes go as soon as no claim can be repeated.
CREATE TABLE key_package (
  id INTEGER PRIMARY KEY,
  device INTEGER NOT NULL REFERENCES device (id),
  ref BLOB NOT NULL,
  suite INTEGER NOT NULL,
  bytes BLOB,
  not_before_ms INTEGER NOT NULL,
  not_after_ms INTEGER NOT NULL,
  last_resort INTEGER NOT NULL CHECK (last_resort IN (0, 1)),
  used INTEGER NOT NULL DEFAULT 0 CHECK (used IN (0, 1)),
  gone_ms INTEGER,
  UNIQUE (device, ref)
) STRICT;
CREATE INDEX key_package_available ON key_package (device, suite, last_resort, id)
  WHERE gone_ms IS NULL;
CREATE INDEX key_package_not_after ON key_package (not_after_ms) WHERE gone_ms IS NULL;
CREATE INDEX key_package_gone ON key_package (gone_ms) WHERE gone_ms IS NOT NULL;

CREATE TABLE claim (
  id INTEGER PRIMARY KEY,
  scope TEXT NOT NULL,
  requester TEXT NOT NULL,
  claim_id BLOB NOT NULL CHECK (length(claim_id) = 16),
  account INTEGER NOT NULL REFERENCES account (id),
  single_use INTEGER NOT NULL CHECK (single_use IN (0, 1)),
  created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX claim_by_id ON claim (requester, claim_id, account);
CREATE INDEX claim_by_time ON claim (requester, created_ms);
CREATE INDEX claim_by_target ON claim (scope, account, created_ms);
CREATE INDEX claim_created ON claim (created_ms);

CREATE TABLE claim_package (
  claim INTEGER NOT NULL REFERENCES claim (id) ON DELETE CASCADE,
  position INTEGER NOT NULL,
  key_package INTEGER NOT NULL REFERENCES key_package (id),
  PRIMARY KEY (claim, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX claim_package_key_package ON claim_package (key_package);

CREATE TABLE prekey (
  device INTEGER PRIMARY KEY REFERENCES device (id),
  prekey BLOB NOT NULL,
  signature BLOB NOT NULL,
  not_after_ms INTEGER NOT NULL
) STRICT;

-- Inboxes ----------------------------------------------------------------------------------------

-- kind 1: inbox, key = device key. head: newest seq ever assigned. acked: the owner's cursor.
-- The first seq still held is min(seq) of its entries, or head + 1.
CREATE TABLE log (
  id INTEGER PRIMARY KEY,
  kind INTEGER NOT NULL CHECK (kind = 1),
  key BLOB NOT NULL CHECK (length(key) = 32),
  head INTEGER NOT NULL DEFAULT 0,
  acked INTEGER NOT NULL DEFAULT 0 CHECK (acked <= head),
  row_count INTEGER NOT NULL DEFAULT 0 CHECK (row_count >= 0),
  byte_count INTEGER NOT NULL DEFAULT 0 CHECK (byte_count >= 0),
  UNIQUE (kind, key)
) STRICT;

-- Stored once, however many rows of inboxes, outboxes and dead letters point at it.
CREATE TABLE payload (
  id INTEGER PRIMARY KEY,
  refs INTEGER NOT NULL CHECK (refs > 0),
  bytes BLOB NOT NULL
) STRICT;

CREATE TABLE entry (
  id INTEGER PRIMARY KEY,
  log INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  mid BLOB NOT NULL,
  tag BLOB NOT NULL,
  kind INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 255),
  payload INTEGER NOT NULL,
  size INTEGER NOT NULL,
  received_ms INTEGER NOT NULL,
  expires_ms INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX entry_seq ON entry (log, seq);
CREATE UNIQUE INDEX entry_tag ON entry (log, tag);
CREATE INDEX entry_expires ON entry (expires_ms);

-- Tags of rows that are gone; ids grow with time, so pruning walks from the lowest.
CREATE TABLE tomb (
  id INTEGER PRIMARY KEY,
  log INTEGER NOT NULL,
  tag BLOB NOT NULL,
  received_ms INTEGER NOT NULL,
  gone_ms INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX tomb_tag ON tomb (log, tag);

-- Sending to peers -------------------------------------------------------------------------------

CREATE TABLE peer (
  id INTEGER PRIMARY KEY,
  domain TEXT NOT NULL UNIQUE,
  failures INTEGER NOT NULL DEFAULT 0,
  next_try_ms INTEGER NOT NULL DEFAULT 0,
  failing_since_ms INTEGER NOT NULL DEFAULT 0,
  row_count INTEGER NOT NULL DEFAULT 0 CHECK (row_count >= 0),
  byte_count INTEGER NOT NULL DEFAULT 0 CHECK (byte_count >= 0)
) STRICT;

-- lane: 1 control, 2 bulk. chain: at acked; zeros when it is not known, which no receiver's chain
-- equals, so that the next hello restarts the stream. tail_chain: at next_seq - 1.
CREATE TABLE peer_stream (
  peer INTEGER NOT NULL REFERENCES peer (id),
  lane INTEGER NOT NULL CHECK (lane IN (1, 2)),
  stream_id BLOB NOT NULL CHECK (length(stream_id) = 16),
  next_seq INTEGER NOT NULL,
  acked INTEGER NOT NULL CHECK (acked < next_seq),
  chain BLOB NOT NULL,
  tail_chain BLOB NOT NULL,
  PRIMARY KEY (peer, lane)
) STRICT, WITHOUT ROWID;

-- seq and chain are NULL while the row is deferred; due_ms is NULL while it is not.
-- rids: device keys, 32 bytes each, concatenated. dead_ms: the earlier of its ttl and the age limit.
CREATE TABLE outbox (
  id INTEGER PRIMARY KEY,
  peer INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  seq INTEGER,
  kind INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 255),
  mid BLOB NOT NULL,
  tag BLOB NOT NULL,
  rids BLOB NOT NULL CHECK (length(rids) % 32 = 0),
  payload INTEGER NOT NULL,
  size INTEGER NOT NULL,
  chain BLOB,
  created_ms INTEGER NOT NULL,
  expires_ms INTEGER NOT NULL,
  dead_ms INTEGER NOT NULL,
  due_ms INTEGER,
  CHECK ((seq IS NULL) = (chain IS NULL) AND (seq IS NULL) = (due_ms IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX outbox_seq ON outbox (peer, lane, seq);
CREATE UNIQUE INDEX outbox_tag ON outbox (peer, tag, rids);
CREATE INDEX outbox_dead ON outbox (dead_ms);
CREATE INDEX outbox_due ON outbox (due_ms) WHERE due_ms IS NOT NULL;

CREATE TABLE outbox_tomb (
  id INTEGER PRIMARY KEY,
  peer INTEGER NOT NULL,
  tag BLOB NOT NULL,
  rids BLOB NOT NULL,
  received_ms INTEGER NOT NULL,
  gone_ms INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX outbox_tomb_tag ON outbox_tomb (peer, tag, rids);

CREATE TABLE dead_letter (
  id INTEGER PRIMARY KEY,
  peer INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  mid BLOB NOT NULL,
  tag BLOB NOT NULL,
  rid BLOB NOT NULL,
  payload INTEGER NOT NULL,
  size INTEGER NOT NULL,
  reason TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  dead_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX dead_letter_peer ON dead_letter (peer);

-- Receiving from peers ---------------------------------------------------------------------------

CREATE TABLE peer_cursor (
  peer INTEGER NOT NULL REFERENCES peer (id),
  lane INTEGER NOT NULL CHECK (lane IN (1, 2)),
  stream_id BLOB NOT NULL CHECK (length(stream_id) = 16),
  cursor INTEGER NOT NULL,
  chain BLOB NOT NULL,
  PRIMARY KEY (peer, lane)
) STRICT, WITHOUT ROWID;

-- Verdicts of the current stream that its sender has not settled yet.
CREATE TABLE peer_reject (
  peer INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  rid BLOB NOT NULL,
  reason TEXT NOT NULL,
  temporary INTEGER NOT NULL CHECK (temporary IN (0, 1)),
  PRIMARY KEY (peer, lane, seq, rid)
) STRICT, WITHOUT ROWID;
