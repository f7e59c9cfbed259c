-- Device store, version 14: commits that this device cannot judge alone, or that others cannot
-- (docs/protocol/group-log.md, "What cannot be judged alone").

-- An entry whose commit is judged by those who are to stay in the group, and not by its committer.
CREATE TABLE group_doubt (
  group_id BLOB NOT NULL CHECK (length(group_id) = 32),
  hash     BLOB NOT NULL CHECK (length(hash) = 32),   -- of the entry
  epoch    INTEGER NOT NULL,
  -- APPLIED: here; VOID: invalid for everybody by what everybody sees; PATH: its secrets do not open here;
  -- KEYS: no log vouches for who joins; OWN: it says that it is of this device, which does not know it.
  cause    TEXT NOT NULL CHECK (cause IN ('APPLIED', 'VOID', 'PATH', 'KEYS', 'OWN')),
  author   TEXT NOT NULL,                             -- user id; empty: not known
  voters   TEXT NOT NULL,                             -- user ids, with a space between; empty: not known
  seen_ms  INTEGER NOT NULL,
  vote_ms  INTEGER,                                   -- when this device gives its vote; none: it has
  ask_ms   INTEGER,                                   -- when it asks next; none: it is decided, or nobody asked here
  round    INTEGER NOT NULL,                          -- so often it was asked
  PRIMARY KEY (group_id, hash)
) STRICT, WITHOUT ROWID;

-- What devices said of such a commit; each says one thing, and who says both is counted for both.
CREATE TABLE group_vote (
  group_id  BLOB NOT NULL,
  hash      BLOB NOT NULL,
  device    BLOB NOT NULL CHECK (length(device) = 32),
  applied   INTEGER NOT NULL,
  user_id   TEXT NOT NULL,
  signature BLOB NOT NULL CHECK (length(signature) = 64),
  PRIMARY KEY (group_id, hash, device, applied),
  FOREIGN KEY (group_id, hash) REFERENCES group_doubt ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
