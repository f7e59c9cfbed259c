-- Version 3: the newest proven NodeRecord of each peer, as it was signed; NULL: none seen yet.
ALTER TABLE peer ADD COLUMN record BLOB;
