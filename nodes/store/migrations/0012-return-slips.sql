-- Who is told when a row expires that came from a peer: the peer (its id), with what it gave along for
-- that. Only the peer can read the slip; NULL: nobody is told.
ALTER TABLE entry ADD COLUMN peer INTEGER;
ALTER TABLE entry ADD COLUMN slip BLOB;
