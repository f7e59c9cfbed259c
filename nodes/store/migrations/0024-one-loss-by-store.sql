-- Id of the peer's store when its last loss was found: another one means another loss, however soon
-- (docs: protocol/delivery, "A peer that was restored").
ALTER TABLE peer ADD COLUMN lost_store_id BLOB;
