-- Device store, version 11: contact cards (docs/protocol/contact-cards.md).

-- Checked when it came. `checked_ms`: when the log of the person's home was asked after it; null: not yet.
CREATE TABLE card (
  user_id     TEXT PRIMARY KEY,
  card        BLOB NOT NULL CHECK (length(card) <= 65536),
  imported_ms INTEGER NOT NULL,
  checked_ms  INTEGER
) STRICT, WITHOUT ROWID;
