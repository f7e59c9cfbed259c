-- Device store, version 17: when this device left an epoch of which it keeps keys, so that they go with age.
ALTER TABLE mls_past ADD COLUMN ended_ms INTEGER NOT NULL DEFAULT 0;
UPDATE mls_past SET ended_ms = unixepoch() * 1000;
