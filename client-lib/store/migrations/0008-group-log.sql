-- Device store, version 8: conversations go through a group log (docs/protocol/group-log.md).

-- Groups from before have no hub, and nobody can change them any more: what was said stays, their keys go.
DELETE FROM mls_cold;
DELETE FROM mls_hot;
DELETE FROM mls_past;
DELETE FROM envelope_key;

ALTER TABLE conversation DROP COLUMN is_committer;
-- Why nothing can be sent here any more; null: this device is a member. BEHIND: the others went on behind
-- an entry that this device cannot apply.
ALTER TABLE conversation ADD COLUMN ended TEXT
  CHECK (ended IN ('REMOVED', 'LEFT', 'BEHIND', 'OLD'));
UPDATE conversation SET ended = 'OLD';

-- Entries of the group log, of the kept epochs: the newest is the one that the group's state is of.
CREATE TABLE group_head (
  group_id BLOB NOT NULL CHECK (length(group_id) = 32),
  epoch    INTEGER NOT NULL,
  hash     BLOB NOT NULL CHECK (length(hash) = 32),
  control  BLOB NOT NULL,                       -- GroupControl; without commit for the one joined at
  PRIMARY KEY (group_id, epoch)
) STRICT, WITHOUT ROWID;

-- What this device wants changed in a group, in order; DONE and the like are kept for a while.
CREATE TABLE group_intent (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  group_id   BLOB NOT NULL,
  kind       TEXT NOT NULL,
  body       TEXT NOT NULL,                     -- JSON; what it means, the kind says
  state      TEXT NOT NULL CHECK (state IN ('OPEN', 'DONE', 'SUPERSEDED', 'REFUSED')),
  reason     TEXT,                              -- of REFUSED
  commits    INTEGER NOT NULL,                  -- accepted for it so far
  lost       INTEGER NOT NULL,                  -- epochs that another commit won since the last one
  due_ms     INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  ended_ms   INTEGER
) STRICT;
CREATE INDEX group_intent_open ON group_intent (group_id, id) WHERE state = 'OPEN';
CREATE INDEX group_intent_ended ON group_intent (ended_ms) WHERE ended_ms IS NOT NULL;

-- Own commits that may have been sent, with the group after them, until their epoch is over. A refused one
-- is not sent again, and is known if it is accepted all the same.
CREATE TABLE group_pending (
  commit_hash BLOB PRIMARY KEY CHECK (length(commit_hash) = 32),
  group_id    BLOB NOT NULL,
  intent_id   INTEGER NOT NULL REFERENCES group_intent (id),
  parent      BLOB NOT NULL CHECK (length(parent) = 32),
  request     BLOB NOT NULL,                    -- SubmitCommitRequest: always these bytes
  is_last     INTEGER NOT NULL,                 -- of its intent
  is_refused  INTEGER NOT NULL,
  cold        BLOB NOT NULL,
  hot         BLOB NOT NULL,
  past        BLOB NOT NULL,                    -- of the parent's epoch
  welcome     BLOB NOT NULL                     -- MLS message, to be sent again; empty: nobody joins
) STRICT, WITHOUT ROWID;
CREATE INDEX group_pending_of ON group_pending (group_id);

-- When this device gives itself new keys in a group, and what it had sent there at the last time.
CREATE TABLE group_rekey (
  group_id   BLOB PRIMARY KEY,
  due_ms     INTEGER NOT NULL,
  sent_count INTEGER NOT NULL,
  is_first   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Two certificates that contradict each other: anybody can check them.
CREATE TABLE group_fork (
  group_id BLOB NOT NULL,
  one      BLOB NOT NULL,                       -- CertifiedEntry
  other    BLOB NOT NULL,
  hubs     TEXT NOT NULL,                       -- domains that signed both
  at_ms    INTEGER NOT NULL,
  PRIMARY KEY (group_id, one, other)
) STRICT, WITHOUT ROWID;
