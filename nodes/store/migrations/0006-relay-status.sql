-- A sender may ask whether its message was passed on, as long as that is remembered at all. Like the
-- row's, the tombstone's sender goes with the device.

ALTER TABLE outbox_tomb ADD COLUMN sender INTEGER;
ALTER TABLE outbox_tomb ADD COLUMN mid BLOB;
CREATE INDEX outbox_tomb_sender ON outbox_tomb (peer, sender, mid) WHERE sender IS NOT NULL;
