-- What a peer said of its own database, with its proof, to be told back to it (docs:
-- protocol/federation): a node whose peer remembers more than it has was rewound.
ALTER TABLE peer ADD COLUMN mark_store_id BLOB;
ALTER TABLE peer ADD COLUMN mark_commits INTEGER NOT NULL DEFAULT 0;
ALTER TABLE peer ADD COLUMN mark_proof BLOB;

-- When the peer was heard last (Unix ms), how its link stood then, and the rows that it took at once.
ALTER TABLE peer ADD COLUMN seen_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE peer ADD COLUMN link_state TEXT NOT NULL DEFAULT 'idle';
ALTER TABLE peer ADD COLUMN last_error TEXT NOT NULL DEFAULT '';
ALTER TABLE peer ADD COLUMN credit_items INTEGER NOT NULL DEFAULT 0;

-- Keys that are not in the peers file are found in its record, and pinned with it. retired_pins:
-- SPKI hashes (32 bytes each) that a record had once and has no longer.
ALTER TABLE peer ADD COLUMN is_found INTEGER NOT NULL DEFAULT 0 CHECK (is_found IN (0, 1));
ALTER TABLE peer ADD COLUMN retired_pins BLOB NOT NULL DEFAULT x'';
-- A record that no key known here has signed, and since when the domain's own site shows it.
ALTER TABLE peer ADD COLUMN candidate BLOB;
ALTER TABLE peer ADD COLUMN candidate_since_ms INTEGER NOT NULL DEFAULT 0;
