-- Version 4: what an account's owner can get back with the password alone, sealed by the client. It
-- goes with the account.
CREATE TABLE recovery (
  account INTEGER PRIMARY KEY REFERENCES account (id) ON DELETE CASCADE,
  bundle BLOB NOT NULL
) STRICT;
