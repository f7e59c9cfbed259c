-- Whether the peer lost something since its senders were last begun to be told, and up to when tellings are counted, an
-- hour for each: a few may run ahead (docs: protocol/delivery, "A peer that was restored"). `lost_ms` is the last loss.
ALTER TABLE peer ADD COLUMN is_loss_untold INTEGER NOT NULL DEFAULT 0 CHECK (is_loss_untold IN (0, 1));
ALTER TABLE peer ADD COLUMN loss_told_next_ms INTEGER NOT NULL DEFAULT 0;
CREATE INDEX peer_loss_untold ON peer (id) WHERE is_loss_untold = 1;
