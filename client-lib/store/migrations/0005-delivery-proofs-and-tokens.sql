-- Device store, version 5: what a node signed for the rows that it took, and delivery tokens.

-- Of an ACCEPTED row: the node's signature that it is stored, and when, by the node's clock.
ALTER TABLE outbox ADD COLUMN proof BLOB CHECK (length(proof) = 64);
ALTER TABLE outbox ADD COLUMN received_ms INTEGER;

-- Own tokens, newest last. told_to_node: 1 when the own node had the set that this one is in.
CREATE TABLE own_token (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  token        BLOB NOT NULL CHECK (length(token) = 16),
  made_ms      INTEGER NOT NULL,
  told_to_node INTEGER NOT NULL
) STRICT;
-- Tokens of other devices. is_own: 1 when the device itself handed it out, 0: an inviter passed it on.
CREATE TABLE device_token (
  rid    BLOB PRIMARY KEY CHECK (length(rid) = 32),
  token  BLOB NOT NULL CHECK (length(token) = 16),
  is_own INTEGER NOT NULL,
  at_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- Own token (its id) that the members of a conversation have; 0: none yet.
ALTER TABLE conversation ADD COLUMN told_token INTEGER NOT NULL DEFAULT 0;
-- People whose messages are not wanted: no new token goes where they are members.
CREATE TABLE blocked_user (
  user_id TEXT PRIMARY KEY,
  at_ms   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
