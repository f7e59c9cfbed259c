-- Device store, version 13: places at relays of other nodes (docs/protocol/p2p.md, "Relays"), so that a device
-- that starts while its own node is away goes back to where its contacts look for it.
CREATE TABLE relay_place (
  domain  TEXT PRIMARY KEY,
  record  BLOB NOT NULL,      -- SignedNodeRecord of that node: where it is, and which swarm is its own
  relay   TEXT NOT NULL       -- address of its relay, with "/p2p/"
) STRICT, WITHOUT ROWID;
