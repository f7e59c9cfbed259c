-- The group logs that this node keeps as a hub: entries in the order of their acceptance, each with
-- its certificate and, but for the first, its commit.

CREATE TABLE hub_group (
  id INTEGER PRIMARY KEY,
  group_id BLOB NOT NULL UNIQUE CHECK (length(group_id) = 32),
  -- Ascending domains with a space between them.
  hubs TEXT NOT NULL,
  -- Of this node; NULL once it has left.
  creator INTEGER REFERENCES device (id) ON DELETE SET NULL
) STRICT;
CREATE INDEX hub_group_creator ON hub_group (creator) WHERE creator IS NOT NULL;

-- control: payload of the rows that carry the entry, an encoded GroupControl with certificate and
-- commit; shared with those rows.
CREATE TABLE hub_entry (
  id INTEGER PRIMARY KEY,
  hub_group INTEGER NOT NULL,
  position INTEGER NOT NULL,
  hash BLOB NOT NULL CHECK (length(hash) = 32),
  parent BLOB NOT NULL,
  epoch INTEGER NOT NULL,
  commit_hash BLOB,
  next_commit_pub BLOB NOT NULL CHECK (length(next_commit_pub) = 32),
  join_commit_pub BLOB NOT NULL CHECK (length(join_commit_pub) = 32),
  control INTEGER NOT NULL,
  accepted_ms INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX hub_entry_position ON hub_entry (hub_group, position);
CREATE UNIQUE INDEX hub_entry_hash ON hub_entry (hub_group, hash);
CREATE INDEX hub_entry_parent ON hub_entry (hub_group, parent);
CREATE UNIQUE INDEX hub_entry_commit ON hub_entry (hub_group, commit_hash)
  WHERE commit_hash IS NOT NULL;
CREATE INDEX hub_entry_accepted ON hub_entry (accepted_ms);

-- Sealed GroupInfo of the newest accepted commit that brought one.
CREATE TABLE hub_group_info (
  hub_group INTEGER PRIMARY KEY,
  entry BLOB NOT NULL CHECK (length(entry) = 32),
  bytes BLOB NOT NULL
) STRICT;
