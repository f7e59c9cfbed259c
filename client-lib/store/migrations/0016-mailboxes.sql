-- Device store, version 16: mailboxes at other nodes (docs/protocol/p2p.md, "Mailboxes").

-- The own ones. Their cursors are in `cursor`, under "mailbox " and the domain.
CREATE TABLE mailbox (
  domain     TEXT PRIMARY KEY,
  record     BLOB NOT NULL,      -- SignedNodeRecord of that node, so that it is found while the own node is away
  expires_ms INTEGER NOT NULL    -- by the own clock, unless it is asked for again
) STRICT, WITHOUT ROWID;
-- Nodes that keep mailboxes of contacts, as the own node showed their records.
CREATE TABLE mailbox_node (
  domain     TEXT PRIMARY KEY,
  record     BLOB NOT NULL,      -- SignedNodeRecord
  checked_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- Domains whose nodes took this copy for a mailbox of its device, each between spaces.
ALTER TABLE outbox ADD COLUMN mailboxes TEXT NOT NULL DEFAULT ' ';
