-- Device store, version 19: ids of envelope keys that went with their epochs, so that what comes under one waits for nothing.
CREATE TABLE passed_key (
  id     INTEGER PRIMARY KEY AUTOINCREMENT,
  key_id BLOB NOT NULL UNIQUE CHECK (length(key_id) = 8)
) STRICT;
