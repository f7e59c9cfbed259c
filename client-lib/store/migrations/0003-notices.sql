-- Device store, version 3: what the own node told of messages after it had taken them.

-- notice: why a FAILED row failed, when it was not refused at once. delayed_ms: when the node said
-- that the row waits for a peer that is away.
ALTER TABLE outbox ADD COLUMN notice TEXT CHECK (notice IN ('bounced', 'expired'));
ALTER TABLE outbox ADD COLUMN delayed_ms INTEGER;
CREATE INDEX outbox_payload_mid ON outbox_payload (mid);
