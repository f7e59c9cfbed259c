-- Device store, version 12: coming back into a group by oneself (docs/protocol/group-log.md, "Coming back").

-- What opens the state of a group that its hubs keep sealed. None: this device was not told.
CREATE TABLE group_join_key (
  group_id BLOB PRIMARY KEY CHECK (length(group_id) = 32),
  key      BLOB NOT NULL CHECK (length(key) = 32)
) STRICT, WITHOUT ROWID;

-- Groups in which this device lost its place, and its way back. DONE stays: it comes back once an hour at most.
CREATE TABLE group_resync (
  group_id BLOB PRIMARY KEY CHECK (length(group_id) = 32),
  -- BEHIND: others went on behind a commit that cannot be applied here; GAP: the hub keeps no commits that old;
  -- STALE: this store is an older copy of itself.
  cause    TEXT NOT NULL CHECK (cause IN ('BEHIND', 'GAP', 'STALE')),
  state    TEXT NOT NULL CHECK (state IN ('WANTED', 'SENT', 'DONE')),
  reason   TEXT,                                -- why the last try came to nothing
  tries    INTEGER NOT NULL,
  due_ms   INTEGER NOT NULL,                    -- not tried before
  -- Of SENT: the own external commit, always these bytes, and the group after it.
  request  BLOB,                                -- SubmitCommitRequest
  cold     BLOB,
  hot      BLOB,
  CHECK ((state = 'SENT') = (request IS NOT NULL))
) STRICT, WITHOUT ROWID;
