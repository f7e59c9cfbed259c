-- Device store, version 7: delivery past the own node (docs/protocol/p2p.md), and by which path what came.

-- The key of this device's swarm, and the number of the newest endpoint record that it signed.
CREATE TABLE swarm (
  id   INTEGER PRIMARY KEY CHECK (id = 1),
  seed BLOB NOT NULL CHECK (length(seed) = 32),
  seq  INTEGER NOT NULL
) STRICT;
-- Signed endpoint records of other devices, checked when they came. Location data.
CREATE TABLE endpoint (
  rid        BLOB PRIMARY KEY CHECK (length(rid) = 32),
  record     BLOB NOT NULL CHECK (length(record) <= 2048),
  signature  BLOB NOT NULL CHECK (length(signature) = 64),
  seq        INTEGER NOT NULL,
  expires_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX endpoint_expires ON endpoint (expires_ms);
-- The own record that the members of a conversation have, and when it was sealed for them; 0: none.
ALTER TABLE conversation ADD COLUMN told_endpoint INTEGER NOT NULL DEFAULT 0;
ALTER TABLE conversation ADD COLUMN told_endpoint_ms INTEGER NOT NULL DEFAULT 0;

-- By which path a copy left: node, guest, direct or relay; null while it has not, or from before.
ALTER TABLE outbox ADD COLUMN via TEXT;
CREATE INDEX outbox_undelivered ON outbox (rid, id) WHERE state IN ('SEALED', 'ACCEPTED', 'RELAYED');
-- By which path a message of somebody else came; null: from the own node.
ALTER TABLE message ADD COLUMN via TEXT;
ALTER TABLE parked ADD COLUMN via TEXT;
