-- Device store, version 9: messages whose text goes after a time (docs/protocol/groups.md, "The timer").

-- As its sender said; 0: the text stays.
ALTER TABLE message ADD COLUMN expiry_seconds INTEGER NOT NULL DEFAULT 0;
-- When the text goes; null: it stays, was not shown yet, or is gone.
ALTER TABLE message ADD COLUMN expires_ms INTEGER;
-- When it went: the row stays, so that the message is known when it comes again.
ALTER TABLE message ADD COLUMN gone_ms INTEGER;
CREATE INDEX message_expires ON message (expires_ms) WHERE expires_ms IS NOT NULL;
