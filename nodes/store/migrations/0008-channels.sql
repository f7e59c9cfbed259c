-- Channels: logs of kind 2, one for all subscriber devices of this node. SQLite cannot change a CHECK,
-- so the table of logs is made anew; nothing refers to it by a foreign key, and ids stay.

CREATE TABLE log_of_any_kind (
  id INTEGER PRIMARY KEY,
  -- 1: inbox, key = device key, acked = its owner's cursor.
  -- 2: channel, key = cid, acked = last seq that no subscriber needs any more.
  kind INTEGER NOT NULL CHECK (kind IN (1, 2)),
  key BLOB NOT NULL CHECK (length(key) = 32),
  head INTEGER NOT NULL DEFAULT 0,
  acked INTEGER NOT NULL DEFAULT 0 CHECK (acked <= head),
  row_count INTEGER NOT NULL DEFAULT 0 CHECK (row_count >= 0),
  byte_count INTEGER NOT NULL DEFAULT 0 CHECK (byte_count >= 0),
  UNIQUE (kind, key)
) STRICT;
INSERT INTO log_of_any_kind SELECT id, kind, key, head, acked, row_count, byte_count FROM log;
DROP TABLE log;
ALTER TABLE log_of_any_kind RENAME TO log;

-- hubs: ascending domains with a space between them. trim_due: rows that nobody needs may lie in the
-- log. empty_since_ms: when the last subscriber left; NULL while there is one.
CREATE TABLE channel (
  log INTEGER PRIMARY KEY,
  hubs TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  -- Whose update made it; the own domain for a device of this node.
  made_by TEXT NOT NULL,
  trim_due INTEGER NOT NULL DEFAULT 0 CHECK (trim_due IN (0, 1)),
  empty_since_ms INTEGER
) STRICT;
CREATE INDEX channel_made_by ON channel (made_by);
CREATE INDEX channel_trim ON channel (log) WHERE trim_due = 1;
CREATE INDEX channel_empty ON channel (empty_since_ms) WHERE empty_since_ms IS NOT NULL;

-- Public halves of the write keys of the newest epochs. dies_ms: end of a key that somebody who left
-- may hold.
CREATE TABLE channel_key (
  log INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  write_pub BLOB NOT NULL CHECK (length(write_pub) = 32),
  dies_ms INTEGER,
  PRIMARY KEY (log, epoch)
) STRICT, WITHOUT ROWID;

-- A subscriber reads rows behind `joined` only. is_live: its lease holds, and rows wait for it.
CREATE TABLE channel_cursor (
  log INTEGER NOT NULL,
  device INTEGER NOT NULL REFERENCES device (id),
  joined INTEGER NOT NULL,
  acked INTEGER NOT NULL CHECK (acked >= joined),
  lease_until_ms INTEGER NOT NULL,
  is_live INTEGER NOT NULL CHECK (is_live IN (0, 1)),
  PRIMARY KEY (log, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX channel_cursor_device ON channel_cursor (device);
CREATE INDEX channel_cursor_live ON channel_cursor (log, acked) WHERE is_live = 1;
CREATE INDEX channel_cursor_lease ON channel_cursor (lease_until_ms) WHERE is_live = 1;

-- Rows for a channel have its cid in `rids` and here the rest of the header: epoch (8 bytes, big
-- endian), then the signature (64 bytes, or none). NULL: a row for devices.
ALTER TABLE outbox ADD COLUMN channel BLOB;
ALTER TABLE dead_letter ADD COLUMN channel BLOB;
