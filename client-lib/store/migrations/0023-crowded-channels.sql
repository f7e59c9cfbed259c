-- Device store, version 23: channels that the node had no room to show this device (docs/protocol/channels.md, "In
-- conversations"). Members were asked for what was said there, and are once more when that ends.

ALTER TABLE channel ADD COLUMN crowded INTEGER NOT NULL DEFAULT 0 CHECK (crowded IN (0, 1));
