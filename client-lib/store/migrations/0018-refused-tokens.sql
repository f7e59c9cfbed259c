-- Device store, version 18: delivery tokens that a node took for none (docs/protocol/delivery.md, "Delivery tokens").

-- 1: a copy that went with it was refused as a stranger's.
ALTER TABLE device_token ADD COLUMN refused INTEGER NOT NULL DEFAULT 0;
-- The token that the node has the copy with, as far as that is known. Of older rows nobody knows which it was.
ALTER TABLE outbox ADD COLUMN sent_token BLOB;
ALTER TABLE outbox DROP COLUMN with_token;
