-- Groups whose only hub is this node, in a store that turned out to be an older copy of itself: there may be
-- commits that it accepted and does not know (docs: protocol/group-log).

-- 1: only what this hub certified before is taken, until members had time to bring that back.
ALTER TABLE hub_group ADD COLUMN is_restored INTEGER NOT NULL DEFAULT 0;
-- When a member wanted another change first; NULL: none did yet.
ALTER TABLE hub_group ADD COLUMN held_since_ms INTEGER;
CREATE INDEX hub_group_restored ON hub_group (id) WHERE is_restored = 1;
