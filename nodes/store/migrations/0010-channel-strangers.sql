-- 1: subscribed by a hub that had no valid delivery token of the device, which has not read the
-- channel since.
ALTER TABLE channel_cursor ADD COLUMN is_stranger INTEGER NOT NULL DEFAULT 0
  CHECK (is_stranger IN (0, 1));
CREATE INDEX channel_cursor_stranger ON channel_cursor (device) WHERE is_stranger = 1;
