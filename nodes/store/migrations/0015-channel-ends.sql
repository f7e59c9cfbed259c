-- Who was taken out of a channel still reads what was posted before: the last such seq. NULL: a subscriber.
-- The row goes with the ack of that seq, or with its lease.
ALTER TABLE channel_cursor ADD COLUMN until INTEGER;
