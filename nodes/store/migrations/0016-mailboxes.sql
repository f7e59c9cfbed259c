-- Mailboxes: logs of kind 3, for devices of peers' users (docs/protocol/p2p.md, "Mailboxes"). SQLite cannot
-- change a CHECK, so the table of logs is made anew; nothing refers to it by a foreign key, and ids stay.

CREATE TABLE log_of_any_kind (
  id INTEGER PRIMARY KEY,
  -- 1: inbox, key = device key, acked = its owner's cursor.
  -- 2: channel, key = cid, acked = last seq that no subscriber needs any more.
  -- 3: mailbox, key = device key of another node's device, acked = that device's cursor.
  kind INTEGER NOT NULL CHECK (kind IN (1, 2, 3)),
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

-- nonce: made with the mailbox; one that is made again for the same device counts its rows from 1 anew.
CREATE TABLE mailbox (
  log INTEGER PRIMARY KEY,
  nonce BLOB NOT NULL CHECK (length(nonce) = 8),
  user_id TEXT NOT NULL,
  domain TEXT NOT NULL,
  expires_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX mailbox_user ON mailbox (user_id);
CREATE INDEX mailbox_domain ON mailbox (domain);
CREATE INDEX mailbox_expires ON mailbox (expires_ms);
