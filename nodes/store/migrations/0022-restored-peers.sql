-- Since when a peer is known to have lost rows that it had confirmed (0: it did not), and up to which device of this
-- node its senders have been told of that; NULL: all of them (docs: protocol/delivery, "A peer that was restored").
ALTER TABLE peer ADD COLUMN lost_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE peer ADD COLUMN lost_cursor INTEGER;
CREATE INDEX peer_lost ON peer (id) WHERE lost_cursor IS NOT NULL;
