-- Device store, version 10: delivery tokens that are not passed on (docs/protocol/delivery.md, "Delivery tokens").

-- 0: its device says itself who gets it.
ALTER TABLE device_token ADD COLUMN may_pass INTEGER NOT NULL DEFAULT 1;
