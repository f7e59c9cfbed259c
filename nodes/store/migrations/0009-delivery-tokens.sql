-- Delivery tokens: by which senders get past the quota of strangers at an inbox.

-- hashes: 32 bytes each, the set in force. No row: the inbox's owner never set any, and the quota of
-- strangers does not hold for it.
CREATE TABLE token_set (
  log INTEGER PRIMARY KEY,
  hashes BLOB NOT NULL CHECK (length(hashes) % 32 = 0)
) STRICT;

-- 1: came without a token that was valid then.
ALTER TABLE entry ADD COLUMN stranger INTEGER NOT NULL DEFAULT 0 CHECK (stranger IN (0, 1));
CREATE INDEX entry_stranger ON entry (log) WHERE stranger = 1;

-- Tokens to go with the row: 16 bytes for each of `rids`, zeros for none; NULL: none at all.
ALTER TABLE outbox ADD COLUMN tokens BLOB;
-- NULL or 16 bytes.
ALTER TABLE dead_letter ADD COLUMN token BLOB;
