-- Device store, version 20: Welcomes that a hub could not deliver for want of room for strangers
-- (docs/protocol/delivery.md, "Delivery tokens").

-- What a hub delivers: the mid of its Welcomes (empty: nobody joins), and devices (rids, one after the other) from
-- which it came back before the commit was known to be accepted.
ALTER TABLE group_pending ADD COLUMN welcome_mid BLOB NOT NULL DEFAULT x'';
ALTER TABLE group_pending ADD COLUMN bounced BLOB NOT NULL DEFAULT x'';
-- Under this mid a hub brings what the row holds; null: nobody does, or that came back.
ALTER TABLE outbox ADD COLUMN brought_mid BLOB;
