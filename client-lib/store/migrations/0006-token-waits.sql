-- Device store, version 6: copies that came back for want of a delivery token wait for one, and which
-- key of its epoch a message used.

-- with_token: 1 when the node has the copy with a token of its device, as far as that is known.
-- token_waits: how often the copy was refused for want of a token; token_wait_ms: of a SEALED one that
-- waits for it, when it is tried again without.
ALTER TABLE outbox ADD COLUMN with_token INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN token_waits INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN token_wait_ms INTEGER;
CREATE INDEX outbox_token_wait ON outbox (rid, token_wait_ms) WHERE token_wait_ms IS NOT NULL;

-- MLS generation of an own message in its epoch; null where it is not known.
ALTER TABLE outbox ADD COLUMN generation INTEGER;
CREATE INDEX outbox_generation ON outbox (group_id, rid, epoch, generation)
  WHERE generation IS NOT NULL;
ALTER TABLE ciphertext ADD COLUMN generation INTEGER;
