-- Device store, version 22: when a node's record was asked for last, so that a restart asks for it no sooner
-- (docs/developer/verification.md).

ALTER TABLE kt_log ADD COLUMN asked_ms INTEGER NOT NULL DEFAULT 0;  -- Unix time; 0: not known, so it is asked for
