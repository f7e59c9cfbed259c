-- Hubs of three where two forgot (docs: protocol/group-log): they have their say again with what all three have, after
-- `held_since_ms`, in which members bring back what no disk has.

-- 1: another hub that forgot counts on what this one said it has, so it takes no more from members.
ALTER TABLE hub_group ADD COLUMN gave_word INTEGER NOT NULL DEFAULT 0;
