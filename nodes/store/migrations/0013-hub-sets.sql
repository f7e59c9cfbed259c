-- Hubs of three (docs: protocol/group-log): what a hub promised and took, and the entry that is
-- written down and not decided yet.

ALTER TABLE hub_group ADD COLUMN promised INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hub_group ADD COLUMN adopted INTEGER NOT NULL DEFAULT 0;
-- 1: it does not remember what it promised and signed (a new or an older disk), and has no say until
-- both others told.
ALTER TABLE hub_group ADD COLUMN is_learner INTEGER NOT NULL DEFAULT 0;
CREATE INDEX hub_group_learner ON hub_group (group_id) WHERE is_learner = 1;
-- The hub that brought the group here; NULL: a device of this node made it.
ALTER TABLE hub_group ADD COLUMN made_by TEXT;
CREATE INDEX hub_group_made_by ON hub_group (made_by) WHERE made_by IS NOT NULL;

CREATE TABLE hub_prepared (
  hub_group INTEGER PRIMARY KEY,
  hash BLOB NOT NULL CHECK (length(hash) = 32),
  commit_hash BLOB,
  -- Encoded SubmitCommitRequest; of entry 0 the entry alone.
  submit BLOB NOT NULL,
  -- 1: this hub signed it as a follower, and takes it back for nobody.
  is_signed INTEGER NOT NULL,
  -- Device of this node that submitted it here.
  sender BLOB
) STRICT;
