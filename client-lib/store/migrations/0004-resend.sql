-- Device store, version 4: what has to be known to send again what a node lost, and to ask for it
-- (docs/protocol/delivery.md, "End-to-end re-send").

-- The outbox with more states: SEALED -> ACCEPTED (the own node's OK) -> RELAYED (on the disk of the
-- recipient's node) -> DELIVERED (its device said so) -> READ; FAILED where it went wrong.
CREATE TABLE outbox_4 (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  payload_id  INTEGER REFERENCES outbox_payload (id),  -- null: delivered, the bytes are gone
  rid         BLOB NOT NULL CHECK (length(rid) = 32),
  domain      TEXT NOT NULL,
  user_id     TEXT,                             -- whose device; null: from before version 4
  kind        TEXT NOT NULL CHECK (kind IN ('MESSAGE', 'HANDSHAKE', 'RECEIPT', 'RESEND')),
  message_id  INTEGER,                          -- null: not a message of the history
  group_id    BLOB,
  epoch       INTEGER,                          -- a handshake's: the one that it leads to
  state       TEXT NOT NULL
              CHECK (state IN ('SEALED', 'ACCEPTED', 'RELAYED', 'DELIVERED', 'READ', 'FAILED')),
  created_ms  INTEGER NOT NULL,
  accepted_ms INTEGER,
  store_id    BLOB,                             -- the node's store that accepted it
  failure     TEXT,
  notice      TEXT CHECK (notice IN ('bounced', 'expired')),
  delayed_ms  INTEGER,
  resends     INTEGER NOT NULL DEFAULT 0,       -- times it was sent again without being asked
  resend_ms   INTEGER                           -- when it is sent again; null: never
) STRICT;
INSERT INTO outbox_4 (id, payload_id, rid, domain, kind, message_id, state, created_ms, accepted_ms,
                      store_id, failure, notice, delayed_ms)
  SELECT id, payload_id, rid, domain, CASE WHEN message_id IS NULL THEN 'HANDSHAKE' ELSE 'MESSAGE' END,
         message_id, state, created_ms, accepted_ms, store_id, failure, notice, delayed_ms
  FROM outbox;
DROP TABLE outbox;
ALTER TABLE outbox_4 RENAME TO outbox;
CREATE INDEX outbox_open ON outbox (rid, id) WHERE state = 'SEALED';
CREATE INDEX outbox_message ON outbox (message_id);
CREATE INDEX outbox_payload_of ON outbox (payload_id);
CREATE INDEX outbox_resend ON outbox (resend_ms) WHERE resend_ms IS NOT NULL;
CREATE INDEX outbox_handshake ON outbox (group_id, rid) WHERE kind = 'HANDSHAKE';

-- Of an own message: when a device of each other member had it, and when one of each had shown it.
ALTER TABLE message ADD COLUMN delivered_ms INTEGER;
ALTER TABLE message ADD COLUMN read_ms INTEGER;
-- Of a received message: when its last receipt was sealed.
ALTER TABLE message ADD COLUMN receipted_ms INTEGER;

-- Receipts to be sent.
CREATE TABLE receipt_due (
  message_id      INTEGER NOT NULL,
  kind            TEXT NOT NULL CHECK (kind IN ('DELIVERED', 'READ')),
  conversation_id BLOB NOT NULL,
  PRIMARY KEY (message_id, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX receipt_due_of ON receipt_due (conversation_id);

-- MLS bytes of messages sent and received, for those who miss them; 7 days, bounded in bytes.
CREATE TABLE ciphertext (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  group_id   BLOB NOT NULL,
  sender     BLOB NOT NULL CHECK (length(sender) = 32),
  n          INTEGER NOT NULL,
  epoch      INTEGER NOT NULL,
  tag        BLOB,                              -- of the row that it came in; null: sent
  message_id INTEGER NOT NULL,
  bytes      BLOB NOT NULL,
  at_ms      INTEGER NOT NULL
) STRICT;
CREATE INDEX ciphertext_n ON ciphertext (group_id, sender, n);
CREATE INDEX ciphertext_tag ON ciphertext (tag) WHERE tag IS NOT NULL;
CREATE INDEX ciphertext_at ON ciphertext (at_ms);

-- Greatest n of each sending device in a group.
CREATE TABLE sender_count (
  group_id BLOB NOT NULL,
  sender   BLOB NOT NULL CHECK (length(sender) = 32),
  top      INTEGER NOT NULL,
  last_ms  INTEGER NOT NULL,
  PRIMARY KEY (group_id, sender)
) STRICT, WITHOUT ROWID;

-- What is missing below that: OPEN is asked for at next_ms; an ended one is kept to be told.
CREATE TABLE hole (
  group_id BLOB NOT NULL,
  sender   BLOB NOT NULL CHECK (length(sender) = 32),
  from_n   INTEGER NOT NULL,
  to_n     INTEGER NOT NULL,
  state    TEXT NOT NULL CHECK (state IN ('OPEN', 'GONE', 'UNANSWERED')),
  found_ms INTEGER NOT NULL,
  asks     INTEGER NOT NULL DEFAULT 0,
  next_ms  INTEGER,
  PRIMARY KEY (group_id, sender, from_n)
) STRICT, WITHOUT ROWID;
CREATE INDEX hole_next ON hole (next_ms) WHERE next_ms IS NOT NULL;

-- Requests of others that are checked and not answered yet, and what was sent to each asker.
CREATE TABLE resend_duty (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,
  asker   BLOB NOT NULL CHECK (length(asker) = 32),
  request BLOB NOT NULL,                        -- encoded ResendRequest
  due_ms  INTEGER NOT NULL
) STRICT;
CREATE TABLE resend_spent (
  asker    BLOB NOT NULL CHECK (length(asker) = 32),
  hour     INTEGER NOT NULL,                    -- since the Unix epoch
  requests INTEGER NOT NULL,
  messages INTEGER NOT NULL,
  PRIMARY KEY (hour, asker)
) STRICT, WITHOUT ROWID;

-- When this device found that its store is an older copy: then the conversation's own keys may have
-- been used already, and nothing is sealed with them.
ALTER TABLE conversation ADD COLUMN stale_ms INTEGER;

-- Message keys that were skipped and wait for their message, and since when.
CREATE TABLE mls_skipped (
  group_id   BLOB NOT NULL,
  epoch      INTEGER NOT NULL,
  leaf       INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  seen_ms    INTEGER NOT NULL,
  PRIMARY KEY (group_id, epoch, leaf, generation)
) STRICT, WITHOUT ROWID;
