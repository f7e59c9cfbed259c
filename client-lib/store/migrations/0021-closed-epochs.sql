-- Device store, version 21: epochs of a group that this device was not in and gets no keys of (docs/protocol/delivery.md,
-- "Rows that nothing opens any more"), and join keys that it lacks (docs/protocol/group-log.md, "Coming back").

-- What of a group's log was passed by when this device came in: behind `after` (empty: from its beginning) up to `entry`.
-- It goes when it was read.
CREATE TABLE log_span (
  group_id BLOB PRIMARY KEY,
  after    BLOB NOT NULL,
  entry    BLOB NOT NULL CHECK (length(entry) = 32),
  at_ms    INTEGER NOT NULL
) STRICT;

-- Ids of the envelope keys of such epochs.
CREATE TABLE closed_key (
  id     INTEGER PRIMARY KEY AUTOINCREMENT,
  key_id BLOB NOT NULL UNIQUE CHECK (length(key_id) = 8)
) STRICT;

-- Id of the join key that opens what a group's hub keeps, where this device has another one; told by members.
CREATE TABLE lacked_join_key (
  group_id BLOB PRIMARY KEY,
  key_id   BLOB NOT NULL CHECK (length(key_id) = 8)
) STRICT;
