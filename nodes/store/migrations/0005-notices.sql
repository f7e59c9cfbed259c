-- Who is told when a message does not arrive: `sender` is the log of the sending device; NULL when
-- there is none to tell. It never leaves the node, goes with the device, and ends with the row.

ALTER TABLE entry ADD COLUMN sender INTEGER;
CREATE INDEX entry_sender ON entry (sender) WHERE sender IS NOT NULL;
CREATE INDEX entry_notice ON entry (log) WHERE kind = 4;

ALTER TABLE outbox ADD COLUMN sender INTEGER;
CREATE INDEX outbox_sender ON outbox (peer, sender, mid) WHERE sender IS NOT NULL;

-- expires_ms: end of the message's own time to live; before this version it was at most 30 days.
ALTER TABLE dead_letter ADD COLUMN sender INTEGER;
ALTER TABLE dead_letter ADD COLUMN expires_ms INTEGER NOT NULL DEFAULT 0;
UPDATE dead_letter SET expires_ms = created_ms + 30 * 24 * 3600 * 1000;
CREATE INDEX dead_letter_sender ON dead_letter (peer, sender, mid) WHERE sender IS NOT NULL;

-- Dead letters are part of what a peer may hold, but give way to rows that can still arrive.
ALTER TABLE peer ADD COLUMN dead_rows INTEGER NOT NULL DEFAULT 0 CHECK (dead_rows >= 0);
ALTER TABLE peer ADD COLUMN dead_bytes INTEGER NOT NULL DEFAULT 0 CHECK (dead_bytes >= 0);
UPDATE peer SET
  dead_rows = (SELECT count(*) FROM dead_letter WHERE dead_letter.peer = peer.id),
  dead_bytes = (SELECT coalesce(sum(size), 0) FROM dead_letter WHERE dead_letter.peer = peer.id);

-- Devices that know of a peer's outage, until that ends; up to the log delay_cursor all do that had
-- sent something when it began to count.
ALTER TABLE peer ADD COLUMN delay_cursor INTEGER NOT NULL DEFAULT 0;
CREATE TABLE delay_told (
  peer INTEGER NOT NULL,
  sender INTEGER NOT NULL,
  PRIMARY KEY (peer, sender)
) STRICT, WITHOUT ROWID;
