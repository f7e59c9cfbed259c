-- Delivery tokens that were replaced (docs: protocol/delivery, "A token that was replaced").

-- Hashes that were in force before, newest first: 32 bytes each, at most 64.
ALTER TABLE token_set ADD COLUMN past BLOB NOT NULL DEFAULT x'' CHECK (length(past) % 32 = 0);
-- The first token in force, sealed by its device for those that may have it: 48 bytes each.
ALTER TABLE token_set ADD COLUMN renewals BLOB NOT NULL DEFAULT x'' CHECK (length(renewals) % 48 = 0);
