-- What each device of this node has waiting in the outbox of a peer (docs: protocol/federation, "Room for everybody").
-- Kept by the rows themselves, so that no way out of an outbox can forget it.
CREATE TABLE outbox_share (
  peer INTEGER NOT NULL REFERENCES peer (id),
  sender INTEGER NOT NULL,
  row_count INTEGER NOT NULL,
  byte_count INTEGER NOT NULL,
  PRIMARY KEY (peer, sender)
) STRICT, WITHOUT ROWID;

INSERT INTO outbox_share
  SELECT peer, sender, count(*), sum(size) FROM outbox WHERE sender IS NOT NULL GROUP BY peer, sender;

CREATE TRIGGER outbox_share_in AFTER INSERT ON outbox WHEN NEW.sender IS NOT NULL
BEGIN
  INSERT INTO outbox_share VALUES (NEW.peer, NEW.sender, 1, NEW.size)
    ON CONFLICT DO UPDATE SET row_count = row_count + 1, byte_count = byte_count + NEW.size;
END;

CREATE TRIGGER outbox_share_out AFTER DELETE ON outbox WHEN OLD.sender IS NOT NULL
BEGIN
  UPDATE outbox_share SET row_count = row_count - 1, byte_count = byte_count - OLD.size
    WHERE peer = OLD.peer AND sender = OLD.sender;
  DELETE FROM outbox_share WHERE peer = OLD.peer AND sender = OLD.sender AND row_count <= 0;
END;
