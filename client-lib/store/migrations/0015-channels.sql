-- Device store, version 15: groups whose messages go to a channel (docs/protocol/channels.md).

-- Channels that this device reads. left_ms: the group has another one, or none, since then; what was posted
-- before is still read.
CREATE TABLE channel (
  cid      BLOB PRIMARY KEY CHECK (length(cid) = 32),
  group_id BLOB NOT NULL,
  since_ms INTEGER NOT NULL,
  left_ms  INTEGER
) STRICT, WITHOUT ROWID;

-- A row for a channel instead of a device: `rid` is its id then, and this an encoded ChannelPost.
ALTER TABLE outbox ADD COLUMN post BLOB;

-- Who the members were, by epochs in which this device posted: nobody else may ask for those messages.
CREATE TABLE channel_roster (
  group_id BLOB NOT NULL,
  epoch    INTEGER NOT NULL,
  rids     BLOB NOT NULL,                       -- device keys of 32 bytes, without the own one
  made_ms  INTEGER NOT NULL,
  PRIMARY KEY (group_id, epoch)
) STRICT, WITHOUT ROWID;
